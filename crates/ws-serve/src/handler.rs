//! [`Handler`]: what the application implements, and what its result means for the connection.
//!
//! Not its business: running it, which is `session.rs`.

use std::{fmt::Display, future::Future};

use crate::{CloseCode, CloseFrame, Socket, Text};

/// An async function that takes a [`Socket`] and returns nothing or a `Result<(), E>`.
///
/// Returning closes the connection with 1000; returning an error logs it and closes with 1011; a
/// panic does, too, and harms no other connection.
pub trait Handler: Clone + Send + Sync + 'static {
    /// What it returns.
    type Outcome: Outcome;
    /// The future that serves one connection.
    type Future: Future<Output = Self::Outcome> + Send + 'static;

    /// Serves one connection.
    fn call(&self, socket: Socket) -> Self::Future;
}

impl<F, Fut> Handler for F
where
    F: Fn(Socket) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: Outcome,
{
    type Outcome = Fut::Output;
    type Future = Fut;

    fn call(&self, socket: Socket) -> Fut {
        self(socket)
    }
}

/// What a handler may return: nothing, or a `Result<(), E>` whose error can be displayed.
pub trait Outcome: Send {
    /// The error, as words for the log.
    fn into_error(self) -> Option<String>;
}

impl Outcome for () {
    fn into_error(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send> Outcome for Result<(), E> {
    fn into_error(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// How the connection is closed when the handler is done. The error's text stays on our side: it may
/// say more than a stranger should know.
pub(crate) fn farewell(error: Option<&String>) -> CloseFrame {
    match error {
        None => CloseCode::NORMAL.into(),
        Some(_) => CloseFrame::new(CloseCode::INTERNAL_ERROR, Text::new()),
    }
}
