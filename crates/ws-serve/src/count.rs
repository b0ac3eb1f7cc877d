//! [`Count`]: how many there are of something of which there may be so many at once.
//!
//! Not its business: what is counted. The server's connections are, and those of a route.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many connections are open, and how many may be.
///
/// Relaxed throughout: nothing but the numbers themselves depends on them.
#[derive(Debug)]
pub(crate) struct Count {
    open: AtomicUsize,
    max: AtomicUsize,
}

impl Count {
    /// Nobody yet, and so many at most; `usize::MAX` is no limit.
    #[must_use]
    pub(crate) const fn new(max: usize) -> Self {
        Self { open: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Changes how many there may be. If there are more already, they stay.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Counts one more, if one more there may be. Each success is owed a [`leave`](Self::leave).
    #[must_use]
    pub(crate) fn enter(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let one_more = |open| (open < max).then_some(open + 1);
        self.open.try_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
