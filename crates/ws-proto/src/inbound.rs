//! [`Inbound`]: the peer's bytes → messages and control frames (RFC 6455 §5, §6.2).
//!
//! It takes whole frames off the front of a buffer that the caller owns, unmasks in place as bytes
//! arrive, and keeps no copy. Not its business: what must be answered, which is `outbound.rs`.

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    AgreedDeflate, CloseFrame, FrameHeader, Incoming, Limits, Message, Opcode, ProtocolError, Role,
    apply_mask,
    assemble::{Assembler, is_small, take},
    frame::SHORT_HEADER,
    utf8::validate,
};

/// The receiving half of a connection.
///
/// Everything it does is resumable at any byte: progress lives here and in the caller's buffer,
/// which must come back with its unread bytes in place.
#[derive(Debug)]
#[doc(alias = "FrameDecoder")]
#[doc(alias = "Assembler")]
pub struct Inbound {
    role: Role,
    limits: Limits,
    /// Whether an extension that gives RSV1 a meaning was negotiated.
    rsv1_defined: bool,
    /// Whether the next message is handed out in chunks.
    streaming: bool,
    /// After a Close frame or a violation: whatever follows is discarded (§1.4, §7.1.7).
    finished: bool,
    /// The frame whose header has been taken off the buffer.
    frame: Option<Progress>,
    assembler: Assembler,
}

/// A frame of which the header is gone from the buffer and the payload has come in part.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// `header.length` counts what is left, when chunks have been handed out.
    header: FrameHeader,
    /// How many bytes at the front of the buffer are unmasked and checked.
    ready: usize,
    /// Payload bytes handed out in chunks, for the phase of the masking key.
    handed_out: u64,
}

