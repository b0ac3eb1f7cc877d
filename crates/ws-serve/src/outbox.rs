//! [`Outbox`]: what is on its way to a client, and who waits for that: the part of a connection behind
//! its lock.
//!
//! The link has what the transport takes next; the backlog what must wait until it has room. Not its
//! business: when anything is sent, which is for sessions, senders and turns to say.

use std::{
    ops::Range,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use crate::{
    CloseFrame, Counts, PreparedMessage, Skip, SlowConsumer,
    backlog::{Backlog, Overflow},
    conn::{
        Intake, Link,
        proto::{SendError, SendQueue},
    },
    cork,
    counts::{Loss, Losses, Tally},
    shard::Published,
    topic::Topic,
    transport::Transport,
    turn::Slice,
};

/// The sending half of a connection, for all who send.
pub(crate) struct Outbox {
    pub(crate) link: Link<Transport>,
    /// The session's task, which writes what is left over when the transport is ready.
    session: Waker,
    /// Tasks that wait for room in the queue.
    waiting: Vec<Waker>,
    /// Corked messages that met a message in chunks from another task; they follow its end.
    held: Option<Box<SendQueue>>,
    /// Who waits to receive, if that is not the session's task itself.
    receiver: Option<Waker>,
    /// The receiving half, when the socket has been dropped.
    pub(crate) intake: Option<Box<Intake>>,
    /// Topics that this connection is in; `None` when its session has ended and it joins nothing more.
    pub(crate) topics: Option<Vec<Topic>>,
    /// Published messages that wait, while there are any.
    backlog: Option<Box<Backlog>>,
    /// How many published messages were due to the client.
    sent: u64,
    /// How many of them were dropped; boxed, because most connections lose none.
    losses: Option<Box<Losses>>,
    /// How many bytes of published messages were put into the link since it was last empty.
    published: usize,
    /// Whether the client is behind so far that the application was told.
    lagging: bool,
    /// `lagging` has changed, and the application does not know yet.
    lag_changed: bool,
    /// The application is being told; a change meanwhile has to wait, for the sake of the order.
    telling_lag: bool,
}

/// What a turn's messages have in common.
pub(crate) struct Terms<'a> {
    pub(crate) tally: &'a Arc<Tally>,
    pub(crate) policy: SlowConsumer,
    pub(crate) max_queue: usize,
}

impl Outbox {
    pub(crate) fn new(mut link: Link<Transport>) -> Self {
        if link.get_ref().is_some_and(Transport::is_plain) {
            link.end_by_drop();
        }
        Self {
            link,
            session: Waker::noop().clone(),
            waiting: Vec::new(),
            held: None,
            receiver: None,
            intake: None,
            topics: Some(Vec::new()),
            backlog: None,
            sent: 0,
            losses: None,
            published: 0,
            lagging: false,
            lag_changed: false,
            telling_lag: false,
        }
    }

    /// Does what a change of the link calls for; answers whether messages may be sent right now.
    #[inline]
    pub(crate) fn settle(&mut self) -> bool {
        if self.held.is_some() && !self.link.is_mid_message() {
            self.release_held();
        }
        self.link.can_send() && !self.link.is_mid_message() && !self.link.is_full()
    }

