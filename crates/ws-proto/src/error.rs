//! Errors by fault: [`ProtocolError`] is the peer's, [`SendError`] is ours.
//!
//! Not its business: the end of a connection, which is [`Closed`](crate::Closed). Status codes: RFC 6455 §7.4.1.

use crate::{CloseCode, InvalidUtf8, Opcode};

/// What the peer did that the protocol, or our limits, forbid.
///
/// The variants are for logs and tests; a program that wants to react should look at
/// [`close_code`](Self::close_code), which is also what the peer is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[doc(alias = "RemoteProtocolError")]
#[doc(alias = "PayloadTooBig")]
pub enum ProtocolError {
    /// A reserved bit is set that no negotiated extension defines (RFC 6455 §5.2).
    #[error("reserved bits {0:#05b} must be 0")]
    ReservedBits(u8),
    /// The opcode is one of the reserved ones (§5.2).
    #[error("invalid opcode {0:#x}")]
    ReservedOpcode(u8),
    /// A Close, Ping or Pong without FIN (§5.5).
    #[error("fragmented control frame ({0})")]
    FragmentedControlFrame(Opcode),
    /// A Close, Ping or Pong of more than 125 bytes (§5.5).
    #[error("control frame too long ({0})")]
    ControlFrameTooLong(Opcode),
    /// §5.1: a client masks every frame.
    #[error("incorrect masking: unmasked frame from client")]
    UnmaskedFrameFromClient,
    /// §5.1: a server masks none.
    #[error("incorrect masking: masked frame from server")]
    MaskedFrameFromServer,
    /// The length is not in its shortest form (§5.2).
    #[error("length {0} is not minimally encoded")]
    NonMinimalLength(u64),
    /// The most significant bit of a 64-bit length is set (§5.2).
    #[error("length {0} has its most significant bit set")]
    LengthOverflow(u64),
    /// A continuation frame with no message to continue (§5.4).
    #[error("unexpected continuation frame")]
    UnexpectedContinuation,
    /// A new data frame inside a fragmented message (§5.4).
    #[error("expected a continuation frame")]
    ExpectedContinuation,
    /// A Close payload of one byte (§5.5.1).
    #[error("close frame too short")]
    CloseFrameTooShort,
    /// A status code that must not be sent (§7.4).
    #[error("invalid status code {0}")]
    InvalidCloseCode(u16),
    /// A close reason that is not UTF-8 (§5.5.1).
    #[error("close reason: {0}")]
    InvalidCloseReason(InvalidUtf8),
    /// A text message that is not UTF-8 (§8.1).
    #[error("{0}")]
    InvalidUtf8(#[from] InvalidUtf8),
    /// A compressed message whose payload is not what a compressor makes (RFC 7692 §7.2.2).
    #[error("invalid compressed data")]
    InvalidDeflate,
    /// A frame's declared length is over [`Limits::max_frame_size`](crate::Limits::max_frame_size).
    #[error("frame with {size} bytes exceeds limit of {limit} bytes")]
    FrameTooBig {
        /// The declared length.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A message would be over [`Limits::max_message_size`](crate::Limits::max_message_size).
    #[error("message with {size} bytes exceeds limit of {limit} bytes")]
    MessageTooBig {
        /// What came before plus the declared length of this frame. Of a compressed message, what was
        /// decompressed when it became too much; or the length of its frames, if that alone is more
        /// than a message within the limit can need.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A message in more frames than [`Limits::max_fragments`](crate::Limits::max_fragments).
    #[error("message in {count} fragments exceeds limit of {limit}")]
    TooManyFragments {
        /// The fragment that was one too many.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// Nothing was heard from the peer for the time that [`Keepalive`](crate::Keepalive) allows.
    #[error("keepalive ping timeout")]
    KeepaliveTimeout,
}

impl ProtocolError {
    /// The status code that this earns (RFC 6455 §7.4.1). Nothing else in this crate maps errors to codes.
    #[must_use]
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::ReservedBits(_)
            | Self::ReservedOpcode(_)
            | Self::FragmentedControlFrame(_)
            | Self::ControlFrameTooLong(_)
            | Self::UnmaskedFrameFromClient
            | Self::MaskedFrameFromServer
            | Self::NonMinimalLength(_)
            | Self::LengthOverflow(_)
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::CloseFrameTooShort
            | Self::InvalidCloseCode(_) => CloseCode::PROTOCOL_ERROR,
            Self::InvalidCloseReason(_) | Self::InvalidUtf8(_) | Self::InvalidDeflate => {
                CloseCode::INVALID_DATA
            }
            Self::FrameTooBig { .. }
            | Self::MessageTooBig { .. }
            | Self::TooManyFragments { .. } => CloseCode::MESSAGE_TOO_BIG,
            Self::KeepaliveTimeout => CloseCode::INTERNAL_ERROR,
        }
    }
}

/// What *we* asked for that cannot be sent. The connection is as it was before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[doc(alias = "LocalProtocolError")]
#[doc(alias = "InvalidState")]
#[doc(alias = "ConcurrencyError")]
pub enum SendError {
    /// A Close frame was sent or received, or the connection failed: nothing may follow (RFC 6455 §5.5.1).
    #[error("the connection is closing or closed")]
    Closing,
    /// A control frame carries at most 125 bytes (§5.5).
    #[error("control frame payload of {0} bytes exceeds 125")]
    ControlTooLong(usize),
    /// A streamed message is under way; other data must wait for its end (§5.4).
    #[error("a fragmented message is being sent")]
    MessageUnderWay,
    /// A client must mask each frame with a fresh key, so it cannot send frames that are encoded
    /// already (§5.3).
    #[error("a client cannot send unmasked frames")]
    Unmasked,
    /// All chunks of a message are text, or all are binary.
    #[error("the fragmented message being sent is of the other type")]
    MixedTypes,
}
