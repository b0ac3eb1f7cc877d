//! [`Assembler`]: fragments → message (RFC 6455 §5.4), with the limits and the UTF-8 check over all of them.
//!
//! Compressed messages are decompressed on their way in (RFC 7692 §6.2). Not its business: headers,
//! and where a frame's bytes are.

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    AgreedDeflate, Chunk, FrameHeader, Limits, Message, Opcode, ProtocolError, Text, Utf8Validator,
    inflater::{Inflater, SMALL},
};

/// The data frames of at most one message.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// The message under way, if it is fragmented or handed out in chunks.
    under_way: Option<Box<UnderWay>>,
    /// Over all fragments of a text message.
    utf8: Utf8Validator,
    /// If permessage-deflate was negotiated.
    inflater: Option<Inflater>,
}

#[derive(Debug)]
struct UnderWay {
    opcode: Opcode,
    /// What came so far, decompressed; empty if it is handed out in chunks.
    data: BytesMut,
    fragments: u32,
    streaming: bool,
    /// Bytes of payload announced so far, if it is compressed.
    compressed: Option<u64>,
    /// Whether a chunk has been handed out.
    handed_out: bool,
}

impl Assembler {
    pub(crate) fn with_deflate(mut self, agreed: &AgreedDeflate) -> Self {
        self.inflater = Some(Inflater::new(agreed.receive));
        self
    }

    /// Judges a data frame by its header, before its payload has come and before memory is used.
    pub(crate) fn admit(
        &mut self,
        header: &FrameHeader,
        limits: &Limits,
        streaming: bool,
    ) -> Result<(), ProtocolError> {
        let first = header.opcode != Opcode::Continuation;
        let (before, fragments, streaming, compressed) = match &self.under_way {
            Some(_) if first => return Err(ProtocolError::ExpectedContinuation),
            Some(message) => {
                let before = message.compressed.unwrap_or(message.data.len() as u64);
                let fragments = message.fragments.saturating_add(1);
                (before, fragments, message.streaming, message.compressed.is_some())
            }
            None if !first => return Err(ProtocolError::UnexpectedContinuation),
            None => (0, 1, streaming, header.rsv1),
        };
        if header.length > limits.max_frame_size {
            let (size, limit) = (header.length, limits.max_frame_size);
            return Err(ProtocolError::FrameTooBig { size, limit });
        }
        // Each is below 2^63: a decoded length by §5.2, and what is in memory by its nature.
        let size = before.saturating_add(header.length);
        // The limit of a compressed message is applied as it is decompressed. But a payload that is
        // larger than it could have to be is there to keep us busy: a byte becomes at most nine bits, and
        // a fragment ends in some bytes of its own.
        let slack = match compressed {
            true => limits.max_message_size / 8 + 56 + 8 * u64::from(fragments),
            false => 0,
        };
        if size > limits.max_message_size.saturating_add(slack) && !streaming {
            return Err(ProtocolError::MessageTooBig { size, limit: limits.max_message_size });
        }
        if fragments > limits.max_fragments && !streaming {
            let limit = limits.max_fragments;
            return Err(ProtocolError::TooManyFragments { count: fragments, limit });
        }
        match &mut self.under_way {
            Some(message) => {
                message.fragments = fragments;
                message.compressed = compressed.then_some(size);
            }
            None if header.fin && !streaming && (!compressed || is_small(header)) => {}
            None => {
                self.under_way = Some(Box::new(UnderWay {
                    opcode: header.opcode,
                    data: BytesMut::new(),
                    fragments,
                    streaming,
                    compressed: compressed.then_some(size),
                    handed_out: false,
                }));
            }
        }
        Ok(())
    }

