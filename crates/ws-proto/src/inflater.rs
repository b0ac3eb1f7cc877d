//! [`Inflater`]: compressed payloads → messages (RFC 7692 §7.2.2), within a limit.
//!
//! Decompressors are taken from the thread's pool for the time of a message, unless a context is
//! kept. Not its business: frames, and whether the result is UTF-8.

use std::{cell::RefCell, fmt};

use bytes::BytesMut;
use zlib_rs::{Inflate as Stream, InflateFlush, Status};

use crate::{Context, ProtocolError, deflate::TAIL};

/// The decompressing half of one connection.
pub(crate) struct Inflater {
    receive: Context,
    /// The decompressor, while it remembers anything.
    stream: Option<Box<Stream>>,
    /// Whether any byte of the message under way has come.
    begun: bool,
    /// Whether the last byte ended a block with BFINAL set, and with it a DEFLATE stream.
    ended: bool,
}

impl Inflater {
    pub(crate) fn new(receive: Context) -> Self {
        Self { receive, stream: None, begun: false, ended: false }
    }

    /// Decompresses a message whose payload lies there whole, in up to [`SMALL`] bytes, and hands on
    /// what it became; with a failure, what came before it.
    // One pass over payload and tail, where `feed` and `finish` take one each.
    pub(crate) fn inflate_whole<R>(
        &mut self,
        payload: &[u8],
        limit: u64,
        then: impl FnOnce(&[u8], Result<(), ProtocolError>) -> R,
    ) -> R {
        debug_assert!(payload.len() <= SMALL && !self.begun);
        if payload.is_empty() {
            return then(&[], Ok(()));
        }
        let mut padded = [0; SMALL + TAIL.len() + PADDING];
        let end = payload.len() + TAIL.len();
        padded[..payload.len()].copy_from_slice(payload);
        padded[payload.len()..end].copy_from_slice(&TAIL);
        let padded = &padded[..end + PADDING];

        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(SCRATCH_SIZE, 0);
            let stream = self.stream.get_or_insert_with(take);
            let mut spilled = Vec::new();
            let (mut used, mut made) = (0, 0);
            let outcome = loop {
                if self.ended {
                    stream.reset(false);
                    self.ended = false;
                }
                let left = limit.saturating_sub((spilled.len() + made) as u64).saturating_add(1);
                let room = &mut scratch[made..];
                let len = usize::try_from(left).map_or(room.len(), |left| left.min(room.len()));
                let (before_in, before_out) = (stream.total_in(), stream.total_out());
                // A block at a time, so that it stops behind the tail.
                let (input, flush) = (&padded[used..], InflateFlush::Block);
                let result = stream.decompress(input, &mut room[..len], flush);
                let step_in = (stream.total_in() - before_in) as usize;
                let step_out = (stream.total_out() - before_out) as usize;
                used += step_in;
                made += step_out;
                let size = (spilled.len() + made) as u64;
                if size > limit {
                    break Err(ProtocolError::MessageTooBig { size, limit });
                }
                let Ok(status) = result else { break Err(ProtocolError::InvalidDeflate) };
                self.ended = status == Status::StreamEnd;
                // As in `at_end`: the tail is the rest of a block without bytes.
                let whole = match self.ended {
                    true => used == payload.len(),
                    false => used == end && step_out == 0,
                };
                if whole {
                    break Ok(());
                }
                let stuck = step_in == 0 && step_out == 0 && !self.ended;
                // A truncated payload takes tail and padding for data.
                if used > end || stuck {
                    break Err(ProtocolError::InvalidDeflate);
                }
                if made == scratch.len() {
                    spilled.extend_from_slice(scratch);
                    made = 0;
                }
            };
            self.give_back();
            if outcome.is_err() && used > payload.len() {
                // Nobody knows where in it the payload ended.
                return then(&[], Err(ProtocolError::InvalidDeflate));
            }
            if spilled.is_empty() {
                return then(&scratch[..made], outcome);
            }
            spilled.extend_from_slice(&scratch[..made]);
            then(&spilled, outcome)
        })
    }

    /// Decompresses a piece of a message's payload into `out`, which may not grow beyond `limit`.
    ///
    /// What is not decompressible fails with [`ProtocolError::InvalidDeflate`], on this call and all
    /// further ones. `out` has what came before the failure, and at most one byte over the limit.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        out: &mut BytesMut,
        limit: u64,
    ) -> Result<(), ProtocolError> {
        if input.is_empty() {
            return Ok(());
        }
        self.begun = true;
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(SCRATCH_SIZE, 0);
            let stream = self.stream.get_or_insert_with(take);
            loop {
                if self.ended {
                    // §7.2.3.4: a message may hold several DEFLATE streams, one after the other.
                    stream.reset(false);
                    self.ended = false;
                }
                // One byte over the limit is enough to know.
                let left = limit.saturating_sub(out.len() as u64).saturating_add(1);
                let room =
                    usize::try_from(left).map_or(SCRATCH_SIZE, |left| left.min(SCRATCH_SIZE));
                let (before_in, before_out) = (stream.total_in(), stream.total_out());
                let result =
                    stream.decompress(input, &mut scratch[..room], InflateFlush::SyncFlush);
                let used = (stream.total_in() - before_in) as usize;
                let made = (stream.total_out() - before_out) as usize;
                input = &input[used..];
                out.extend_from_slice(&scratch[..made]);
                let size = out.len() as u64;
                if size > limit {
                    return Err(ProtocolError::MessageTooBig { size, limit });
                }
                let status = result.map_err(|_| ProtocolError::InvalidDeflate)?;
                self.ended = status == Status::StreamEnd;
                let drained = made < room;
                if input.is_empty() && (drained || self.ended) {
                    return Ok(());
                }
                // No progress and no error, with input left and room for output, would be for ever.
                if used == 0 && made == 0 && !self.ended {
                    return Err(ProtocolError::InvalidDeflate);
                }
            }
        })
    }

    /// Ends a message: its payload must be whole.
    pub(crate) fn finish(&mut self) -> Result<(), ProtocolError> {
        let whole = self.at_end();
        self.begun = false;
        self.give_back();
        if whole { Ok(()) } else { Err(ProtocolError::InvalidDeflate) }
    }

    /// Parts with the decompressor, if no context is kept.
    fn give_back(&mut self) {
        if !self.receive.takeover
            && let Some(stream) = self.stream.take()
        {
            self.ended = false;
            put(stream);
        }
    }

    /// Whether the payload ends where it may: at the tail that was left out (§7.2.2), or at the end
    /// of a DEFLATE stream. A message without any payload says nothing at all and is as good as an
    /// empty one.
    fn at_end(&mut self) -> bool {
        if !self.begun || self.ended {
            return true;
        }
        let Some(stream) = &mut self.stream else { return true };
        // The tail is the rest of a stored block without bytes: afterwards, and only then, the stream
        // stands between two blocks. It stops there, so the byte behind the tail is not taken.
        let mut probe = [0; TAIL.len() + 1];
        probe[..TAIL.len()].copy_from_slice(&TAIL);
        let (before_in, before_out) = (stream.total_in(), stream.total_out());
        // Room for a byte, because a truncated payload would take the tail for data.
        let result = stream.decompress(&probe, &mut [0], InflateFlush::Block);
        result.is_ok()
            && stream.total_in() - before_in == TAIL.len() as u64
            && stream.total_out() == before_out
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("receive", &self.receive).finish_non_exhaustive()
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            put(stream);
        }
    }
}

thread_local! {
    /// Decompressors that remember nothing.
    #[expect(clippy::vec_box, reason = "the boxes move between here and the connections")]
    static POOL: RefCell<Vec<Box<Stream>>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn take() -> Box<Stream> {
    // §7.1.2: the window is "up to" what was agreed on; the largest one serves all.
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| Box::new(Stream::new(false, 15)))
}

fn put(mut stream: Box<Stream>) {
    // A thread that ends has no pool any more, and no use for one.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < MAX_POOLED {
            stream.reset(false);
            pool.push(stream);
        }
    });
}

/// A message of one frame with a payload of up to this size is decompressed when it is there whole,
/// any other as it comes.
pub(crate) const SMALL: usize = 4 << 10;

/// zlib-rs leaves its fast loop for the last 15 bytes of its input, so there is something behind a
/// small payload.
const PADDING: usize = 20;

/// Messages up to this size are copied into memory of exactly their size.
const SCRATCH_SIZE: usize = 64 << 10;

/// A thread decompresses one message at a time; more are held by messages of which a part is missing.
const MAX_POOLED: usize = 16;
