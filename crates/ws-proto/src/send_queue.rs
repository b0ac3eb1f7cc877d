//! [`SendQueue`]: the bytes we owe the transport, in the order they must go out.
//!
//! Small frames are copied into one contiguous buffer, so that many messages make one write; large
//! payloads ride along by reference. Control frames overtake waiting data at the next frame boundary
//! (RFC 6455 §5.4 lets them stand between any two frames). Not its business: what may be sent when.

use std::{borrow::Cow, collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    AgreedDeflate, Compression, FrameHeader, Message, apply_mask,
    compressor::compress_alone,
    frame::{MAX_HEADER, frame_length},
};

/// Outgoing bytes as a [`Buf`], with vectored chunks.
#[derive(Debug, Default)]
pub struct SendQueue {
    /// Copied bytes; `small[..start]` has been written. `0 <= start <= small.len()`
    small: Vec<u8>,
    start: usize,
    /// Position of `small[start]` among all bytes ever copied.
    position: u64,
    /// Payloads by reference, each with the position in the copied bytes at which it belongs.
    large: VecDeque<(u64, Bytes)>,
    /// Bytes in `small` and `large` that are still to be written.
    data_len: usize,
    /// What goes out at the next frame boundary; boxed, because most queues never see it.
    control: Option<Box<Control>>,
    /// How much of the data frame at the front is still to be written; 0 at a frame boundary.
    frame_left: u64,
}

/// Whole control frames; `bytes[..start]` has been written.
#[derive(Debug, Default)]
struct Control {
    bytes: Vec<u8>,
    /// `0 <= start < bytes.len()`
    start: usize,
}

impl SendQueue {
    /// An empty queue, which holds no memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a data frame; masks the payload if the header has a key.
    pub fn push(&mut self, header: FrameHeader, payload: Bytes) {
        if payload.len() <= COPY_UP_TO {
            return self.push_copy(header, &payload);
        }
        debug_assert_eq!(header.length, payload.len() as u64);
        let encoded = header.encode();
        self.data_len += encoded.len() + payload.len();
        self.small.extend_from_slice(&encoded);
        let payload = match header.mask {
            None => payload,
            Some(key) => {
                // In place if nobody else sees the bytes, otherwise in the copy that is needed anyway.
                let mut own =
                    payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                apply_mask(&mut own, key, 0);
                own.freeze()
            }
        };
        self.large.push_back((self.end(), payload));
    }

    /// Queues a server's message, compressed by itself if that was agreed on and is worth it. Not for
    /// connections that keep a context to send with, which [`Outbound::send`](crate::Outbound::send) needs.
    #[inline]
    pub fn push_message(
        &mut self,
        message: &Message,
        compression: Compression,
        agreed: Option<&AgreedDeflate>,
    ) {
        let header = FrameHeader::whole(message.opcode(), message.len());
        if let Some(agreed) = agreed
            && agreed.wants(message.len(), compression)
        {
            return compress_alone(message.as_bytes(), agreed, |compressed| match compressed {
                Some(payload) => self.push_compressed(header, payload),
                None => self.push(header, message.clone().into_bytes()),
            });
        }
        if message.len() <= COPY_UP_TO {
            self.push_copy(header, message.as_bytes());
        } else {
            self.push(header, message.clone().into_bytes());
        }
    }

    /// Queues a message by its header, with this payload instead.
    pub(crate) fn push_compressed(&mut self, mut header: FrameHeader, payload: Cow<'_, [u8]>) {
        header.rsv1 = true;
        self.push_cow(header, payload);
    }

    /// Queues a data frame of the header's kind with this payload.
    pub(crate) fn push_cow(&mut self, mut header: FrameHeader, payload: Cow<'_, [u8]>) {
        header.length = payload.len() as u64;
        match payload {
            Cow::Borrowed(payload) if payload.len() <= COPY_UP_TO => {
                self.push_copy(header, payload)
            }
            payload => self.push(header, Bytes::from(payload.into_owned())),
        }
    }

    /// As [`push`](Self::push), by copy whatever the size.
    #[inline]
    pub fn push_copy(&mut self, header: FrameHeader, payload: &[u8]) {
        debug_assert_eq!(header.length, payload.len() as u64);
        let encoded = header.encode();
        self.data_len += encoded.len() + payload.len();
        self.small.reserve(MAX_HEADER + payload.len());
        encoded.append_to(&mut self.small);
        self.small.extend_from_slice(payload);
        if let Some(key) = header.mask {
            let body = self.small.len() - payload.len();
            apply_mask(&mut self.small[body..], key, 0);
        }
    }

