//! [`Intake`]: the receiving half of a connection and its read buffer; the only place that reads.
//!
//! The buffer comes from a pool for the time in which there is something to read. What stays with a
//! connection that waits is an unfinished frame, if there is one. Not its business: writing.

use std::{
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Link, Message, pool,
    pool::{LARGE_BUFFER, READ_BUFFER},
    proto::{AgreedDeflate, Event, Inbound, Incoming, State},
};

/// How the receiving half reaches the other one: directly, or through a lock if others write too.
pub trait Access<S> {
    /// Calls `f` with the link.
    fn with<R>(&mut self, f: impl FnOnce(&mut Link<S>) -> R) -> R;

    /// Hands a control frame or a violation over; see [`Link::handle`]. Whoever holds messages back
    /// must queue them first, because a Close frame may be queued now and nothing may follow it.
    fn handle(&mut self, incoming: Incoming) -> Option<Event> {
        self.with(|link| link.handle(incoming))
    }
}

impl<S> Access<S> for &mut Link<S> {
    fn with<R>(&mut self, f: impl FnOnce(&mut Link<S>) -> R) -> R {
        f(self)
    }
}

impl<S> Access<S> for &Mutex<Link<S>> {
    fn with<R>(&mut self, f: impl FnOnce(&mut Link<S>) -> R) -> R {
        f(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The receiving half of a connection. For building servers of your own kind;
/// [`WebSocket`](crate::WebSocket) is what you want otherwise.
#[derive(Debug)]
pub struct Intake {
    inbound: Inbound,
    /// Bytes that are read and not decoded.
    buffer: BytesMut,
    memory: Memory,
    received: Received,
}

/// What arrived on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Messages that were handed out, whole; a chunked one counts when it ends.
    pub messages: u64,
    /// Bytes that were read from the transport.
    pub bytes: u64,
}

/// Whose memory `buffer` is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// The pool's.
    Pooled,
    /// The connection's own.
    Own,
    /// The connection's own, made for a large frame.
    Large {
        /// Whether it is worth keeping for the next one.
        keep: bool,
    },
}

impl Intake {
    /// A receiving half; `early` are the bytes that came behind the opening handshake.
    #[must_use]
    pub fn new(inbound: Inbound, early: BytesMut) -> Self {
        let received = Received { messages: 0, bytes: early.len() as u64 };
        Self { inbound, buffer: early, memory: Memory::Own, received }
    }

    /// Takes compressed messages, as was agreed on.
    #[must_use]
    pub fn with_deflate(mut self, agreed: Option<&AgreedDeflate>) -> Self {
        self.inbound = self.inbound.with_deflate(agreed);
        self
    }

    /// Hands messages out in chunks from the next one on.
    pub fn set_streaming(&mut self, streaming: bool) {
        self.inbound.set_streaming(streaming);
    }

    /// Takes the next message if it was read already, whole and in one frame: the common case in a
    /// burst. `None` says nothing; ask [`poll_event`](Self::poll_event) then.
    #[inline]
    pub fn next_message(&mut self) -> Option<Message> {
        let message = self.inbound.poll_whole(&mut self.buffer);
        self.received.messages += u64::from(message.is_some());
        message
    }

    /// What arrived since this was last asked, for limits and statistics.
    pub fn take_received(&mut self) -> Received {
        std::mem::take(&mut self.received)
    }

