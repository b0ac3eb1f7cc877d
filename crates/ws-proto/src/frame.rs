//! [`FrameHeader`] ↔ bytes: every rule of RFC 6455 §5.2 about a single header, and no other place.
//!
//! Not its business: payloads, and the order in which frames may come.

use std::fmt;

use crate::ProtocolError;

/// Which endpoint we are: a client masks its frames (RFC 6455 §5.3), a server closes the TCP
/// connection first (§7.1.1). The rest of the protocol is the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The endpoint that opened the connection.
    Client,
    /// The endpoint that accepted it.
    Server,
}

/// What a frame is (RFC 6455 §11.8). Reserved opcodes have no value here: they never get this far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// A Close frame (§5.5.1).
    Close = 0x8,
    /// A Ping frame (§5.5.2).
    Ping = 0x9,
    /// A Pong frame (§5.5.3).
    Pong = 0xA,
}

impl Opcode {
    fn new(bits: u8) -> Result<Self, ProtocolError> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return Err(ProtocolError::ReservedOpcode(bits)),
        })
    }

    /// Whether this is a Close, Ping or Pong (§5.5).
    #[must_use]
    pub fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Continuation => "continuation",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
        })
    }
}

/// The base framing header (RFC 6455 §5.2). [`decode`](Self::decode) makes only legal ones.
///
/// ```
/// use ws_proto::{FrameHeader, Opcode, Role};
/// let (header, size) = FrameHeader::decode(b"\x81\x05Hello", Role::Client, false)?.unwrap();
/// assert_eq!((header.opcode, header.fin, header.length, size), (Opcode::Text, true, 5, 2));
/// # Ok::<(), ws_proto::ProtocolError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "Frame")]
pub struct FrameHeader {
    /// Whether this is the last fragment of its message.
    pub fin: bool,
    /// RSV1: with permessage-deflate, "this message is compressed" (RFC 7692 §6).
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key, in frames from a client.
    pub mask: Option<[u8; 4]>,
    /// Payload length in bytes.
    pub length: u64,
}

impl FrameHeader {
    /// Reads the header at the front of `input`, which `receiver` got from its peer. `Ok(None)`
    /// means that bytes are missing; otherwise the header and its size in bytes.
    ///
    /// RSV1 is legal only when an extension defines it (`rsv1_defined`), and then only on the first
    /// frame of a message.
    ///
    /// # Errors
    /// The first rule that the header breaks, as soon as its byte is there.
    #[inline]
    pub fn decode(
        input: &[u8],
        receiver: Role,
        rsv1_defined: bool,
    ) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some(&first) = input.first() else { return Ok(None) };
        let opcode = Opcode::new(first & 0x0F)?;
        let fin = first & 0x80 != 0;
        let rsv1 = first & 0x40 != 0;
        let rsv1_legal = rsv1_defined && matches!(opcode, Opcode::Text | Opcode::Binary);
        // §5.2: reserved bits "MUST be 0 unless an extension is negotiated that defines meanings".
        if first & 0x30 != 0 || (rsv1 && !rsv1_legal) {
            return Err(ProtocolError::ReservedBits((first >> 4) & 0x7));
        }
        // §5.5: control frames MUST NOT be fragmented.
        if opcode.is_control() && !fin {
            return Err(ProtocolError::FragmentedControlFrame(opcode));
        }

