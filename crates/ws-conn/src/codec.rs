//! [`FrameCodec`]: single frames for `tokio_util::codec::Framed` (RFC 6455 §5.2).
//!
//! For those who compose their own stack. Not its business: messages, pongs, closing and UTF-8;
//! whoever uses this has taken them over. [`WebSocket`](crate::WebSocket) does them all.

use std::{fmt, io};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::proto::{FrameHeader, MaskingKeys, Opcode, ProtocolError, Role, apply_mask};

/// A frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether this is the last fragment of its message.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The payload.
    pub payload: Bytes,
}

/// Frames in, frames out. Each frame is checked by itself; their order is not.
pub struct FrameCodec {
    /// A client's source of masking keys; a server has none.
    keys: Option<Box<dyn MaskingKeys>>,
    max_frame_size: u64,
    /// The header of a frame whose payload has not come whole.
    header: Option<FrameHeader>,
}

impl FrameCodec {
    /// A server's codec: frames that come are masked, those that go are not.
    #[must_use]
    pub fn server() -> Self {
        Self { keys: None, max_frame_size: DEFAULT_MAX_FRAME_SIZE, header: None }
    }

    /// A client's codec, with its source of masking keys.
    #[must_use]
    pub fn client(keys: impl MaskingKeys + 'static) -> Self {
        Self { keys: Some(Box::new(keys)), ..Self::server() }
    }

    /// The largest frame accepted, in bytes of payload. Default: 1 MiB.
    #[must_use]
    pub fn max_frame_size(mut self, bytes: u64) -> Self {
        self.max_frame_size = bytes;
        self
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, input: &mut BytesMut) -> io::Result<Option<Frame>> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let receiver = if self.keys.is_some() { Role::Client } else { Role::Server };
                let decoded = FrameHeader::decode(input, receiver, false).map_err(invalid)?;
                let Some((header, size)) = decoded else { return Ok(None) };
                if header.length > self.max_frame_size {
                    let (size, limit) = (header.length, self.max_frame_size);
                    return Err(invalid(ProtocolError::FrameTooBig { size, limit }));
                }
                input.advance(size);
                *self.header.insert(header)
            }
        };
        if (input.len() as u64) < header.length {
            return Ok(None);
        }
        self.header = None;
        let mut payload = input.split_to(header.length as usize);
        if let Some(key) = header.mask {
            apply_mask(&mut payload, key, 0);
        }
        Ok(Some(Frame { fin: header.fin, opcode: header.opcode, payload: payload.freeze() }))
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame, output: &mut BytesMut) -> io::Result<()> {
        let length = frame.payload.len() as u64;
        if frame.opcode.is_control() && (length > 125 || !frame.fin) {
            return Err(invalid(ProtocolError::ControlFrameTooLong(frame.opcode)));
        }
        let mask = self.keys.as_mut().map(|keys| keys.next_key());
        let header =
            FrameHeader { fin: frame.fin, rsv1: false, opcode: frame.opcode, mask, length };
        output.put_slice(&header.encode());
        let body = output.len();
        output.put_slice(&frame.payload);
        if let Some(key) = mask {
            apply_mask(&mut output[body..], key, 0);
        }
        Ok(())
    }
}

impl fmt::Debug for FrameCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameCodec")
            .field("max_frame_size", &self.max_frame_size)
            .finish_non_exhaustive()
    }
}

fn invalid(error: ProtocolError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// As the message limit of [`Config`](crate::Config).
const DEFAULT_MAX_FRAME_SIZE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ChaChaKeys;

    #[test]
    fn client_and_server_understand_each_other_one_byte_at_a_time() {
        let mut client = FrameCodec::client(ChaChaKeys::from_seed([7; 32]));
        let mut server = FrameCodec::server();
        for (frame, masked) in [
            (Frame { fin: false, opcode: Opcode::Text, payload: "Hel".into() }, true),
            (Frame { fin: true, opcode: Opcode::Ping, payload: Bytes::new() }, true),
            (
                Frame { fin: true, opcode: Opcode::Continuation, payload: vec![1; 70_000].into() },
                false,
            ),
        ] {
            let (from, to) =
                if masked { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let mut wire = BytesMut::new();
            from.encode(frame.clone(), &mut wire).unwrap();
            let mut input = BytesMut::new();
            let mut decoded = Vec::new();
            for byte in wire {
                input.put_u8(byte);
                decoded.extend(to.decode(&mut input).unwrap());
            }
            assert_eq!(decoded, [frame]);
        }
    }
}