    /// Takes the next event; reads when there is none. The last one, over and over, is [`Event::Closed`].
    ///
    /// Messages do not touch the link, so that a lock around it is taken once per read and not once
    /// per message. Nothing is flushed here: that is for the caller to do when this is pending.
    pub fn poll_event<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        mut link: impl Access<S>,
    ) -> Poll<Event> {
        loop {
            if let Some(message) = self.next_message() {
                return Poll::Ready(Event::Message(message));
            }
            match self.inbound.poll(&mut self.buffer) {
                Some(Incoming::Message(message)) => {
                    self.received.messages += 1;
                    return Poll::Ready(Event::Message(message));
                }
                Some(Incoming::Chunk(chunk)) => {
                    self.received.messages += u64::from(chunk.last);
                    return Poll::Ready(Event::Chunk(chunk));
                }
                Some(control) => {
                    if let Some(event) = link.handle(control) {
                        return Poll::Ready(event);
                    }
                    continue;
                }
                None => {}
            }
            self.make_room();
            let before = self.buffer.len();
            let read = link.with(|link| {
                if !link.state().can_receive() {
                    self.inbound.finish();
                }
                link.poll_read(cx, &mut self.buffer)
            });
            match read {
                Poll::Ready(true) => self.received.bytes += (self.buffer.len() - before) as u64,
                Poll::Ready(false) => {
                    self.give_back();
                    return Poll::Ready(Event::Closed(link.with(|link| {
                        debug_assert_eq!(link.state(), State::Closed);
                        link.closed()
                    })));
                }
                Poll::Pending => {
                    self.give_back();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Makes room for the next read.
    fn make_room(&mut self) {
        let have = self.buffer.len();
        let missing = usize::try_from(self.inbound.missing(have)).unwrap_or(usize::MAX);
        if have.saturating_add(missing) > READ_BUFFER {
            // The frame needs memory of its own, into which it is read without another copy. The
            // length is the peer's word, so only a multiple of what really came is reserved.
            if self.memory == Memory::Pooled {
                self.move_to_own(have, missing);
            } else if self.buffer.capacity() == have {
                self.buffer.reserve(ahead(have, missing));
                self.memory = Memory::Large { keep: false };
            }
            return;
        }
        if self.memory != Memory::Pooled && have < KEEP_FROM {
            self.move_to(pool::take(), Memory::Pooled);
        }
        let spare = self.buffer.capacity() - have;
        if self.memory == Memory::Pooled && spare < missing.max(MIN_READ) {
            // Moves to the front of the same memory, unless messages that were handed out share it.
            self.buffer.reserve(READ_BUFFER - have);
        } else if spare == 0 {
            self.buffer.reserve(missing.max(MIN_READ));
        }
    }

    /// Gives borrowed memory back while waiting; an unfinished frame moves to memory of its own size.
    fn give_back(&mut self) {
        let have = self.buffer.len();
        if have == 0 {
            return self.move_to(BytesMut::new(), Memory::Own);
        }
        let missing = usize::try_from(self.inbound.missing(have)).unwrap_or(usize::MAX);
        // The beginning of a small frame behind a large one would keep all of its memory.
        let small = have.saturating_add(missing) <= READ_BUFFER;
        if self.memory == Memory::Pooled || (self.memory != Memory::Own && small) {
            self.move_to_own(have, if have < KEEP_FROM { 0 } else { missing });
        }
    }

    fn move_to_own(&mut self, have: usize, missing: usize) {
        let capacity = have.saturating_add(ahead(have, missing));
        let (buffer, memory) = match capacity {
            ..READ_BUFFER => (BytesMut::with_capacity(capacity), Memory::Own),
            READ_BUFFER..=LARGE_BUFFER => {
                (pool::take_large(capacity), Memory::Large { keep: true })
            }
            _ => (BytesMut::with_capacity(capacity), Memory::Large { keep: false }),
        };
        self.move_to(buffer, memory);
    }

    fn move_to(&mut self, mut buffer: BytesMut, memory: Memory) {
        buffer.extend_from_slice(&self.buffer);
        let buffer = std::mem::replace(&mut self.buffer, buffer);
        match std::mem::replace(&mut self.memory, memory) {
            Memory::Pooled => pool::put(buffer),
            Memory::Large { keep: true } => pool::put_large(buffer),
            Memory::Large { keep: false } | Memory::Own => {}
        }
    }
}

/// How much to reserve for a frame of which `have` bytes came and `missing` are said to follow.
fn ahead(have: usize, missing: usize) -> usize {
    missing.min(have.saturating_mul(16).max(MIN_READ))
}

/// An unfinished frame smaller than this travels through the pooled buffer again; a larger one is
/// read into its own memory, so that small packets do not make it be copied over and over.
const KEEP_FROM: usize = 4 << 10;

/// No read into less than this, unless the frame ends sooner.
const MIN_READ: usize = 4 << 10;
