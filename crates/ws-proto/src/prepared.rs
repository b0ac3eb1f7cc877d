//! [`PreparedMessage`]: framed once, sent to many.
//!
//! Not its business: to whom. One variant exists so far, the plain one; a compressed one without
//! context takeover (RFC 7692) goes beside it.

use bytes::{Bytes, BytesMut};

use crate::{FrameHeader, Message, Opcode};

/// A message that is framed already, for sending to many clients.
///
/// Framing is done once, however many receivers there are. A client that sends one must mask it
/// afresh each time (RFC 6455 §5.3), so there it saves nothing.
///
/// ```
/// let news = ws_proto::PreparedMessage::new("hello, everybody");
/// assert_eq!(&news.as_frame()[..2], [0x81, 16]);
/// ```
#[derive(Clone, Debug)]
pub struct PreparedMessage {
    opcode: Opcode,
    /// Header and payload, contiguous, unmasked.
    frame: Bytes,
    /// `header_len <= frame.len()`
    header_len: usize,
}

impl PreparedMessage {
    /// Frames the message. Copies the payload once.
    #[must_use]
    pub fn new(message: impl Into<Message>) -> Self {
        let message = message.into();
        let header = FrameHeader {
            fin: true,
            rsv1: false,
            opcode: message.opcode(),
            mask: None,
            length: message.len() as u64,
        }
        .encode();
        let mut frame = BytesMut::with_capacity(header.len() + message.len());
        frame.extend_from_slice(&header);
        frame.extend_from_slice(message.as_bytes());
        Self { opcode: message.opcode(), frame: frame.freeze(), header_len: header.len() }
    }

    /// The message again, sharing the payload.
    #[must_use]
    pub fn message(&self) -> Message {
        Message::from_checked(self.opcode, self.frame.slice(self.header_len..))
    }

    /// The bytes that a server puts on the wire.
    #[must_use]
    pub fn as_frame(&self) -> &Bytes {
        &self.frame
    }
}

impl<M: Into<Message>> From<M> for PreparedMessage {
    fn from(message: M) -> Self {
        Self::new(message)
    }
}