    /// Collects a message that was to be handed out in chunks, if none has been and `length`, that of
    /// its first frame, is within the limit.
    pub(crate) fn keep_whole(&mut self, length: u64, limits: &Limits) {
        if let Some(message) = &mut self.under_way
            && !message.handed_out
            && (length <= limits.max_message_size || message.compressed.is_some())
        {
            message.streaming = false;
        }
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether the message under way is handed out in chunks.
    pub(crate) fn is_streaming(&self) -> bool {
        self.under_way.as_ref().is_some_and(|message| message.streaming)
    }

    /// Whether the message under way is compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.under_way.as_ref().is_some_and(|message| message.compressed.is_some())
    }

    /// Decompresses and validates a message of one frame that [`is_small`].
    pub(crate) fn inflate_whole(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        limits: &Limits,
    ) -> Result<Message, ProtocolError> {
        // RSV1 is refused before it comes here, if nothing was agreed on.
        let Some(inflater) = &mut self.inflater else { return Err(ProtocolError::InvalidDeflate) };
        let limit = limits.max_message_size;
        inflater.inflate_whole(payload, limit, |data, inflated| {
            if opcode == Opcode::Text {
                // What is too big has a byte that does not count.
                let end = usize::try_from(limit).map_or(data.len(), |limit| limit.min(data.len()));
                self.utf8.feed(&data[..end])?;
            }
            inflated?;
            self.utf8.finish()?;
            Ok(Message::from_checked(opcode, Bytes::copy_from_slice(data)))
        })
    }

    /// Decompresses and validates payload bytes as they come; answers how many of them it took. In
    /// a message that is handed out in chunks, that is as many as make a chunk.
    pub(crate) fn inflate(
        &mut self,
        payload: &[u8],
        limits: &Limits,
    ) -> Result<usize, ProtocolError> {
        let (Some(message), Some(inflater)) = (&mut self.under_way, &mut self.inflater) else {
            return Ok(payload.len());
        };
        let mut taken = 0;
        let before = message.data.len();
        if message.streaming {
            // A byte may become a thousand, so few are taken at a time.
            for piece in payload.chunks(STREAM_STEP) {
                match inflater.feed(piece, &mut message.data, u64::MAX) {
                    Ok(()) => {}
                    // What came before the failure is handed out first; it comes again after that.
                    Err(_) if !message.data.is_empty() => break,
                    Err(error) => return Err(error),
                }
                taken += piece.len();
                if message.data.len() >= STREAM_CHUNK {
                    break;
                }
            }
        } else {
            let limit = limits.max_message_size;
            let fed = inflater.feed(payload, &mut message.data, limit);
            taken = payload.len();
            if message.opcode == Opcode::Text {
                // The first violation counts, in whatever pieces the payload came.
                let end = usize::try_from(limit).map_or(usize::MAX, |limit| limit.max(before));
                self.utf8.feed(&message.data[before..end.min(message.data.len())])?;
            }
            fed?;
        }
        Ok(taken)
    }

    /// Ends a compressed message whose payload has come whole.
    pub(crate) fn finish_compressed(&mut self) -> Result<Option<Message>, ProtocolError> {
        if let Some(inflater) = &mut self.inflater {
            inflater.finish()?;
        }
        let Some(message) = self.under_way.take() else { return Ok(None) };
        if message.opcode == Opcode::Text {
            self.utf8.finish()?;
        }
        Ok(Some(Message::from_checked(message.opcode, message.data.freeze())))
    }

    /// Hands out what a compressed message has become so far; `ends` tells whether it ends there.
    pub(crate) fn stream_inflated(&mut self, ends: bool) -> Result<Chunk, ProtocolError> {
        if ends && let Some(inflater) = &mut self.inflater {
            inflater.finish()?;
        }
        let data = self.under_way.as_mut().map(|message| message.data.split());
        self.chunk(data.unwrap_or_default().freeze(), ends)
    }

    /// Whether a part of a compressed message waits to be handed out.
    pub(crate) fn has_inflated(&self) -> bool {
        self.under_way.as_ref().is_some_and(|message| !message.data.is_empty())
    }

