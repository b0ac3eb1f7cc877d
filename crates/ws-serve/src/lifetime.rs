//! [`Lifetime`]: how long a connection may live, and how long it may be idle.
//!
//! Looked after by a task of the hub's, which walks over all connections at each tick: a timer in each
//! would cost every idle connection its memory. Not its business: dead peers, which the keepalive finds.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::{CloseCode, CloseFrame, hub::Hub};

/// How long connections live; `None` is for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lifetime {
    /// Without a message from the client.
    pub(crate) idle: Option<Duration>,
    /// In all.
    pub(crate) total: Option<Duration>,
}

impl Lifetime {
    /// The shortest of them.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        [self.idle, self.total].into_iter().flatten().min()
    }
}

/// Advances the clock, and closes what has lived or been idle for too long; runs until it is dropped.
///
/// It ticks also if nothing has a limit: a timer that is always there saves the others a system call each,
/// since the runtime writes to itself whenever a timer is set that comes before all others.
pub(crate) async fn look_after(hub: &Arc<Hub>, shortest: Option<Duration>) {
    let tick = shortest
        .map_or(LONGEST_TICK, |shortest| (shortest / TICKS).clamp(SHORTEST_TICK, LONGEST_TICK));
    let mut ticks = interval(tick);
    // After a suspension time goes on where it was: nobody could show a sign of life meanwhile.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one is at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = hub.clock.advance();
        if shortest.is_none() {
            continue;
        }
        for peer in hub.peers() {
            let Lifetime { idle, total } = peer.destination.lifetime;
            let is_over = |limit: Option<Duration>, since: u32| {
                limit.is_some_and(|limit| tick * now.wrapping_sub(since) > limit)
            };
            let reason = if is_over(total, peer.born) {
                "time is up, please reconnect"
            // What waits unread while the handler is busy is no idleness.
            } else if peer.is_receiving() && is_over(idle, peer.last_heard()) {
                "idle for too long"
            } else {
                continue;
            };
            let _ = peer.close(CloseFrame::new(CloseCode::GOING_AWAY, reason));
        }
    }
}

/// A limit is kept to an eighth of it.
const TICKS: u32 = 8;
/// Chosen: a walk over a hundred thousand connections takes less.
const SHORTEST_TICK: Duration = Duration::from_millis(20);
/// Chosen: limits of minutes need no more.
const LONGEST_TICK: Duration = Duration::from_secs(1);
