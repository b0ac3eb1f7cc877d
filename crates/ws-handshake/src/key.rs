//! `Sec-WebSocket-Key` and `Sec-WebSocket-Accept` (RFC 6455 §1.3, §4.2.2).
//!
//! Not its business: randomness; the nonce is an argument.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// The `Sec-WebSocket-Accept` value that answers a key: proof that the server speaks WebSocket.
///
/// ```
/// // The example of RFC 6455 §1.3.
/// assert_eq!(ws_handshake::accept_token(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
#[must_use]
#[doc(alias = "generate_accept_token")]
#[doc(alias = "accept_key")]
pub fn accept_token(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// Whether a key is base64 of 16 bytes, as §4.2.1 demands.
#[must_use]
pub fn is_valid_key(key: &[u8]) -> bool {
    let mut nonce = [0; 18];
    key.len() == 24 && matches!(STANDARD.decode_slice(key, &mut nonce), Ok(16))
}

/// The key for a nonce.
pub(crate) fn encode_key(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

/// §1.3: a GUID that endpoints which do not speak WebSocket are unlikely to use.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_base64_of_sixteen_bytes() {
        assert!(is_valid_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_valid_key(encode_key([0xFF; 16]).as_bytes()));
        for bad in [
            &b""[..],
            b"x",
            b"dGhlIHNhbXBsZSBub25jZQ",       // unpadded
            b"dGhlIHNhbXBsZSBub25jZTE=",     // 17 bytes
            b"dGhlIHNhbXBsZSBub25j",         // 15 bytes
            b"dGhlIHNhbXBsZSBub25jZR==",     // bits behind the end
            b"dGhlIHNhbXBsZSBub25jZ!==",     // outside the alphabet
            b"dGhlIHNhbXBsZSBub25jZQ==AAAA", // too long
        ] {
            assert!(!is_valid_key(bad), "{}", String::from_utf8_lossy(bad));
        }
    }
}
