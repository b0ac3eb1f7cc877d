//! [`Config`]: the limits and habits of one connection.
//!
//! Not its business: timeouts of connecting and closing, and buffer sizes, which belong to the I/O layer.

use crate::Keepalive;

/// Limits and habits of a [`Connection`](crate::Connection).
///
/// ```
/// use ws_proto::{Config, Keepalive};
/// let config = Config::default().max_message_size(64 << 10).keepalive(Keepalive::off());
/// assert_eq!(config.limits().max_message_size, 64 << 10);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    limits: Limits,
    keepalive: Keepalive,
}

impl Config {
    /// The largest message accepted, in bytes of payload over all its fragments. Larger ones fail
    /// the connection with 1009 before they are stored. Default: 1 MiB, as Python's `websockets`.
    ///
    /// Messages that are received in chunks are not limited by this.
    #[must_use]
    #[doc(alias = "max_size")]
    pub fn max_message_size(mut self, bytes: u64) -> Self {
        self.limits.max_message_size = bytes;
        self
    }

    /// The largest single frame accepted, in bytes of payload. Default: no limit of its own, as
    /// [`max_message_size`](Self::max_message_size) bounds it already.
    #[must_use]
    pub fn max_frame_size(mut self, bytes: u64) -> Self {
        self.limits.max_frame_size = bytes;
        self
    }

    /// The largest number of frames in one message. Default: 131 072, which lets a 4 MiB message
    /// come in frames of 64 bytes (Autobahn 9.3.1) twice over and stops a stream of empty frames. At
    /// least 1. Messages that are received in chunks are not limited by this.
    #[must_use]
    pub fn max_fragments(mut self, count: u32) -> Self {
        self.limits.max_fragments = count;
        self
    }

    /// When to ping and when to give up. Default: ping after 20 s, give up 20 s later.
    #[must_use]
    #[doc(alias = "ping_interval")]
    #[doc(alias = "ping_timeout")]
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// The limits as set.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The keepalive as set.
    #[must_use]
    pub fn keepalive_settings(&self) -> Keepalive {
        self.keepalive
    }
}

/// How much a peer may send. Everything is checked on the declared length, before memory is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// See [`Config::max_message_size`].
    pub max_message_size: u64,
    /// See [`Config::max_frame_size`].
    pub max_frame_size: u64,
    /// See [`Config::max_fragments`].
    pub max_fragments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message_size: 1 << 20, max_frame_size: u64::MAX, max_fragments: 1 << 17 }
    }
}
