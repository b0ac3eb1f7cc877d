//! [`Negotiated`]: what both sides agreed on (RFC 6455 §4.2.2).
//!
//! Not its business: how.

use crate::proto::{AgreedDeflate, Text};

/// The outcome of an opening handshake.
///
/// Bytes that came behind the head are not here: they stayed in the caller's buffer, where the first
/// frames belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Negotiated {
    /// The subprotocol in use, if any.
    pub subprotocol: Option<Text>,
    /// How messages are compressed (RFC 7692), if at all.
    pub deflate: Option<AgreedDeflate>,
}
