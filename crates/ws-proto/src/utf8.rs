//! Incremental UTF-8 validation that fails at the first byte that cannot be right (RFC 6455 §8.1).
//!
//! Not its business: which close code that earns.

/// Where a text stopped being UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid UTF-8 at position {position}")]
pub struct InvalidUtf8 {
    /// Offset of the offending sequence in the message, in bytes.
    pub position: u64,
}

/// Validates a text that comes in pieces, cut anywhere.
///
/// ```
/// let mut utf8 = ws_proto::Utf8Validator::default();
/// utf8.feed(b"caf\xc3")?; // half of an é
/// utf8.feed(b"\xa9")?;
/// utf8.finish()?;
/// # Ok::<(), ws_proto::InvalidUtf8>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Utf8Validator {
    /// The beginning of a code point whose end has not come yet: `pending[..pending_len]`.
    pending: [u8; 4],
    /// `0 <= pending_len <= 3`
    pending_len: u8,
    /// Bytes fed so far, the pending ones included.
    position: u64,
}

impl Utf8Validator {
    /// Validates the next piece.
    pub fn feed(&mut self, mut data: &[u8]) -> Result<(), InvalidUtf8> {
        while self.pending_len > 0 {
            let Some((&byte, rest)) = data.split_first() else { return Ok(()) };
            data = rest;
            let len = usize::from(self.pending_len);
            self.pending[len] = byte;
            self.position += 1;
            match std::str::from_utf8(&self.pending[..=len]) {
                Ok(_) => self.pending_len = 0,
                Err(error) if error.error_len().is_none() => self.pending_len += 1,
                Err(_) => return Err(InvalidUtf8 { position: self.position - 1 - len as u64 }),
            }
        }
        // A code point that the end of this piece cuts is set aside first: the rest is either valid as
        // a whole, or worth a slow look.
        let (body, tail) = data.split_at(data.len() - cut_off(data));
        validate(body).map_err(|error| InvalidUtf8 { position: self.position + error.position })?;
        self.position += body.len() as u64;
        if let Err(error) = std::str::from_utf8(tail)
            && error.error_len().is_some()
        {
            return Err(InvalidUtf8 { position: self.position });
        }
        self.pending[..tail.len()].copy_from_slice(tail);
        self.pending_len = tail.len() as u8;
        self.position += tail.len() as u64;
        Ok(())
    }

    /// Ends the text: nothing may be pending.
    pub fn finish(&mut self) -> Result<(), InvalidUtf8> {
        let position = self.position - u64::from(self.pending_len);
        let complete = self.pending_len == 0;
        *self = Self::default();
        if complete { Ok(()) } else { Err(InvalidUtf8 { position }) }
    }

    /// The bytes at the end of what was fed that do not make a code point yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.pending[..usize::from(self.pending_len)]
    }
}

/// How many bytes at the end of `data` look like the beginning of a code point that goes on: 0 to 3.
fn cut_off(data: &[u8]) -> usize {
    for (before_end, byte) in data.iter().rev().take(3).enumerate() {
        let length = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
            _ => 1,
        };
        return if length > before_end + 1 { before_end + 1 } else { 0 };
    }
    0
}

/// Validates a text that is whole.
pub(crate) fn validate(data: &[u8]) -> Result<(), InvalidUtf8> {
    if simdutf8::basic::from_utf8(data).is_ok() {
        return Ok(());
    }
    match std::str::from_utf8(data) {
        Ok(_) => Ok(()),
        Err(error) => Err(InvalidUtf8 { position: error.valid_up_to() as u64 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_pieces(data: &[u8], cut: usize) -> Result<(), InvalidUtf8> {
        let mut utf8 = Utf8Validator::default();
        utf8.feed(&data[..cut])?;
        utf8.feed(&data[cut..])?;
        utf8.finish()
    }

    #[test]
    fn code_points_may_be_cut_anywhere() {
        let text = "a\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}z";
        for cut in 0..=text.len() {
            in_pieces(text.as_bytes(), cut).unwrap();
        }
        let mut utf8 = Utf8Validator::default();
        text.bytes().try_for_each(|byte| utf8.feed(&[byte])).unwrap();
        utf8.finish().unwrap();
    }

    #[test]
    fn fails_at_the_first_byte_that_cannot_be_right() {
        // Surrogate, overlong, beyond U+10FFFF: each is known to be wrong at its second byte.
        for bad in [&b"\xed\xa0"[..], b"\xc0", b"\xe0\x80", b"\xf4\x90", b"\xff", b"\x80", b"\xf5"]
        {
            let mut utf8 = Utf8Validator::default();
            utf8.feed(b"ok").unwrap();
            let result = bad.iter().try_for_each(|byte| utf8.feed(&[*byte]));
            assert_eq!(result, Err(InvalidUtf8 { position: 2 }), "{bad:02x?}");
        }
    }

    #[test]
    fn an_unfinished_code_point_fails_at_the_end() {
        let mut utf8 = Utf8Validator::default();
        utf8.feed(b"ab\xc3").unwrap();
        utf8.feed(b"").unwrap();
        assert_eq!(utf8.finish(), Err(InvalidUtf8 { position: 2 }));
        // Nothing of it leaks into the next text.
        utf8.feed(b"a").unwrap();
        utf8.finish().unwrap();
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(data: Vec<u8>, cut: prop::sample::Index) {
            let cut = cut.index(data.len() + 1);
            let expected = std::str::from_utf8(&data).map_err(|e| e.valid_up_to() as u64).err();
            prop_assert_eq!(in_pieces(&data, cut).err().map(|e| e.position), expected);
        }
    }
}