    /// Validates payload bytes as they come, while they are hot in the cache; fails at the first
    /// byte that cannot be right, long before the frame is whole.
    pub(crate) fn check(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), ProtocolError> {
        if self.is_text(opcode) {
            self.utf8.feed(payload)?;
        }
        Ok(())
    }

    /// Takes the checked payload of a whole frame off `input`; answers with the message that it ends.
    pub(crate) fn finish_frame(
        &mut self,
        header: &FrameHeader,
        input: &mut BytesMut,
    ) -> Result<Option<Message>, ProtocolError> {
        let len = header.length as usize;
        if let Some(message) = &mut self.under_way {
            if message.data.is_empty() && len > COPY_UP_TO {
                message.data = input.split_to(len);
            } else {
                message.data.extend_from_slice(&input[..len]);
                input.advance(len);
            }
        }
        if !header.fin {
            return Ok(None);
        }
        let (opcode, payload) = match self.under_way.take() {
            Some(message) => (message.opcode, message.data.freeze()),
            None => (header.opcode, take(input, len)),
        };
        if opcode == Opcode::Binary {
            return Ok(Some(Message::Binary(payload)));
        }
        self.utf8.finish()?;
        Ok(Some(Message::Text(Text::from_validated(payload))))
    }

    /// Checks and takes `len` payload bytes of the streamed message off `input`. `ends` tells
    /// whether the message ends with them.
    pub(crate) fn stream(
        &mut self,
        input: &mut BytesMut,
        len: usize,
        ends: bool,
    ) -> Result<Chunk, ProtocolError> {
        self.chunk(take(input, len), ends)
    }

    fn chunk(&mut self, piece: Bytes, ends: bool) -> Result<Chunk, ProtocolError> {
        if let Some(message) = &mut self.under_way {
            message.handed_out = true;
        }
        if !self.is_text(Opcode::Continuation) {
            if ends {
                self.under_way = None;
            }
            return Ok(Chunk { data: Message::Binary(piece), last: ends });
        }
        // A code point that is cut by the edge of this piece waits for the next.
        let before = Bytes::copy_from_slice(self.utf8.pending());
        self.utf8.feed(&piece)?;
        let held_back = self.utf8.pending().len();
        if ends {
            self.utf8.finish()?;
            self.under_way = None;
        }
        let text = if before.is_empty() {
            piece.slice(..piece.len() - held_back)
        } else {
            let mut joined = BytesMut::from(&before[..]);
            joined.extend_from_slice(&piece);
            joined.truncate(joined.len() - held_back);
            joined.freeze()
        };
        Ok(Chunk { data: Message::Text(Text::from_validated(text)), last: ends })
    }

    fn is_text(&self, opcode: Opcode) -> bool {
        let opcode = match (opcode, &self.under_way) {
            (Opcode::Continuation, Some(message)) => message.opcode,
            (opcode, _) => opcode,
        };
        opcode == Opcode::Text
    }
}

/// Whether this is a compressed message that is decompressed at once, when it is there whole.
pub(crate) fn is_small(header: &FrameHeader) -> bool {
    header.rsv1 && header.fin && header.length <= SMALL as u64
}

/// Takes `len` bytes off `input`: small ones by copy, so that five bytes do not keep a whole read
/// buffer alive, larger ones by reference.
pub(crate) fn take(input: &mut BytesMut, len: usize) -> Bytes {
    if len > COPY_UP_TO {
        return input.split_to(len).freeze();
    }
    let payload = Bytes::copy_from_slice(&input[..len]);
    input.advance(len);
    payload
}

/// A message that is kept pins the 64 KiB buffer it was read into, so it must be no less than a
/// sixteenth of it; below, the copy costs little more than the reference counts.
const COPY_UP_TO: usize = 4 << 10;

/// A chunk of a compressed message has about this size, and at most a thousand times
/// [`STREAM_STEP`] more.
const STREAM_CHUNK: usize = 16 << 10;
const STREAM_STEP: usize = 1 << 10;
