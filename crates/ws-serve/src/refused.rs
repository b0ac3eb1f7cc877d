//! [`Refused`]: why a connection may not be, and what its client is told.
//!
//! Not its business: who decides it, which is `gate.rs`, and how it is sent.

use std::{error, fmt, time::Duration};

use crate::http::StatusCode;

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The server has as many as it may have.
    Connections,
    /// The route has as many as it may have.
    Route,
    /// The client's address, or its IPv6 network, has as many as one may have.
    Address,
    /// More come in a second than may.
    Handshakes {
        /// How long until the next may come.
        wait: Duration,
    },
}

impl Refused {
    /// 503 (RFC 9110 §15.6.4) when we are full, 429 (RFC 6585 §4) when somebody asks too much.
    #[must_use]
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Connections | Self::Route => StatusCode::SERVICE_UNAVAILABLE,
            Self::Address | Self::Handshakes { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The seconds of a Retry-After header (RFC 9110 §10.2.3), at least one.
    #[must_use]
    pub(crate) fn retry_after(&self) -> u64 {
        match self {
            Self::Handshakes { wait } => {
                wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
            }
            Self::Connections | Self::Route | Self::Address => UNTIL_SOMEBODY_LEAVES,
        }
    }

    /// A line for the response's body. It tells no numbers, which would help to stay just below.
    #[must_use]
    pub(crate) fn text(&self) -> &'static str {
        match self {
            Self::Connections => "Too many connections.\n",
            Self::Route => "Too many connections to this path.\n",
            Self::Address => "Too many connections from your address.\n",
            Self::Handshakes { .. } => "Too many connections at once.\n",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "too many connections",
            Self::Route => "too many connections to the route",
            Self::Address => "too many connections from the address",
            Self::Handshakes { .. } => "too many handshakes per second",
        })
    }
}

impl error::Error for Refused {}

/// Chosen, because nobody knows: short enough for a person to wait, long enough that those who are
/// turned away and come back are no load.
const UNTIL_SOMEBODY_LEAVES: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_at_fault_chooses_the_status() {
        assert_eq!(Refused::Connections.status(), 503);
        assert_eq!(Refused::Route.status(), 503);
        assert_eq!(Refused::Address.status(), 429);
        assert_eq!(Refused::Handshakes { wait: Duration::ZERO }.status(), 429);
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let seconds = |wait| Refused::Handshakes { wait }.retry_after();
        assert_eq!(seconds(Duration::from_nanos(1)), 1);
        assert_eq!(seconds(Duration::from_secs(3)), 3);
        assert_eq!(seconds(Duration::from_millis(3_001)), 4);
        assert_eq!(seconds(Duration::MAX), u64::MAX);
        assert_eq!(Refused::Connections.retry_after(), UNTIL_SOMEBODY_LEAVES);
    }
}
