//! [`State`]: where the closing handshake stands (RFC 6455 §7.1).
//!
//! Role-blind on purpose: who closes TCP first is decided in `outbound.rs`. There is no CONNECTING,
//! because a connection is made from what a handshake produced.

/// Where the closing handshake stands.
///
/// ```text
///             send_close                  recv_close
///    Open ──────────────────▶ CloseSent ─────────────▶ Draining ──▶ Closed
///     │                           └─── fail ──────────────▲     recv_eof
///     ├── recv_close (echoed, §5.5.1) ────────────────────┤
///     └── fail (our Close queued, §7.1.7) ────────────────┘
///    any ── recv_eof ──▶ Closed
/// ```
///
/// In `Draining` input is discarded (§1.4, §7.1.7), output is flushed, and the TCP connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(alias = "ConnectionState")]
pub enum State {
    /// Messages go both ways.
    Open,
    /// We sent a Close frame: we send nothing more, and still receive.
    CloseSent,
    /// Both sides are done, or we failed the connection; what is left is to flush and to end TCP.
    Draining,
    /// The transport is gone.
    Closed,
}

impl State {
    /// Whether data and control frames may still be sent.
    #[must_use]
    pub fn can_send(self) -> bool {
        self == Self::Open
    }

    /// Whether the peer's frames still mean something.
    #[must_use]
    pub fn can_receive(self) -> bool {
        matches!(self, Self::Open | Self::CloseSent)
    }

    pub(crate) fn send_close(&mut self) {
        if *self == Self::Open {
            *self = Self::CloseSent;
        }
    }

    pub(crate) fn recv_close(&mut self) {
        if self.can_receive() {
            *self = Self::Draining;
        }
    }

    pub(crate) fn fail(&mut self) {
        if self.can_receive() {
            *self = Self::Draining;
        }
    }

    pub(crate) fn recv_eof(&mut self) {
        *self = Self::Closed;
    }
}
