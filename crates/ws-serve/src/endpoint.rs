//! [`Endpoint`]: a handler whose types are forgotten, from the table of routes to its future.
//!
//! Endpoint (kept by the server) → [`Start`] (a request's arguments are there) → [`Running`] (the
//! handshake is complete and the handler was called). Not its business: polling it, `session.rs`.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    Outcome, Socket,
    arguments::{Available, Refusal, Source},
    http::Extensions,
    routes::Params,
};

/// A handler, kept to be called for each connection. Cloning is cheap.
#[derive(Clone)]
pub struct Endpoint {
    check: fn(&mut Available<'_>) -> Result<(), String>,
    prepare: Arc<Prepare>,
}

type Prepare = dyn Fn(&mut Source<'_>) -> Result<Start, Refusal> + Send + Sync;

impl Endpoint {
    pub(crate) fn new(
        check: fn(&mut Available<'_>) -> Result<(), String>,
        prepare: impl Fn(&mut Source<'_>) -> Result<Start, Refusal> + Send + Sync + 'static,
    ) -> Self {
        Self { check, prepare: Arc::new(prepare) }
    }

    /// Whether requests can have what the handler takes, given how many parameters its pattern has
    /// and what state the server was given. If not, a sentence for whoever starts the server.
    pub(crate) fn check(&self, pattern_params: usize, state: &Extensions) -> Result<(), String> {
        (self.check)(&mut Available::new(pattern_params, state))
    }

    /// Takes the arguments out of a request.
    pub(crate) fn prepare(
        &self,
        params: &Params,
        data: &Extensions,
        state: &Extensions,
    ) -> Result<Start, Refusal> {
        (self.prepare)(&mut Source::new(params, data, state))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

/// A handler with its arguments; only the socket is missing.
pub(crate) struct Start(Box<dyn FnOnce(Socket) -> Running + Send>);

impl Start {
    pub(crate) fn new<Fut>(call: impl FnOnce(Socket) -> Fut + Send + 'static) -> Self
    where
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        Self(Box::new(move |socket| Running(Box::pin(call(socket)))))
    }

    /// Calls the handler, which may panic.
    pub(crate) fn call(self, socket: Socket) -> Running {
        (self.0)(socket)
    }
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start").finish_non_exhaustive()
    }
}

/// A handler's future, in one box of exactly its size: that is what an idle connection pays. When it
/// is done it says what went wrong, in words for the log.
pub(crate) struct Running(Pin<Box<dyn Serving>>);

impl Future for Running {
    type Output = Option<String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll_error(cx)
    }
}

/// Any future of an [`Outcome`]. A trait for the box, since a future around the future that maps its
/// output would need `unsafe` to pin it.
trait Serving: Send {
    fn poll_error(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<String>>;
}

impl<Fut> Serving for Fut
where
    Fut: Future + Send,
    Fut::Output: Outcome,
{
    fn poll_error(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<String>> {
        self.poll(cx).map(Outcome::into_error)
    }
}
