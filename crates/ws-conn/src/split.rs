//! [`Sender`] and [`Receiver`]: the halves of a connection, for use from different tasks.
//!
//! They share the link behind a lock that is held for the length of a poll, never across an await.
//! Not its business: the protocol.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker, ready},
};

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Chunk, CloseCode, CloseFrame, Closed, Error, Intake, Link, Message, Outgoing, Pong,
    PreparedMessage, Text,
    proto::{Event, SendError},
};

pub(crate) fn split<S>(intake: Intake, link: Link<S>) -> (Sender<S>, Receiver<S>) {
    let shared = Arc::new(Shared { link: Mutex::new(link), waiting: Arc::default() });
    (Sender { shared: Arc::clone(&shared) }, Receiver { intake, shared })
}

#[derive(Debug)]
struct Shared<S> {
    link: Mutex<Link<S>>,
    waiting: Arc<Waiting>,
}

impl<S> Shared<S> {
    fn link(&self) -> MutexGuard<'_, Link<S>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Shared<S> {
    /// What the transport is polled with: whichever half touches it last must not silence those who
    /// wait for it too, so all of them are woken.
    fn waker(&self, own: &Waker) -> Waker {
        self.waiting.add(own);
        Waker::from(Arc::clone(&self.waiting))
    }

    async fn ready(&self) {
        poll_fn(|cx| {
            let waker = self.waker(cx.waker());
            let ready = self.link().poll_ready(&mut Context::from_waker(&waker));
            self.waiting.settle(cx.waker(), ready)
        })
        .await;
    }

    async fn flush(&self) -> Result<(), Error> {
        poll_fn(|cx| {
            let waker = self.waker(cx.waker());
            let flushed = self.link().poll_flush(&mut Context::from_waker(&waker));
            self.waiting.settle(cx.waker(), flushed)
        })
        .await;
        self.link().check_sent()
    }

    async fn send_with<T>(
        &self,
        queue: impl FnOnce(&mut Link<S>) -> Result<T, SendError>,
    ) -> Result<T, Error> {
        self.ready().await;
        let result = {
            let mut link = self.link();
            queue(&mut link).map_err(|error| link.explain(error))
        };
        // If the receiving half drives the keepalive or the close, it must see the change.
        let value = result?;
        self.flush().await?;
        Ok(value)
    }
}

/// The tasks that wait for the transport, woken all at once.
#[derive(Debug, Default)]
struct Waiting(Mutex<Vec<Waker>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, waker: &Waker) {
        let mut waiting = self.lock();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

impl Waiting {
    /// Forgets a task that waits no longer, so that those that are done are not kept.
    fn settle<T>(&self, waker: &Waker, poll: Poll<T>) -> Poll<T> {
        if poll.is_ready() {
            self.lock().retain(|other| !other.will_wake(waker));
        }
        poll
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// The half that sends. Clones send on the same connection; messages stay whole.
#[derive(Debug)]
pub struct Sender<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Sender<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sender<S> {
    /// As [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, message: impl Into<Outgoing>) -> Result<(), Error> {
        let message = message.into();
        self.shared.send_with(|link| link.send(message)).await
    }

    /// As [`WebSocket::send_prepared`](crate::WebSocket::send_prepared).
    ///
    /// # Errors
    /// As there.
    pub async fn send_prepared(&self, message: &PreparedMessage) -> Result<(), Error> {
        self.shared.send_with(|link| link.send_prepared(message)).await
    }

    /// As [`WebSocket::send_chunk`](crate::WebSocket::send_chunk). Other messages are refused until
    /// the last piece.
    ///
    /// # Errors
    /// As there.
    pub async fn send_chunk(&self, data: impl Into<Message>, last: bool) -> Result<(), Error> {
        let chunk = Chunk { data: data.into(), last };
        self.shared.send_with(|link| link.send_chunk(chunk)).await
    }

    /// As [`WebSocket::ping`](crate::WebSocket::ping).
    ///
    /// # Errors
    /// As there.
    pub async fn ping(&self) -> Result<Pong, Error> {
        self.shared.send_with(Link::ping).await
    }

    /// Sends a Close frame. The [`Receiver`] completes the closing handshake; keep receiving.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection is closing or gone already.
    pub async fn close(&self, code: CloseCode, reason: impl Into<Text>) -> Result<(), Error> {
        let frame = CloseFrame::new(code, reason);
        let queued = {
            let mut link = self.shared.link();
            link.close(frame).map_err(|error| link.explain(error))
        };
        // The receiving half has a deadline to keep from now on, even if nothing can be written.
        self.shared.waiting.wake_by_ref();
        queued?;
        self.shared.flush().await
    }

    /// Whether messages can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.link().can_send()
    }
}

/// The half that receives.
#[derive(Debug)]
pub struct Receiver<S> {
    intake: Intake,
    shared: Arc<Shared<S>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<S> {
    /// As [`WebSocket::receive`](crate::WebSocket::receive).
    ///
    /// # Errors
    /// As there.
    pub async fn receive(&mut self) -> Result<Option<Message>, Error> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// How the connection ended, or what is known of it so far.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.shared.link().closed()
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        loop {
            match ready!(self.poll_event(cx)) {
                Event::Message(message) => return Poll::Ready(Ok(Some(message))),
                Event::Closed(_) => {
                    // Senders that wait for the transport wait for nothing now.
                    self.shared.waiting.wake_by_ref();
                    return Poll::Ready(self.shared.link().verdict().map(|()| None));
                }
                _ => {}
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let Self { intake, shared } = self;
        let waker = shared.waker(cx.waker());
        let mut shared_cx = Context::from_waker(&waker);
        loop {
            // The timers are this half's alone, so they wake its own task.
            let _ = shared.link().poll_close_timeout(cx);
            let event = intake.poll_event(&mut shared_cx, &shared.link);
            if event.is_ready() {
                return shared.waiting.settle(cx.waker(), event);
            }
            let mut link = shared.link();
            let changed = link.poll_timers(cx);
            let _ = link.poll_flush(&mut shared_cx);
            if !changed && !link.is_dead() {
                link.release();
                return Poll::Pending;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Receiver<S> {
    type Item = Result<Message, Error>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, Error>>> {
        self.poll_receive(cx).map(Result::transpose)
    }
}
