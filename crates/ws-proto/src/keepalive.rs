//! [`Keepalive`]: when to ping, and when a silent peer is given up.
//!
//! Not its business: the clock. It asks for a deadline and is told the time (RFC 6455 §5.5.2 lets a
//! Ping serve "as a keepalive").

use std::time::{Duration, Instant};

/// When to ping, and how long to wait for a sign of life.
///
/// Any byte from the peer counts as one, not only the Pong: a peer whose Pong waits behind its own
/// large message is alive. Default: 20 s and 20 s, as Python's `websockets`.
///
/// ```
/// use std::time::Duration;
/// use ws_proto::Keepalive;
/// let keepalive = Keepalive::every(Duration::from_secs(5)).timeout(Duration::from_secs(10));
/// assert_ne!(keepalive, Keepalive::off());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    interval: Option<Duration>,
    timeout: Option<Duration>,
}

impl Keepalive {
    /// Pings at this interval, of at least a millisecond; gives up after the default timeout of 20 s.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { interval: Some(interval.max(SHORTEST)), ..Self::default() }
    }

    /// How long after a Ping to wait for any sign of life before the connection fails with 1011.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Pings but never gives up: keeps middleboxes from forgetting the connection, no more.
    #[must_use]
    pub fn without_timeout(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// Neither pings nor gives up.
    #[must_use]
    pub fn off() -> Self {
        Self { interval: None, timeout: None }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Some(DEFAULT_PERIOD), timeout: Some(DEFAULT_PERIOD) }
    }
}

/// The running state of a [`Keepalive`]. No message costs it more than a flag.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    settings: Keepalive,
    deadline: Option<Instant>,
    /// When the Ping went out whose answer we wait for.
    pinged: Option<Instant>,
    /// Whether anything came since.
    heard: bool,
}

/// What a passed deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Nothing,
    Ping,
    GiveUp,
}

impl Heartbeat {
    pub(crate) fn new(settings: Keepalive, now: Instant) -> Self {
        let deadline = settings.interval.and_then(|interval| now.checked_add(interval));
        Self { settings, deadline, pinged: None, heard: false }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn handle_heard(&mut self) {
        self.heard = true;
    }

    pub(crate) fn stop(&mut self) {
        self.deadline = None;
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Beat {
        let (Some(deadline), Some(interval)) = (self.deadline, self.settings.interval) else {
            return Beat::Nothing;
        };
        if now < deadline {
            return Beat::Nothing;
        }
        if let (Some(pinged), Some(timeout)) = (self.pinged, self.settings.timeout) {
            // A deadline seen this late means that we were suspended, not that the peer is gone:
            // it gets one fresh round.
            let alive = self.heard || now.duration_since(deadline) > SUSPENDED;
            let next = pinged.checked_add(if alive { interval } else { timeout });
            if next.is_none_or(|next| now < next) {
                self.deadline = next;
                return Beat::Nothing;
            }
            if !alive {
                self.deadline = None;
                return Beat::GiveUp;
            }
        }
        self.heard = false;
        self.pinged = Some(now);
        // Whichever comes first: the next Ping, if this one is answered, or the end of patience.
        let next = self.settings.timeout.map_or(interval, |timeout| timeout.min(interval));
        self.deadline = now.checked_add(next);
        Beat::Ping
    }
}

/// As Python's `websockets`: below the 30 s after which the strictest common middleboxes forget a connection.
const DEFAULT_PERIOD: Duration = Duration::from_secs(20);

/// The resolution of the timers that will wait for it.
const SHORTEST: Duration = Duration::from_millis(1);

/// Chosen, because a busy runtime is late by milliseconds and a suspended process by seconds.
const SUSPENDED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn pings_then_gives_up_on_a_silent_peer() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(Keepalive::every(secs(20)).timeout(secs(5)), start);
        assert_eq!(heartbeat.deadline(), Some(start + secs(20)));
        assert_eq!(heartbeat.handle_timeout(start + secs(19)), Beat::Nothing);
        assert_eq!(heartbeat.handle_timeout(start + secs(20)), Beat::Ping);
        assert_eq!(heartbeat.deadline(), Some(start + secs(25)));
        assert_eq!(heartbeat.handle_timeout(start + secs(25)), Beat::GiveUp);
        assert_eq!(heartbeat.deadline(), None);
    }

    #[test]
    fn any_sign_of_life_is_enough_and_keeps_the_rhythm() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(Keepalive::every(secs(20)).timeout(secs(5)), start);
        assert_eq!(heartbeat.handle_timeout(start + secs(20)), Beat::Ping);
        heartbeat.handle_heard();
        assert_eq!(heartbeat.handle_timeout(start + secs(25)), Beat::Nothing);
        assert_eq!(heartbeat.deadline(), Some(start + secs(40)));
        assert_eq!(heartbeat.handle_timeout(start + secs(40)), Beat::Ping);
    }

    #[test]
    fn a_suspended_process_grants_one_fresh_round() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(Keepalive::default(), start);
        assert_eq!(heartbeat.handle_timeout(start + secs(20)), Beat::Ping);
        assert_eq!(heartbeat.handle_timeout(start + secs(100)), Beat::Ping);
        assert_eq!(heartbeat.handle_timeout(start + secs(120)), Beat::GiveUp);
    }

    #[test]
    fn off_and_without_timeout() {
        let start = Instant::now();
        assert_eq!(Heartbeat::new(Keepalive::off(), start).deadline(), None);
        let settings = Keepalive::every(secs(1)).without_timeout();
        let mut heartbeat = Heartbeat::new(settings, start);
        for second in 1..5 {
            assert_eq!(heartbeat.handle_timeout(start + secs(second)), Beat::Ping);
        }
    }
}