    /// Queues whole frames that are encoded already, such as a [`PreparedMessage`](crate::PreparedMessage)'s.
    pub fn push_frames(&mut self, frames: Bytes) {
        self.data_len += frames.len();
        if frames.len() <= COPY_UP_TO {
            self.small.extend_from_slice(&frames);
        } else {
            self.large.push_back((self.end(), frames));
        }
    }

    /// Queues what another queue still owes. Both must stand at frame boundaries where they meet: `other`
    /// must not have begun a frame that this queue does not end with.
    ///
    /// After a partial write the rest of `other` moves here; `other` is empty then and keeps its memory.
    pub fn append(&mut self, other: &mut Self) {
        if self.data_len == 0 {
            self.frame_left = other.frame_left;
        }
        if let Some(control) = other.control.take() {
            let own = self.control.get_or_insert_default();
            own.bytes.extend_from_slice(&control.bytes[control.start..]);
        }
        let offset = self.end();
        self.small.extend_from_slice(&other.small[other.start..]);
        self.large.extend(
            other.large.drain(..).map(|(at, bytes)| (offset + (at - other.position), bytes)),
        );
        self.data_len += other.data_len;
        other.clear();
    }

    /// Queues a whole control frame; it overtakes waiting data.
    pub(crate) fn push_control(&mut self, header: FrameHeader, payload: &[u8]) {
        let control = &mut self.control.get_or_insert_default().bytes;
        control.extend_from_slice(&header.encode());
        let body = control.len();
        control.extend_from_slice(payload);
        if let Some(key) = header.mask {
            apply_mask(&mut control[body..], key, 0);
        }
    }

    /// Bytes of control frames that wait to be written.
    pub(crate) fn control_len(&self) -> usize {
        self.control.as_ref().map_or(0, |control| control.bytes.len() - control.start)
    }

    /// Whether nothing is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data_len == 0 && self.control.is_none()
    }

    /// Bytes owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data_len + self.control_len()
    }

    /// Bytes that can be copied in before more memory is needed.
    pub(crate) fn capacity(&self) -> usize {
        self.small.capacity()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.small.clear();
        self.start = 0;
        self.position = 0;
        self.large.clear();
        self.data_len = 0;
        self.control = None;
        self.frame_left = 0;
    }

    /// Gives the memory back if nothing is owed; an idle connection holds none.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Position of the next byte to be copied.
    fn end(&self) -> u64 {
        self.position + (self.small.len() - self.start) as u64
    }

    /// Whether the control frames are next: §5.4 lets them stand between frames, not inside one.
    fn control_is_next(&self) -> bool {
        self.frame_left == 0 && self.control.is_some()
    }

    /// The first contiguous piece of data.
    fn data_chunk(&self) -> &[u8] {
        let waiting = &self.small[self.start..];
        match self.large.front() {
            Some((at, bytes)) if *at == self.position => bytes,
            Some((at, _)) => &waiting[..(at - self.position) as usize],
            None => waiting,
        }
    }

    /// Moves past `count` bytes of data that lie in one frame.
    fn skip(&mut self, mut count: usize) {
        self.data_len -= count;
        while count > 0 {
            let step = count.min(self.data_chunk().len());
            match self.large.front_mut() {
                Some((at, bytes)) if *at == self.position => {
                    bytes.advance(step);
                    if bytes.is_empty() {
                        self.large.pop_front();
                    }
                }
                _ => {
                    self.start += step;
                    self.position += step as u64;
                }
            }
            count -= step;
        }
        // Written bytes go when they are the greater part, so that each byte moves at most once.
        if self.start > COMPACT_FROM && self.start * 2 > self.small.len() {
            self.small.drain(..self.start);
            self.start = 0;
        }
    }
}

impl Buf for SendQueue {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        let chunk = self.data_chunk();
        let Some(control) = &self.control else { return chunk };
        if self.control_is_next() {
            return &control.bytes[control.start..];
        }
        // Stop at the frame boundary, where the control frames go.
        let left = usize::try_from(self.frame_left).unwrap_or(usize::MAX);
        &chunk[..chunk.len().min(left)]
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut put = |bytes: &'a [u8]| {
            if !bytes.is_empty() && used < slices.len() {
                slices[used] = IoSlice::new(bytes);
                used += 1;
            }
        };
        if let Some(control) = &self.control {
            put(self.chunk());
            if !self.control_is_next() {
                return used;
            }
            debug_assert_eq!(self.chunk().len(), control.bytes.len() - control.start);
        }
        let mut from = self.start;
        for (at, bytes) in self.large.iter().take(MAX_SLICES) {
            let to = self.start + (at - self.position) as usize;
            put(&self.small[from..to]);
            put(bytes);
            from = to;
        }
        if self.large.len() <= MAX_SLICES {
            put(&self.small[from..]);
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len(), "advanced past the end");
        if count == self.len() {
            return self.clear();
        }
        while count > 0 {
            if self.frame_left == 0
                && let Some(control) = &mut self.control
            {
                let step = count.min(control.bytes.len() - control.start);
                control.start += step;
                count -= step;
                if control.start == control.bytes.len() {
                    self.control = None;
                }
                continue;
            }
            if self.frame_left == 0 {
                // Headers are never split between chunks, so the front chunk tells the length.
                self.frame_left = frame_length(self.data_chunk());
            }
            let step = count.min(usize::try_from(self.frame_left).unwrap_or(usize::MAX));
            self.skip(step);
            self.frame_left -= step as u64;
            count -= step;
        }
    }
}