        let Some(&second) = input.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        // §5.1: both directions are fixed, and breaking either closes the connection.
        match receiver {
            Role::Server if !masked => return Err(ProtocolError::UnmaskedFrameFromClient),
            Role::Client if masked => return Err(ProtocolError::MaskedFrameFromServer),
            Role::Server | Role::Client => {}
        }
        let short = second & 0x7F;
        if opcode.is_control() && short > 125 {
            return Err(ProtocolError::ControlFrameTooLong(opcode));
        }
        let (length, length_end) = match short {
            126 => {
                let Some(bytes) = input.get(2..4).and_then(|b| b.try_into().ok()) else {
                    return Ok(None);
                };
                let length = u64::from(u16::from_be_bytes(bytes));
                // §5.2: "the minimal number of bytes MUST be used".
                if length < 126 {
                    return Err(ProtocolError::NonMinimalLength(length));
                }
                (length, 4)
            }
            127 => {
                let Some(bytes) = input.get(2..10).and_then(|b| b.try_into().ok()) else {
                    return Ok(None);
                };
                let length = u64::from_be_bytes(bytes);
                if length >> 63 != 0 {
                    return Err(ProtocolError::LengthOverflow(length));
                }
                if length <= 0xFFFF {
                    return Err(ProtocolError::NonMinimalLength(length));
                }
                (length, 10)
            }
            short => (u64::from(short), 2),
        };
        if !masked {
            return Ok(Some((Self { fin, rsv1, opcode, mask: None, length }, length_end)));
        }
        let Some(key) = input.get(length_end..length_end + 4).and_then(|b| b.try_into().ok())
        else {
            return Ok(None);
        };
        Ok(Some((Self { fin, rsv1, opcode, mask: Some(key), length }, length_end + 4)))
    }

    /// The commonest header by far at a glance: that of a client's short message in one frame, which
    /// [`decode`](Self::decode) would not object to. Answers whether it is text, the key and the length.
    #[inline]
    pub(crate) fn decode_short(input: &[u8], receiver: Role) -> Option<(bool, [u8; 4], usize)> {
        match input.first_chunk() {
            Some(&[first @ (0x81 | 0x82), second @ 0x80..=0xFD, k0, k1, k2, k3])
                if receiver == Role::Server =>
            {
                Some((first == 0x81, [k0, k1, k2, k3], usize::from(second & 0x7F)))
            }
            _ => None,
        }
    }

    /// The header of a message in one frame, uncompressed and not masked.
    #[inline]
    #[must_use]
    pub fn whole(opcode: Opcode, len: usize) -> Self {
        Self { fin: true, rsv1: false, opcode, mask: None, length: len as u64 }
    }

    /// The header's bytes, with the length in its shortest form.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> EncodedHeader {
        let mut bytes = [0; MAX_HEADER];
        bytes[0] = u8::from(self.fin) << 7 | u8::from(self.rsv1) << 6 | self.opcode as u8;
        let mask_bit = u8::from(self.mask.is_some()) << 7;
        let mut len = match self.length {
            0..=125 => {
                bytes[1] = mask_bit | self.length as u8;
                2
            }
            126..=0xFFFF => {
                bytes[1] = mask_bit | 126;
                bytes[2..4].copy_from_slice(&(self.length as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = mask_bit | 127;
                bytes[2..10].copy_from_slice(&self.length.to_be_bytes());
                10
            }
        };
        if let Some(key) = self.mask {
            bytes[len..len + 4].copy_from_slice(&key);
            len += 4;
        }
        EncodedHeader { bytes, len: len as u8 }
    }
}

/// A header on the wire: 2 to 14 bytes. Dereferences to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedHeader {
    bytes: [u8; MAX_HEADER],
    /// `2 <= len <= 14`
    len: u8,
}

impl EncodedHeader {
    /// Appends the header. A copy of constant size is faster than one of two to fourteen bytes.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        let end = out.len() + usize::from(self.len);
        out.extend_from_slice(&self.bytes);
        out.truncate(end);
    }
}

impl std::ops::Deref for EncodedHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Two bytes, eight of extended length, four of masking key (§5.2).
pub(crate) const MAX_HEADER: usize = 14;

/// Two bytes and the masking key, with a length up to 125.
pub(crate) const SHORT_HEADER: usize = 6;

/// The payload limit of control frames (§5.5).
pub(crate) const MAX_CONTROL_PAYLOAD: usize = 125;

/// The length of the whole frame whose header, one that we encoded, begins `bytes`.
pub(crate) fn frame_length(bytes: &[u8]) -> u64 {
    let mask = if bytes[1] & 0x80 != 0 { 4 } else { 0 };
    mask + match bytes[1] & 0x7F {
        126 => 4 + u64::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        127 => {
            let mut length = [0; 8];
            length.copy_from_slice(&bytes[2..10]);
            10 + u64::from_be_bytes(length)
        }
        short => 2 + u64::from(short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_what_it_decodes() {
        let lengths = [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, u64::MAX >> 1];
        for length in lengths {
            for (mask, receiver) in [(None, Role::Client), (Some([1, 2, 3, 4]), Role::Server)] {
                let header =
                    FrameHeader { fin: true, rsv1: false, opcode: Opcode::Binary, mask, length };
                let bytes = header.encode();
                assert_eq!(frame_length(&bytes), bytes.len() as u64 + length);
                assert_eq!(
                    FrameHeader::decode(&bytes, receiver, false),
                    Ok(Some((header, bytes.len())))
                );
                // One byte at a time: no answer before the last byte of the header.
                for cut in 0..bytes.len() {
                    assert_eq!(FrameHeader::decode(&bytes[..cut], receiver, false), Ok(None));
                }
            }
        }
    }

    #[test]
    fn rsv1_is_legal_only_on_a_first_data_frame_and_only_when_defined() {
        let decode = |first, defined| FrameHeader::decode(&[first, 0], Role::Client, defined);
        assert!(decode(0xC1, true).unwrap().unwrap().0.rsv1);
        assert!(decode(0xC2, true).unwrap().unwrap().0.rsv1);
        for first in [0xC0, 0xC8, 0xC9, 0xCA] {
            assert_eq!(decode(first, true), Err(ProtocolError::ReservedBits(0b100)));
        }
        assert_eq!(decode(0xC1, false), Err(ProtocolError::ReservedBits(0b100)));
        assert_eq!(decode(0xB1, true), Err(ProtocolError::ReservedBits(0b011)));
    }
}
