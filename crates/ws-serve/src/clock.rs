//! [`Clock`]: coarse time that costs a load, for what is old after minutes.
//!
//! A task of the hub's advances it. Not its business: keepalive, which has deadlines of its own.

use std::sync::atomic::{AtomicU32, Ordering};

/// Counts ticks. A tick is as long as the shortest limit demands.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    ticks: AtomicU32,
}

impl Clock {
    /// The present tick.
    #[inline]
    pub(crate) fn now(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self) -> u32 {
        self.ticks.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}
