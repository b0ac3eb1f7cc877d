//! [`Meter`]: how fast a connection may receive.
//!
//! Who is faster is not refused but read later: what it sends waits in its own system, as TCP has it.
//! Counted when a handler wants more than was read already, so that a message costs nothing.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};

use crate::{Rate, bucket::Bucket, conn::Received};

/// How many messages and bytes a connection may receive in a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) messages: Option<Rate>,
    pub(crate) bytes: Option<Rate>,
}

impl Rates {
    pub(crate) fn is_some(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self { messages: Some(DEFAULT_MESSAGES), bytes: Some(DEFAULT_BYTES) }
    }
}

/// What a connection has used of its [`Rates`].
#[derive(Debug, Default)]
pub(crate) struct Meter {
    messages: Bucket,
    bytes: Bucket,
    /// What is not charged yet.
    pending: Received,
    /// Until its debts are paid.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Meter {
    /// Charges what was received; when it is worth a look at the clock, which is at most some thousand
    /// times a second.
    pub(crate) fn charge(&mut self, rates: &Rates, received: Received, epoch: Instant) {
        self.pending.messages += received.messages;
        self.pending.bytes += received.bytes;
        let is_little = |amount, rate: &Option<Rate>| {
            rate.as_ref().is_none_or(|rate| amount < u64::from(rate.in_a_second() / 1024))
        };
        let Received { messages, bytes } = self.pending;
        if is_little(messages, &rates.messages) && is_little(bytes, &rates.bytes) {
            return;
        }
        let received = std::mem::take(&mut self.pending);
        let now = Instant::now().saturating_duration_since(epoch);
        let debt = |bucket: &mut Bucket, rate: &Option<Rate>, amount| {
            rate.as_ref().map_or(Duration::ZERO, |rate| bucket.debit(rate, amount, now))
        };
        let wait = debt(&mut self.messages, &rates.messages, received.messages).max(debt(
            &mut self.bytes,
            &rates.bytes,
            received.bytes,
        ));
        // A timer does not know less.
        if wait >= Duration::from_millis(1) {
            self.pause = Some(Box::pin(sleep(wait)));
        }
    }

    /// Waits until more may be received.
    #[inline]
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

/// Chosen: far beyond what a person or a game sends, and what a loop that ran wild takes is a third of
/// a core.
const DEFAULT_MESSAGES: Rate = Rate::per_second(100_000).burst(100_000);
/// Chosen: as fast as networks commonly are.
const DEFAULT_BYTES: Rate = Rate::per_second(1 << 30).burst(1 << 30);
