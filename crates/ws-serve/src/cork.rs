//! The cork: where messages gather while a handler is polled.
//!
//! One queue per thread, lent to whichever session is being polled. What the handler sends goes
//! there without a lock and leaves in one write when its poll ends; the memory stays with the thread,
//! so that no connection holds any. Not its business: writing.

use std::cell::RefCell;

use crate::{
    Compression, Message,
    conn::proto::{AgreedDeflate, SendQueue},
};

thread_local! {
    static CORK: RefCell<Cork> = const { RefCell::new(Cork { session: 0, messages: 0, queue: None }) };
}

struct Cork {
    /// The session that is being polled on this thread; 0 if none is.
    session: u64,
    /// Messages that were put in since somebody last asked.
    messages: u64,
    /// Lazily made, because a queue cannot be made in a constant.
    queue: Option<SendQueue>,
}

/// Puts the cork in for a session whose handler is about to be polled.
pub(crate) fn enter(session: u64) -> Corked {
    CORK.with_borrow_mut(|cork| {
        // A session polled inside another one's poll gets a queue of its own.
        let outer_queue = (cork.session != 0).then(|| cork.queue.take()).flatten();
        Corked { outer_session: std::mem::replace(&mut cork.session, session), outer_queue }
    })
}

/// A handler is being polled.
#[must_use = "the cork must come out again"]
pub(crate) struct Corked {
    outer_session: u64,
    outer_queue: Option<SendQueue>,
}

impl Corked {
    /// Takes the cork out; what was sent meanwhile is in the queue that `uncork` gets.
    pub(crate) fn leave<R>(self, uncork: impl FnOnce(&mut SendQueue) -> R) -> R {
        let mut queue = CORK.with_borrow_mut(|cork| {
            cork.session = self.outer_session;
            cork.queue.take().unwrap_or_default()
        });
        let result = uncork(&mut queue);
        queue.clear();
        CORK.with_borrow_mut(|cork| cork.queue = Some(self.outer_queue.unwrap_or(queue)));
        result
    }
}

/// Adds a message to the cork, if this session is being polled on this thread. Answers with the
/// bytes that are waiting now.
///
/// By reference, because each move of a message costs more than the look at it.
#[inline]
pub(crate) fn push(
    session: u64,
    message: &Message,
    compression: Compression,
    agreed: Option<&AgreedDeflate>,
) -> Option<usize> {
    CORK.with_borrow_mut(|cork| {
        if cork.session != session {
            return None;
        }
        let queue = cork.queue.get_or_insert_default();
        queue.push_message(message, compression, agreed);
        cork.messages += 1;
        Some(queue.len())
    })
}

/// How many messages were put in on this thread since this was last asked.
pub(crate) fn take_messages() -> u64 {
    CORK.with_borrow_mut(|cork| std::mem::take(&mut cork.messages))
}

/// Whether this session's handler is being polled on this thread, so that its session flushes soon.
pub(crate) fn is_in(session: u64) -> bool {
    CORK.with_borrow(|cork| cork.session == session)
}

/// Takes what has gathered for this session, to keep the order with what bypasses the cork.
pub(crate) fn take(session: u64, uncork: impl FnOnce(&mut SendQueue)) {
    let queue =
        CORK.with_borrow_mut(|cork| (cork.session == session).then(|| cork.queue.take()).flatten());
    if let Some(mut queue) = queue {
        if !queue.is_empty() {
            uncork(&mut queue);
            queue.clear();
        }
        CORK.with_borrow_mut(|cork| cork.queue = Some(queue));
    }
}