impl Inbound {
    /// The receiving half of an endpoint in this role.
    #[must_use]
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            role,
            limits,
            rsv1_defined: false,
            streaming: false,
            finished: false,
            frame: None,
            assembler: Assembler::default(),
        }
    }

    /// Takes compressed messages, as was agreed on.
    #[must_use]
    pub fn with_deflate(mut self, agreed: Option<&AgreedDeflate>) -> Self {
        if let Some(agreed) = agreed {
            self.rsv1_defined = true;
            self.assembler = self.assembler.with_deflate(agreed);
        }
        self
    }

    /// Whether messages are handed out in chunks as they arrive, instead of whole. Takes effect
    /// with the next message that begins.
    #[doc(alias = "recv_streaming")]
    pub fn set_streaming(&mut self, streaming: bool) {
        self.streaming = streaming;
        if !streaming && self.assembler.is_under_way() {
            // Of a message that began to come in chunks, but of which nobody has seen any.
            let length = self.frame.map_or(0, |frame| frame.header.length);
            self.assembler.keep_whole(length, &self.limits);
        }
    }

    /// Takes the next thing off the front of `input`; `None` means that it needs more bytes.
    ///
    /// After an [`Incoming::Close`] or [`Incoming::Violation`] all input is discarded.
    #[must_use]
    pub fn poll(&mut self, input: &mut BytesMut) -> Option<Incoming> {
        if self.finished {
            input.clear();
        }
        if input.is_empty() {
            return None;
        }
        let incoming = match self.advance(input) {
            Ok(incoming) => incoming?,
            Err(error) => Incoming::Violation(error),
        };
        if matches!(incoming, Incoming::Close(_) | Incoming::Violation(_)) {
            self.finish();
        }
        Some(incoming)
    }

    /// Takes a message off the front of `input` if it lies there whole, in one frame, and with nothing
    /// begun before it: the common case, without the way through [`Incoming`]. `None` says nothing;
    /// ask [`poll`](Self::poll) then.
    // Inlined, and with no detour through a `FrameHeader`, so that a small message is put together in
    // registers: each look at a value that was just written piece by piece waits for the pieces to
    // land (in a profile of a small echo: some 4 ns each time).
    #[expect(clippy::inline_always, reason = "the compiler finds it too large, see above")]
    #[inline(always)]
    #[must_use]
    pub fn poll_whole(&mut self, input: &mut BytesMut) -> Option<Message> {
        if self.finished || self.streaming || self.frame.is_some() || self.assembler.is_under_way()
        {
            return None;
        }
        let Some((text, key, len)) = FrameHeader::decode_short(input, self.role) else {
            let (opcode, payload) = self.poll_whole_any(input)?;
            return Some(Message::from_checked(opcode, payload));
        };
        let limit = self.limits.max_message_size.min(self.limits.max_frame_size);
        let payload = input.get_mut(SHORT_HEADER..SHORT_HEADER + len)?;
        if len as u64 > limit {
            return None;
        }
        apply_mask(payload, key, 0);
        if text && validate(payload).is_err() {
            // Back as it was, for `poll` to say so.
            apply_mask(payload, key, 0);
            return None;
        }
        let payload = Bytes::from(Box::<[u8]>::from(&*payload));
        input.advance(SHORT_HEADER + len);
        Some(Message::from_checked(if text { Opcode::Text } else { Opcode::Binary }, payload))
    }

    /// As [`poll_whole`](Self::poll_whole), for headers of any kind.
    #[inline(never)]
    fn poll_whole_any(&mut self, input: &mut BytesMut) -> Option<(Opcode, Bytes)> {
        let decoded = FrameHeader::decode(input, self.role, self.rsv1_defined);
        let Ok(Some((mut header, size))) = decoded else { return None };
        let whole = header.length <= (input.len() - size) as u64;
        let data = matches!(header.opcode, Opcode::Text | Opcode::Binary);
        let limit = self.limits.max_message_size.min(self.limits.max_frame_size);
        if !whole || !data || !header.fin || header.rsv1 || header.length > limit {
            return None;
        }
        let len = header.length as usize;
        let payload = &mut input[size..size + len];
        if let Some(key) = header.mask {
            apply_mask(payload, key, 0);
        }
        let invalid = header.opcode == Opcode::Text && validate(payload).is_err();
        input.advance(size);
        if invalid {
            // For `poll` to say so, which must not unmask it again.
            header.mask = None;
            self.frame = Some(Progress { header, ready: 0, handed_out: 0 });
            return None;
        }
        Some((header.opcode, take(input, len)))
    }

    /// How many bytes beyond the `buffered` ones complete the frame under way; 0 if unknown. A hint
    /// for sizing a read buffer; it is the peer's word, so never allocate all of it at once.
    #[must_use]
    pub fn missing(&self, buffered: usize) -> u64 {
        if self.assembler.is_streaming() || self.assembler.is_compressed() {
            return 0;
        }
        self.frame.map_or(0, |frame| frame.header.length.saturating_sub(buffered as u64))
    }

    /// Discards whatever follows: the other half failed the connection (RFC 6455 §7.1.7).
    pub fn finish(&mut self) {
        self.finished = true;
        // A message that was refused for its size must not stay for as long as the peer does.
        self.assembler = Assembler::default();
        self.frame = None;
    }

    /// Whether a Close frame or a violation ended the input.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    fn advance(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
        loop {
            let mut progress = match self.frame {
                Some(progress) => progress,
                None => {
                    let decoded = FrameHeader::decode(input, self.role, self.rsv1_defined)?;
                    let Some((header, size)) = decoded else { return Ok(None) };
                    if !header.opcode.is_control() {
                        self.assembler.admit(&header, &self.limits, self.streaming)?;
                    }
                    input.advance(size);
                    Progress { header, ready: 0, handed_out: 0 }
                }
            };
            let whole = input.len() as u64 >= progress.header.length;
            if progress.header.opcode.is_control() {
                // At most 125 bytes: not worth a look before they are all there.
                if !whole {
                    self.frame = Some(progress);
                    return Ok(None);
                }
                self.frame = None;
                return read_control(&progress.header, input).map(Some);
            }

            let available = if whole { progress.header.length as usize } else { input.len() };
            let fresh = &mut input[progress.ready..available];
            if let Some(key) = progress.header.mask {
                // Only the phase matters, so the offset may wrap.
                let offset = progress.handed_out.wrapping_add(progress.ready as u64) as usize;
                apply_mask(fresh, key, offset & 3);
            }
            if is_small(&progress.header) && !self.assembler.is_under_way() {
                if !whole {
                    progress.ready = available;
                    self.frame = Some(progress);
                    return Ok(None);
                }
                self.frame = None;
                let opcode = progress.header.opcode;
                let message =
                    self.assembler.inflate_whole(opcode, &input[..available], &self.limits)?;
                input.advance(available);
                return Ok(Some(Incoming::Message(message)));
            }
            if self.assembler.is_compressed() {
                progress.ready = available;
                match self.inflate(progress, input)? {
                    Some(incoming) => return Ok(Some(incoming)),
                    // The frame has ended, and its message goes on.
                    None if self.frame.is_none() => continue,
                    None => return Ok(None),
                }
            }
            if self.assembler.is_streaming() {
                if available == 0 && !whole {
                    self.frame = Some(progress);
                    return Ok(None);
                }
                let ends = whole && progress.header.fin;
                progress.header.length -= available as u64;
                progress.handed_out = progress.handed_out.wrapping_add(available as u64);
                self.frame = (!whole).then_some(progress);
                return self
                    .assembler
                    .stream(input, available, ends)
                    .map(|chunk| Some(Incoming::Chunk(chunk)));
            }
            self.assembler.check(progress.header.opcode, fresh)?;
            if !whole {
                progress.ready = available;
                self.frame = Some(progress);
                return Ok(None);
            }
            self.frame = None;
            if let Some(message) = self.assembler.finish_frame(&progress.header, input)? {
                return Ok(Some(Incoming::Message(message)));
            }
        }
    }

    /// Takes what is unmasked of a compressed frame off `input`, so that none of it is kept.
    fn inflate(
        &mut self,
        mut progress: Progress,
        input: &mut BytesMut,
    ) -> Result<Option<Incoming>, ProtocolError> {
        let taken = self.assembler.inflate(&input[..progress.ready], &self.limits)?;
        input.advance(taken);
        progress.ready -= taken;
        progress.header.length -= taken as u64;
        progress.handed_out = progress.handed_out.wrapping_add(taken as u64);
        let whole = progress.header.length == 0;
        self.frame = (!whole).then_some(progress);
        let ends = whole && progress.header.fin;
        if !self.assembler.is_streaming() {
            let message = if ends { self.assembler.finish_compressed()? } else { None };
            return Ok(message.map(Incoming::Message));
        }
        if !ends && !self.assembler.has_inflated() {
            return Ok(None);
        }
        self.assembler.stream_inflated(ends).map(|chunk| Some(Incoming::Chunk(chunk)))
    }
}

/// Takes a control frame's payload off the front of `input`.
fn read_control(header: &FrameHeader, input: &mut BytesMut) -> Result<Incoming, ProtocolError> {
    let len = header.length as usize;
    if let Some(key) = header.mask {
        apply_mask(&mut input[..len], key, 0);
    }
    let payload = take(input, len);
    Ok(match header.opcode {
        Opcode::Close => Incoming::Close(CloseFrame::decode(&payload)?),
        Opcode::Ping => Incoming::Ping(payload),
        _ => Incoming::Pong(payload),
    })
}
