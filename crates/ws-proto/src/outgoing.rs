//! [`Outgoing`]: a message with the sender's wish whether to compress it (RFC 7692 §6).
//!
//! Not its business: whether compression was negotiated; without it, wishes have no effect.

use crate::Message;

/// A message on its way out.
///
/// Whatever takes one takes a [`Message`], or what becomes one, too.
///
/// ```
/// use ws_proto::{Compression, Message, Outgoing};
/// let secret = Message::text("token=…").uncompressed();
/// assert_eq!(secret.compression, Compression::Never);
/// assert_eq!(Outgoing::from("hello").compression, Compression::Auto);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What to send.
    pub message: Message,
    /// Whether to compress it.
    pub compression: Compression,
}

/// Whether to compress a message, where compression was negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// If it is at least as long as [`Deflate::threshold`](crate::Deflate::threshold).
    #[default]
    Auto,
    /// However short it is.
    Always,
    /// Not at all: what is compressed already, and secrets next to what an attacker may choose
    /// (the length would tell how well they match).
    Never,
}

impl Message {
    /// This message, never compressed: for what is compressed already, and for secrets beside what
    /// an attacker may choose.
    #[must_use]
    pub fn uncompressed(self) -> Outgoing {
        Outgoing { message: self, compression: Compression::Never }
    }

    /// This message, compressed however short it is.
    #[must_use]
    pub fn compressed(self) -> Outgoing {
        Outgoing { message: self, compression: Compression::Always }
    }
}

impl<M: Into<Message>> From<M> for Outgoing {
    #[inline]
    fn from(message: M) -> Self {
        Self { message: message.into(), compression: Compression::Auto }
    }
}
