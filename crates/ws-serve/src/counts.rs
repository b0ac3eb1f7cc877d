//! [`Counts`]: what became of the messages that were published, to the last one.
//!
//! Nothing is counted when a message is delivered: of all that was sent, what does not wait and was
//! not dropped. So the common case costs one addition for a whole turn.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
};

/// What became of published messages, for a connection or for a topic.
///
/// A message that is published to a topic with ten members is sent ten times, and then
/// `sent == delivered() + dropped() + waiting`, exactly. A topic's counts are read while other threads
/// change them; they are exact when nothing is being published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Messages that were due to a member.
    pub sent: u64,
    /// Of these, how many wait for a client that is behind.
    pub waiting: u64,
    /// Dropped because the client's queue was full.
    pub dropped_full: u64,
    /// Dropped because a newer message with the same key took their place.
    pub dropped_conflated: u64,
    /// Dropped because the connection was closing, or closed before they left.
    pub dropped_closed: u64,
}

impl Counts {
    /// Messages that the transport took, or takes next. What the network loses when a connection
    /// breaks is among them: nobody on this side knows.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.sent.saturating_sub(self.waiting).saturating_sub(self.dropped())
    }

    /// Messages that were dropped, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_full + self.dropped_conflated + self.dropped_closed
    }
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    Full,
    Conflated,
    Closed,
}

/// Messages that were dropped, by [`Loss`].
pub(crate) type Losses = [u64; 3];

/// The [`Counts`] of a topic, counted on all threads.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sent: AtomicU64,
    waiting: AtomicU64,
    losses: [AtomicU64; 3],
}

impl Tally {
    /// So many messages are due to members.
    pub(crate) fn send(&self, count: u64) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }

    /// So many messages are dropped without having waited.
    pub(crate) fn lose(&self, loss: Loss, count: u64) {
        self.losses[loss as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// A message begins to wait.
    pub(crate) fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A message that waited does so no longer.
    pub(crate) fn end_wait(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts::new(load(&self.sent), load(&self.waiting), self.losses.each_ref().map(load))
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.waiting += other.waiting;
        self.dropped_full += other.dropped_full;
        self.dropped_conflated += other.dropped_conflated;
        self.dropped_closed += other.dropped_closed;
    }
}

impl Counts {
    pub(crate) fn new(sent: u64, waiting: u64, losses: Losses) -> Self {
        let [dropped_full, dropped_conflated, dropped_closed] = losses;
        Self { sent, waiting, dropped_full, dropped_conflated, dropped_closed }
    }
}
