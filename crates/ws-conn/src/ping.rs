//! [`Pong`]: the answer to a Ping, and how long it took (RFC 6455 §5.5.3).
//!
//! Not its business: keepalive, which the protocol crate does by itself.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::deadline::now;

/// Resolves to the latency when the Pong arrives, or to `None` if the connection ends first.
///
/// It resolves only while somebody receives: that is what reads the Pong.
#[derive(Debug)]
#[must_use = "the latency is in the future's output"]
pub struct Pong(oneshot::Receiver<Duration>);

impl Future for Pong {
    type Output = Option<Duration>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Duration>> {
        Pin::new(&mut self.0).poll(cx).map(Result::ok)
    }
}

/// Pings whose answers are awaited, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    next: u64,
    waiting: VecDeque<(u64, Instant, oneshot::Sender<Duration>)>,
}

impl Pings {
    /// A fresh payload, and the future of its answer.
    pub(crate) fn start(&mut self) -> ([u8; 8], Pong) {
        let (sender, receiver) = oneshot::channel();
        let id = self.next;
        self.next += 1;
        // Who has stopped waiting needs no answer; this also bounds the queue by the living.
        self.waiting.retain(|(_, _, sender)| !sender.is_closed());
        self.waiting.push_back((id, now(), sender));
        (id.to_be_bytes(), Pong(receiver))
    }

    /// Takes note of a Pong, which acknowledges its Ping and all earlier ones (§5.5.3).
    pub(crate) fn handle_pong(&mut self, payload: &[u8]) {
        let Ok(bytes) = payload.try_into() else { return };
        let id = u64::from_be_bytes(bytes);
        if !self.waiting.iter().any(|(waiting, _, _)| *waiting == id) {
            return;
        }
        let now = now();
        while let Some((_, started, sender)) = self.waiting.pop_front_if(|ping| ping.0 <= id) {
            let _ = sender.send(now.duration_since(started));
        }
    }
}
