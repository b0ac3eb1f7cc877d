//! [`Session`]: the task around a handler.
//!
//! It polls the handler with the cork in and writes what the handler sent when the poll ends; that is
//! all the corking there is, without a timer and without a second task. When the handler is done it
//! completes the closing handshake (RFC 6455 §7.1). Not its business: the opening handshake.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use tracing::Span;

use crate::{
    Permit, Socket,
    conn::{
        Intake,
        proto::{Event, State},
    },
    cork,
    endpoint::{Running, Start},
    handler::farewell,
    outbox::Outbox,
    peer::Peer,
};

/// A connection's task, from the end of the opening handshake to the end of the transport.
pub(crate) struct Session {
    peer: Arc<Peer>,
    /// `None` when it is done.
    handler: Option<Handling>,
    /// The receiving half, once the handler has let go of it.
    intake: Option<Box<Intake>>,
    /// Whether the task has been made known to those who send.
    started: bool,
    /// Its place among the connections that there may be. Not the peer's, which lives as long as
    /// anybody has a sender.
    _permit: Permit,
    /// If anybody wants to know; boxed, because mostly nobody does.
    span: Option<Box<Span>>,
}

/// A handler, called when it is first polled: a panic of the call itself is caught there, too.
enum Handling {
    Waiting(Option<(Start, Socket)>),
    Called(Running),
}

impl Handling {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        if let Self::Waiting(call) = self {
            let (start, socket) = call.take().expect("a handler that panicked is dropped");
            *self = Self::Called(start.call(socket));
        }
        match self {
            Self::Called(running) => Pin::new(running).poll(cx),
            Self::Waiting(_) => Poll::Pending,
        }
    }
}

impl Session {
    pub(crate) fn new(peer: Arc<Peer>, start: Start, socket: Socket, permit: Permit) -> Self {
        peer.hub.add(&peer);
        let span = tracing::debug_span!(
            "connection",
            id = peer.id,
            peer = %peer.address,
            path = tracing::field::Empty,
            subprotocol = peer.subprotocol.as_deref(),
        );
        let span = (!span.is_disabled()).then(|| {
            span.record("path", peer.path());
            Box::new(span)
        });
        let handler = Some(Handling::Waiting(Some((start, socket))));
        Self { peer, handler, intake: None, started: false, _permit: permit, span }
    }
}

/// Nothing in it is pinned in place.
impl Unpin for Session {}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let span = this.span.clone();
        let _entered = span.as_deref().map(Span::enter);
        let peer = &*this.peer;
        if peer.is_aborted() {
            return Poll::Ready(());
        }
        let Some(handler) = &mut this.handler else { return this.poll_closing(cx) };

        if !this.started {
            this.started = true;
            peer.with(|outbox| outbox.set_session(cx.waker()));
        }
        let corked = cork::enter(peer.id);
        let polled = catch_unwind(AssertUnwindSafe(|| handler.poll(cx)));
        let state = corked.leave(|queue| {
            peer.with(|outbox| {
                if !queue.is_empty() {
                    outbox.take_corked(queue);
                }
                outbox.flush();
                outbox.link.release_to(queue);
                let state = outbox.link.state();
                if matches!(polled, Ok(Poll::Pending)) {
                    poll_timers(peer, outbox, cx);
                }
                state
            })
        });
        let sent = cork::take_messages();
        if sent > 0 {
            peer.hub.counters.messages_sent.add(sent);
        }
        let error = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(error)) => error,
            // The panic hook has reported it.
            Err(_) => Some("the handler panicked".to_owned()),
        };
        if let Some(error) = &error {
            if state == State::Open {
                peer.hub.counters.handlers_failed.add(1);
            }
            // A handler that ends because the connection did has nothing to complain about.
            if state == State::Open {
                tracing::error!(connection = peer.id, %error, "handler failed");
            } else {
                tracing::debug!(connection = peer.id, %error, "handler ended");
            }
        }
        let _ = peer.close(farewell(error.as_ref()));
        this.handler = None;
        this.poll_closing(cx)
    }
}

impl Session {
    /// Completes the closing handshake, discarding what still comes.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let peer = &*self.peer;
        loop {
            let state = peer.with(|outbox| {
                outbox.set_session(cx.waker());
                if self.intake.is_none() {
                    self.intake = outbox.intake.take();
                }
                outbox.flush();
                if outbox.link.state() == State::Closed {
                    outbox.wake_receiver();
                }
                outbox.link.state()
            });
            if state == State::Closed {
                return Poll::Ready(());
            }
            // Another task may still hold the socket; its end wakes us.
            let Some(intake) = &mut self.intake else {
                let ended = peer.with(|outbox| {
                    outbox.end_if_complete();
                    let _ = outbox.link.poll_close_timeout(cx);
                    outbox.link.state() == State::Closed
                });
                return if ended { Poll::Ready(()) } else { Poll::Pending };
            };
            match intake.poll_event(cx, peer) {
                Poll::Ready(Event::Closed(_)) => return Poll::Ready(()),
                Poll::Ready(Event::Closing(_)) => {}
                Poll::Ready(_) => {
                    // However much it sends.
                    let _ = peer.with(|outbox| outbox.link.poll_close_timeout(cx));
                }
                Poll::Pending => {
                    // What the peer's last frames called for, such as the end of our writing.
                    let pending = peer.with(|outbox| {
                        outbox.flush();
                        // It was read empty, so this is no reset.
                        outbox.end_if_complete();
                        let _ = outbox.link.poll_close_timeout(cx);
                        outbox.link.state() != State::Closed
                    });
                    if pending {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

/// Keepalive and close timeout, after the handler has read what there was.
fn poll_timers(peer: &Peer, outbox: &mut Outbox, cx: &mut Context<'_>) {
    outbox.set_session(cx.waker());
    if !peer.receiving.load(Ordering::Relaxed) {
        // The client's Pong may wait unread; a busy handler is not a dead client.
        outbox.link.handle_activity();
    }
    while outbox.link.poll_timers(cx) {
        outbox.flush();
        if outbox.link.state() == State::Closed {
            // Whoever waits to receive must see the end.
            cx.waker().wake_by_ref();
            outbox.wake_receiver();
            return;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(intake) = &mut self.intake {
            self.peer.handle_received(intake.take_received());
        }
        let topics = self.peer.with(|outbox| {
            outbox.discard_backlog();
            // Whoever still holds a sender holds no file descriptor.
            outbox.link.drop_transport();
            outbox.wake_receiver();
            outbox.topics.take().unwrap_or_default()
        });
        topics.iter().for_each(|topic| topic.remove(&self.peer));
        self.peer.hub.remove(&self.peer);
    }
}