/// Up to here a copy into the contiguous buffer is cheaper than another slice in the write, chosen
/// from measurements at 4, 8 and 16 KiB.
const COPY_UP_TO: usize = 8 << 10;

/// No use in looking at more chunks than one vectored write takes.
const MAX_SLICES: usize = 64;

/// Below this, moving the rest to the front is not worth a thought.
const COMPACT_FROM: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Opcode;
    use proptest::prelude::*;

    fn header(opcode: Opcode, length: usize) -> FrameHeader {
        FrameHeader { fin: true, rsv1: false, opcode, mask: None, length: length as u64 }
    }

    fn data(queue: &mut SendQueue, byte: u8, len: usize) {
        queue.push(header(Opcode::Binary, len), Bytes::from(vec![byte; len]));
    }

    /// Opcode and payload of each frame in `wire`.
    fn frames(mut wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while !wire.is_empty() {
            let (frame, rest) = wire.split_at(frame_length(wire) as usize);
            let (header, size) =
                FrameHeader::decode(frame, crate::Role::Client, false).unwrap().unwrap();
            frames.push((header.opcode as u8, frame[size..].to_vec()));
            wire = rest;
        }
        frames
    }

    #[test]
    fn a_control_frame_overtakes_data_at_the_next_frame_boundary() {
        let mut queue = SendQueue::new();
        data(&mut queue, 1, 10);
        data(&mut queue, 2, COPY_UP_TO + 1);
        data(&mut queue, 3, 10);
        let mut wire = queue.copy_to_bytes(5).to_vec();
        queue.push_control(header(Opcode::Pong, 1), b"x");
        while queue.has_remaining() {
            let chunk = queue.chunk().to_vec();
            queue.advance(chunk.len());
            wire.extend(chunk);
        }
        let opcodes: Vec<_> = frames(&wire).iter().map(|frame| frame.0).collect();
        assert_eq!(opcodes, [2, 10, 2, 2]);
    }

    #[test]
    fn an_empty_queue_holds_no_memory_after_release() {
        let mut queue = SendQueue::new();
        data(&mut queue, 1, 1000);
        queue.release();
        assert_eq!(queue.len(), 1004);
        queue.advance(1004);
        queue.release();
        assert_eq!(queue.small.capacity(), 0);
    }

    proptest! {
        /// Whatever the sizes and however short the writes: every frame whole, data in order.
        #[test]
        fn short_writes_keep_frames_whole_and_data_in_order(
            steps in prop::collection::vec((0..4u8, 0..20_000usize, 1..30_000usize), 1..40),
            vectored: bool,
        ) {
            let mut queue = SendQueue::new();
            let mut wire = Vec::new();
            let mut sent = Vec::new();
            for (i, (kind, len, write)) in steps.into_iter().enumerate() {
                match kind {
                    0 => queue.push_control(header(Opcode::Pong, len % 126), &vec![7; len % 126]),
                    1 => {
                        let mut corked = SendQueue::new();
                        data(&mut corked, i as u8, len);
                        data(&mut corked, i as u8, 3);
                        sent.push((i as u8, len));
                        sent.push((i as u8, 3));
                        queue.append(&mut corked);
                    }
                    _ => {
                        data(&mut queue, i as u8, len);
                        sent.push((i as u8, len));
                    }
                }
                let mut left = write.min(queue.len());
                while left > 0 {
                    let piece = if vectored {
                        let mut slices = [IoSlice::new(&[]); 8];
                        let used = queue.chunks_vectored(&mut slices);
                        slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect()
                    } else {
                        queue.chunk().to_vec()
                    };
                    let step = left.min(piece.len());
                    wire.extend_from_slice(&piece[..step]);
                    queue.advance(step);
                    left -= step;
                }
            }
            wire.extend(queue.copy_to_bytes(queue.len()));
            let received: Vec<_> = frames(&wire)
                .into_iter()
                .filter(|(opcode, _)| *opcode == Opcode::Binary as u8)
                .map(|(_, payload)| payload)
                .collect();
            let expected: Vec<_> = sent.iter().map(|(byte, len)| vec![*byte; *len]).collect();
            prop_assert_eq!(received, expected);
        }
    }
}
