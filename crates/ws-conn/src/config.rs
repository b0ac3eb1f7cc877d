//! [`Config`]: time limits and buffers of a connection; holds the protocol's own configuration.
//!
//! Not its business: what is negotiated, which is the handshake's configuration.

use std::time::Duration;

use crate::{Keepalive, proto};

/// Limits and habits of a [`WebSocket`](crate::WebSocket).
///
/// ```
/// use std::time::Duration;
/// use ws_conn::{Config, Keepalive};
/// let config = Config::default()
///     .max_message_size(64 << 10)
///     .close_timeout(Duration::from_secs(3))
///     .keepalive(Keepalive::every(Duration::from_secs(30)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) proto: proto::Config,
    pub(crate) open_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) write_limit: usize,
}

impl Config {
    /// The largest message accepted, in bytes; larger ones fail the connection with 1009.
    /// Default: 1 MiB.
    #[must_use]
    #[doc(alias = "max_size")]
    pub fn max_message_size(mut self, bytes: u64) -> Self {
        self.proto = self.proto.max_message_size(bytes);
        self
    }

    /// The largest frame accepted, in bytes. Default: as the message size.
    #[must_use]
    pub fn max_frame_size(mut self, bytes: u64) -> Self {
        self.proto = self.proto.max_frame_size(bytes);
        self
    }

    /// The largest number of frames in a message. Default: 131 072.
    #[must_use]
    pub fn max_fragments(mut self, count: u32) -> Self {
        self.proto = self.proto.max_fragments(count);
        self
    }

    /// When to ping and when to give up. Default: 20 s and 20 s.
    #[must_use]
    #[doc(alias = "ping_interval")]
    #[doc(alias = "ping_timeout")]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.proto = self.proto.keepalive(keepalive);
        self
    }

    /// How long opening may take in all: resolving, connecting, the handshake. Default: 10 s.
    #[must_use]
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// How long closing may take in all, from the first Close frame to the end of TCP. Default: 10 s.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How many bytes may wait to be written before sending waits too. Default: 64 KiB, which is
    /// about what a socket's own buffer takes in one go.
    #[must_use]
    pub fn write_limit(mut self, bytes: usize) -> Self {
        self.write_limit = bytes;
        self
    }

    /// The time limit for opening, as set.
    #[must_use]
    pub fn open_timeout_setting(&self) -> Duration {
        self.open_timeout
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            proto: proto::Config::default(),
            open_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(10),
            write_limit: 64 << 10,
        }
    }
}
