//! [`Text`]: shared bytes that are valid UTF-8 by construction.
//!
//! Not its business: finding out whether bytes are UTF-8, which is `utf8.rs`. The one `unsafe` of this crate is here: reading a text
//! as `&str` must not validate it again (measured: 0.4 µs per 16 KiB and look).

use std::{fmt, ops::Deref};

use bytes::{Bytes, BytesMut};

use crate::InvalidUtf8;

/// A cheaply clonable UTF-8 string; what a text message carries (RFC 6455 §8.1).
///
/// ```
/// use ws_proto::Text;
/// let text = Text::from("Grüße");
/// assert_eq!(text.len(), 7);
/// assert!(text.starts_with("Gr"));
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Text {
    bytes: Bytes,
    utf8: IsUtf8,
}

/// The proof, as a value that takes up room: a [`Message`](crate::Message), and every `Option` and
/// `Result` around one, finds its tag here, behind the bytes. All of them have one layout, so that
/// wrapping and unwrapping a message leaves its words where they are.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
enum IsUtf8 {
    #[default]
    Proven,
}

impl Text {
    /// An empty text.
    #[must_use]
    pub const fn new() -> Self {
        Self::from_valid(Bytes::new())
    }

    /// A text that lives as long as the program; nothing is copied.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self::from_valid(Bytes::from_static(text.as_bytes()))
    }

    /// The text as a string slice.
    #[must_use]
    pub fn as_str(&self) -> &str {
        debug_assert!(std::str::from_utf8(&self.bytes).is_ok());
        #[expect(
            unsafe_code,
            reason = "validating on each look costs more than the rest of a receive"
        )]
        // SAFETY: every constructor of this file takes a `str` or validated bytes, `Bytes` are
        // immutable, and the field is private.
        unsafe {
            std::str::from_utf8_unchecked(&self.bytes)
        }
    }

    /// The text's bytes, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    const fn from_valid(bytes: Bytes) -> Self {
        Self { bytes, utf8: IsUtf8::Proven }
    }

    /// Bytes that `utf8.rs` has validated, possibly piece by piece.
    pub(crate) fn from_validated(bytes: Bytes) -> Self {
        debug_assert!(std::str::from_utf8(&bytes).is_ok());
        Self::from_valid(bytes)
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl std::hash::Hash for Text {
    /// As a `str`, which [`Borrow`](std::borrow::Borrow) demands.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl std::borrow::Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::from_valid(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from_valid(Bytes::from(text))
    }
}

impl TryFrom<Bytes> for Text {
    type Error = InvalidUtf8;

    fn try_from(bytes: Bytes) -> Result<Self, InvalidUtf8> {
        crate::utf8::validate(&bytes)?;
        Ok(Self::from_valid(bytes))
    }
}

impl TryFrom<BytesMut> for Text {
    type Error = InvalidUtf8;

    fn try_from(bytes: BytesMut) -> Result<Self, InvalidUtf8> {
        bytes.freeze().try_into()
    }
}

impl From<Text> for Bytes {
    fn from(text: Text) -> Self {
        text.bytes
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_its_safe_twin() {
        for sample in ["", "a", "Grüße", "κόσμε", "\u{10ffff}\u{0}"] {
            let text = Text::try_from(Bytes::copy_from_slice(sample.as_bytes())).unwrap();
            assert_eq!(text.as_str(), std::str::from_utf8(text.as_ref()).unwrap());
            assert_eq!(text, sample);
        }
    }

    #[test]
    fn refuses_bytes_that_are_not_utf8() {
        let error = Text::try_from(Bytes::from_static(b"ab\xff")).unwrap_err();
        assert_eq!(error.to_string(), "invalid UTF-8 at position 2");
    }
}