    /// Whether somebody outside is to be told something.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        (self.lag_changed && !self.telling_lag)
            || (!self.waiting.is_empty() && (!self.link.is_full() || !self.link.can_send()))
    }

    /// Who waited for room, if there is some now.
    pub(crate) fn take_waiting(&mut self) -> Vec<Waker> {
        if self.link.is_full() && self.link.can_send() {
            return Vec::new();
        }
        std::mem::take(&mut self.waiting)
    }

    /// Whether the client has begun to lag, or has caught up, since this was last asked. If so,
    /// [`Self::handle_told`] follows, and until then there is nothing more to tell.
    pub(crate) fn take_lag(&mut self) -> Option<bool> {
        if self.telling_lag {
            return None;
        }
        self.telling_lag = std::mem::take(&mut self.lag_changed);
        self.telling_lag.then_some(self.lagging)
    }

    /// Takes note that the application has been told.
    pub(crate) fn handle_told(&mut self) {
        self.telling_lag = false;
    }

    /// Ends the transport if the closing handshake is complete. Not over TLS, whose end is a message of
    /// its own. To wait for the client's end instead would cost system calls and a timer.
    pub(crate) fn end_if_complete(&mut self) {
        if self.link.is_complete() && self.link.get_ref().is_some_and(Transport::is_plain) {
            self.link.drop_transport();
            self.wake_receiver();
        }
    }

    /// Bytes that wait to be written, whosever they are.
    pub(crate) fn queued(&self) -> usize {
        self.link.queued() + self.backlog.as_ref().map_or(0, |backlog| backlog.bytes())
    }

    /// What became of published messages so far.
    pub(crate) fn counts(&self) -> Counts {
        let waiting = self.backlog.as_ref().map_or(0, |backlog| backlog.len() as u64);
        Counts::new(self.sent, waiting, self.losses.as_deref().copied().unwrap_or_default())
    }

    /// Takes note of the session's task.
    pub(crate) fn set_session(&mut self, waker: &Waker) {
        if !self.session.will_wake(waker) {
            self.session.clone_from(waker);
        }
    }

    /// Wakes the session's task.
    pub(crate) fn wake_session(&self) {
        self.session.wake_by_ref();
    }

    /// Takes note of who waits to receive, unless waking the session wakes it anyway.
    pub(crate) fn set_receiver(&mut self, waker: &Waker) {
        let known = self.receiver.as_ref().unwrap_or(&self.session);
        if !known.will_wake(waker) {
            self.receiver = Some(waker.clone());
        }
    }

    /// Wakes the task that waits to receive: there will be nothing more.
    pub(crate) fn wake_receiver(&mut self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    /// Writes what the transport takes; it wakes the session for the rest.
    pub(crate) fn flush(&mut self) {
        loop {
            let flushed = self.link.poll_flush(&mut Context::from_waker(&self.session));
            if self.backlog.is_none() || !self.refill() || flushed.is_pending() {
                break;
            }
        }
        if self.lagging && self.is_idle() {
            self.set_lagging(false);
        }
    }

    /// Whether nothing waits, for the transport or for the end of a message, or ever will again.
    fn is_idle(&self) -> bool {
        let waits = self.backlog.is_some() || self.link.queued() > 0 || self.link.is_mid_message();
        !waits || !self.link.can_send()
    }

    /// Moves published messages into the link while it has little; answers whether it moved any.
    fn refill(&mut self) -> bool {
        if !self.link.can_send() {
            self.discard_backlog();
            return false;
        }
        if self.link.is_mid_message() {
            return false;
        }
        let before = self.link.queued();
        while self.link.queued() < REFILL_TO {
            let Some(message) = self.backlog.as_mut().and_then(|backlog| backlog.pop()) else {
                self.backlog = None;
                break;
            };
            self.send_prepared(&message);
        }
        self.link.queued() > before
    }

    /// Queues all that waits, to stand before a Close frame.
    pub(crate) fn release_backlog(&mut self) {
        if !self.link.can_send() || self.link.is_mid_message() {
            return self.discard_backlog();
        }
        if let Some(mut backlog) = self.backlog.take() {
            while let Some(message) = backlog.pop() {
                self.send_prepared(&message);
            }
        }
        self.set_lagging(false);
    }

    /// Drops all that waits: the connection ends.
    pub(crate) fn discard_backlog(&mut self) {
        if let Some(backlog) = self.backlog.take() {
            backlog.discard(self.losses.get_or_insert_default());
        }
        // Also if what it was late with has been dropped before.
        self.set_lagging(false);
    }

    fn send_prepared(&mut self, message: &PreparedMessage) {
        let before = self.link.queued();
        if before == 0 {
            self.published = 0;
        }
        let sent = self.link.send_prepared(message);
        debug_assert!(sent.is_ok(), "it was looked at before");
        self.published += self.link.queued() - before;
    }

    fn set_lagging(&mut self, lagging: bool) {
        self.lag_changed ^= self.lagging != lagging;
        self.lagging = lagging;
    }

    /// Starts the closing handshake behind what is queued.
    pub(crate) fn close(&mut self, frame: CloseFrame) -> Result<(), SendError> {
        let result = self.link.close(frame);
        self.flush();
        // The session has a deadline to keep now.
        self.session.wake_by_ref();
        result
    }

    /// Moves what has gathered in the cork into the queue.
    pub(crate) fn uncork(&mut self, id: u64) {
        cork::take(id, |queue| self.take_corked(queue));
    }

    /// Queues what was corked. If the connection has begun to close meanwhile, nothing may follow
    /// its Close frame, and the messages go nowhere.
    pub(crate) fn take_corked(&mut self, queue: &mut SendQueue) {
        match self.link.send_corked(queue) {
            Ok(()) => {}
            Err(SendError::MessageUnderWay) => self.held.get_or_insert_default().append(queue),
            Err(_) => queue.clear(),
        }
    }

    fn release_held(&mut self) {
        if let Some(mut queue) = self.held.take() {
            self.take_corked(&mut queue);
            self.flush();
        }
    }

    /// Sends whole frames if there is room for them under `limit`; never waits.
    pub(crate) fn offer(&mut self, id: u64, frames: &Bytes, limit: usize) -> Result<(), Skip> {
        self.uncork(id);
        let queued = self.queued();
        if queued > 0 && queued.saturating_add(frames.len()) > limit {
            return Err(Skip::QueueFull { queued });
        }
        self.link.offer(&mut Context::from_waker(&self.session), frames).map_err(Skip::from)
    }

    /// Sends some of a turn's messages, which are joined in `slice`: what the transport takes at once
    /// goes past all queues, the rest waits within the limit, or is dropped, as the policy says.
    pub(crate) fn deliver(
        &mut self,
        id: u64,
        slice: &Slice,
        messages: Range<usize>,
        published: &[Published],
        terms: &Terms<'_>,
    ) {
        self.uncork(id);
        self.sent += messages.len() as u64;
        if !self.link.can_send() {
            return self.lose(Loss::Closed, messages.len(), terms);
        }
        let mut waiting = messages.clone();
        if self.backlog.is_none() && self.link.may_bypass() {
            let bytes = slice.bytes_of(messages.clone());
            let cx = &mut Context::from_waker(&self.session);
            let Ok(written) = self.link.bypass(cx, bytes) else {
                return self.lose(Loss::Closed, messages.len(), terms);
            };
            if written == bytes.len() {
                return;
            }
            // The message that was begun, or is next, goes on before all else. It is held by itself,
            // not as a part of the slice, so that a turn's bytes do not stay for the sake of one message.
            let (cut, written) = slice.message_at(messages.start, written);
            waiting.start = cut + 1;
            let frame = slice.frame(&published[cut]);
            self.published = frame.len();
            let rest = self.link.send_rest(frame, written);
            debug_assert!(rest.is_ok(), "it was looked at before");
        }
        for place in waiting.clone() {
            if self.hold_back(&published[place], slice, terms).is_err() {
                self.lose(Loss::Closed, waiting.end - place - 1, terms);
                // A gap would go unnoticed.
                return self.disconnect(id, terms);
            }
        }
        // Also so that the transport wakes the session.
        self.flush();
    }

    /// Puts a message behind the others that wait.
    fn hold_back(
        &mut self,
        published: &Published,
        slice: &Slice,
        terms: &Terms<'_>,
    ) -> Result<(), Overflow> {
        let backlog = self.backlog.get_or_insert_default();
        let losses = self.losses.get_or_insert_default();
        let lost: u64 = losses.iter().sum();
        // What is published is limited; a handler's own messages, which it waits for, take none of its room.
        let room = terms.max_queue.saturating_sub(self.link.queued().min(self.published));
        let size = slice.frame(published).len();
        let result = backlog.push(published, size, terms.tally, terms.policy, room, losses);
        let late = losses.iter().sum::<u64>() > lost || backlog.bytes() > room / 2;
        if backlog.is_empty() {
            self.backlog = None;
        }
        if late {
            self.set_lagging(true);
        }
        result
    }

    fn lose(&mut self, loss: Loss, count: usize, terms: &Terms<'_>) {
        terms.tally.lose(loss, count as u64);
        self.losses.get_or_insert_default()[loss as usize] += count as u64;
    }

    fn disconnect(&mut self, id: u64, terms: &Terms<'_>) {
        let SlowConsumer::Disconnect(code) = terms.policy else { return };
        tracing::debug!(connection = id, "disconnecting a member that does not keep up");
        self.discard_backlog();
        let _ = self.close(CloseFrame::new(code, "too slow"));
    }

    pub(crate) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.link.is_full() || !self.link.can_send() {
            return Poll::Ready(());
        }
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// How much of the backlog is in the link at a time, where it cannot be dropped any more: enough for a
/// write to be worth while.
const REFILL_TO: usize = 16 << 10;
