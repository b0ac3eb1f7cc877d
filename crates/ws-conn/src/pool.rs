//! Read buffers, shared by all connections of a thread.
//!
//! A connection borrows one for the time in which there is something to read, so idle connections
//! hold none. Not its business: what is read.

use std::cell::RefCell;

use bytes::BytesMut;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static LARGE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`READ_BUFFER`] bytes, never zeroed.
pub(crate) fn take() -> BytesMut {
    let reused = POOL.with_borrow_mut(Vec::pop);
    if let Some(mut buffer) = reused
        // Messages that the application keeps may still refer to it; then it is theirs.
        && buffer.try_reclaim(READ_BUFFER)
    {
        return buffer;
    }
    BytesMut::with_capacity(READ_BUFFER)
}

/// Gives a buffer back.
pub(crate) fn put(mut buffer: BytesMut) {
    buffer.clear();
    POOL.with_borrow_mut(|pool| {
        if pool.len() < MAX_POOLED {
            pool.push(buffer);
        }
    });
}

/// An empty buffer with room for a large frame.
pub(crate) fn take_large(capacity: usize) -> BytesMut {
    let reused = LARGE.with_borrow_mut(|large| {
        // A buffer whose message the application still keeps cannot be reclaimed yet.
        let place = large.iter_mut().position(|buffer| buffer.try_reclaim(capacity));
        place.map(|place| large.swap_remove(place))
    });
    reused.unwrap_or_else(|| BytesMut::with_capacity(capacity))
}

/// Gives a buffer of a large frame back, which messages may still refer to. The system takes a page
/// fault for every 4 KiB of fresh memory (measured: a sixth of an echo of 1 MiB).
pub(crate) fn put_large(mut buffer: BytesMut) {
    buffer.clear();
    LARGE.with_borrow_mut(|large| {
        if large.len() == MAX_LARGE {
            large.remove(0);
        }
        large.push(buffer);
    });
}

/// One read takes up to this much. Larger ones gain nothing on large messages, which are read
/// into memory of their own, and fall out of the second-level cache on small ones.
pub(crate) const READ_BUFFER: usize = 64 << 10;

/// A thread polls one connection at a time, so one is the rule; some more for those that are being returned.
const MAX_POOLED: usize = 4;

/// Messages of 1 MiB, the usual limit, with some room for the next header. What a thread keeps in this
/// way is at most this much, times [`MAX_LARGE`].
pub(crate) const LARGE_BUFFER: usize = (1 << 20) + (64 << 10);
const MAX_LARGE: usize = 4;
