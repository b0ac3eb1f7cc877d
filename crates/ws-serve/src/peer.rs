//! [`Peer`]: a connection as everybody but its handler sees it: something to send to.
//!
//! Not its business: receiving, which is the socket's, and deciding who gets what.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::Bytes;

use crate::{
    CloseFrame, Connection, Counts, Lag, Outgoing, PeerAddress, Sender, Skip, Text,
    conn::{
        Access, Link, Received,
        proto::{AgreedDeflate, Event, Incoming, SendError},
    },
    cork,
    destination::Destination,
    hub::Hub,
    outbox::Outbox,
    transport::Transport,
};

/// What the session, its socket, its senders and the topics share.
pub(crate) struct Peer {
    /// Unique in this process, never 0.
    pub(crate) id: u64,
    pub(crate) address: PeerAddress,
    /// The request's head; parsed on demand, because most handlers never look.
    pub(crate) head: Box<[u8]>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) deflate: Option<AgreedDeflate>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) destination: Arc<Destination>,
    /// When it was opened, and when a message last came, in ticks of the hub's clock.
    pub(crate) born: u32,
    heard: AtomicU32,
    opened: Instant,
    /// Whether messages may be sent right now, for a look without the lock.
    sendable: AtomicBool,
    /// Whether the handler waits for a message, and the transport had none: set and cleared by the
    /// future that waits.
    pub(crate) receiving: AtomicBool,
    /// The connection was ended from outside; its handler is not asked any more.
    aborted: AtomicBool,
    outbox: Mutex<Outbox>,
}

/// How far the sending of a message has come.
pub(crate) enum Sending {
    /// It will leave with the others of this poll.
    Accepted,
    /// It is accepted, and so much is waiting to leave that the next one should wait.
    Crowded,
    /// Not yet. Boxed, because it is rare: futures need not have room for it.
    Waiting(Box<Outgoing>),
}

/// Who is at the other end, and what was agreed on.
pub(crate) struct Identity {
    pub(crate) address: PeerAddress,
    pub(crate) head: Box<[u8]>,
    pub(crate) subprotocol: Option<Text>,
    pub(crate) deflate: Option<AgreedDeflate>,
}

impl Peer {
    pub(crate) fn new(
        link: Link<Transport>,
        identity: Identity,
        destination: Arc<Destination>,
        hub: Arc<Hub>,
    ) -> Self {
        let now = hub.clock.now();
        let Identity { address, head, subprotocol, deflate } = identity;
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address,
            head,
            subprotocol: subprotocol.map(|name| name.as_str().into()),
            deflate,
            hub,
            destination,
            born: now,
            heard: AtomicU32::new(now),
            opened: Instant::now(),
            sendable: AtomicBool::new(true),
            receiving: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            outbox: Mutex::new(Outbox::new(link)),
        }
    }

    /// Calls `f` with the outbox, and takes note of what that changed.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Outbox) -> R) -> R {
        let mut outbox = self.lock();
        let result = f(&mut outbox);
        let written = outbox.link.take_written();
        if written > 0 {
            self.hub.counters.bytes_sent.add(written);
        }
        self.sendable.store(outbox.settle(), Ordering::Relaxed);
        if outbox.has_news() {
            self.tell(outbox);
        }
        result
    }

    /// Wakes who waits for room, and calls the application back; both without the lock.
    #[cold]
    fn tell(&self, mut outbox: MutexGuard<'_, Outbox>) {
        let waiting = outbox.take_waiting();
        let mut lag = self.take_lag(&mut outbox);
        drop(outbox);
        waiting.into_iter().for_each(Waker::wake);
        // What changes meanwhile, on another thread or by the callback, is told by us when it returns.
        while let Some(change) = lag {
            self.hub.handle_lag(change);
            let mut outbox = self.lock();
            outbox.handle_told();
            lag = self.take_lag(&mut outbox);
        }
    }

    fn take_lag(&self, outbox: &mut Outbox) -> Option<Lag> {
        outbox.take_lag().map(|lagging| Lag {
            connection: self.id,
            peer_addr: self.address,
            lagging,
            queued: outbox.queued(),
            counts: outbox.counts(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to send a message. In the session's own task it goes into the cork, without the lock.
    #[inline]
    pub(crate) fn send(&self, message: Outgoing) -> Sending {
        if self.sendable.load(Ordering::Relaxed) {
            let Outgoing { message: own, compression } = &message;
            if self.deflate.is_some_and(|agreed| agreed.send.takeover) {
                return self.send_with_context(message);
            }
            let agreed = self.deflate.as_ref();
            if let Some(gathered) = cork::push(self.id, own, *compression, agreed) {
                return if gathered < CORK_LIMIT { Sending::Accepted } else { Sending::Crowded };
            }
        }
        Sending::Waiting(Box::new(message))
    }

    /// As [`send`](Self::send), compressed with what the connection remembers: under its lock, so that
    /// messages leave in the order in which they were compressed.
    fn send_with_context(&self, message: Outgoing) -> Sending {
        if !cork::is_in(self.id) {
            return Sending::Waiting(Box::new(message));
        }
        self.with(|outbox| {
            let link = &mut outbox.link;
            if !link.can_send() || link.is_mid_message() || link.queued() >= CORK_LIMIT {
                return Sending::Waiting(Box::new(message));
            }
            let sent = link.send(message);
            debug_assert!(sent.is_ok(), "it was looked at before");
            self.hub.counters.messages_sent.add(1);
            Sending::Accepted
        })
    }

    /// Goes on sending, or says that it must wait for room.
    #[inline]
    pub(crate) fn poll_send(
        &self,
        cx: &Context<'_>,
        sending: &mut Sending,
    ) -> Poll<Result<(), SendError>> {
        match sending {
            Sending::Accepted => Poll::Ready(Ok(())),
            Sending::Crowded | Sending::Waiting(_) => self.poll_send_uncorked(cx, sending),
        }
    }

    /// As [`poll_send`](Self::poll_send), behind what is in the cork.
    #[cold]
    fn poll_send_uncorked(
        &self,
        cx: &Context<'_>,
        sending: &mut Sending,
    ) -> Poll<Result<(), SendError>> {
        self.with(|outbox| {
            outbox.uncork(self.id);
            if matches!(sending, Sending::Waiting(_)) {
                ready!(outbox.poll_room(cx));
            }
            if let Sending::Waiting(message) = std::mem::replace(sending, Sending::Crowded) {
                outbox.link.send(*message)?;
                self.hub.counters.messages_sent.add(1);
            }
            // The message is accepted; what the transport does not take now, the session writes later.
            outbox.flush();
            if !outbox.link.can_send() {
                return Poll::Ready(Ok(()));
            }
            outbox.poll_room(cx).map(Ok)
        })
    }

    /// Sends whole frames if there is room for them under `limit`; never waits.
    pub(crate) fn try_send_frames(&self, frames: &Bytes, limit: usize) -> Result<(), Skip> {
        self.with(|outbox| outbox.offer(self.id, frames, limit))?;
        self.hub.counters.messages_sent.add(1);
        Ok(())
    }

    /// Starts the closing handshake behind what was sent before.
    pub(crate) fn close(&self, frame: CloseFrame) -> Result<(), SendError> {
        self.with(|outbox| {
            outbox.uncork(self.id);
            outbox.release_backlog();
            outbox.close(frame)
        })
    }

    /// Ends the connection without ceremony.
    pub(crate) fn abort(&self) {
        self.with(|outbox| {
            self.aborted.store(true, Ordering::Relaxed);
            outbox.link.drop_transport();
            outbox.wake_session();
            outbox.wake_receiver();
        });
    }

    /// Hands a control frame or a violation over, behind what is in the cork.
    pub(crate) fn handle(&self, incoming: Incoming) -> Option<Event> {
        self.with(|outbox| {
            outbox.uncork(self.id);
            let event = outbox.link.handle(incoming);
            // A socket in another task than its session's has nobody to flush the answer for it.
            if !cork::is_in(self.id) {
                outbox.flush();
                outbox.wake_session();
            }
            event
        })
    }

    /// Takes note of what arrived.
    pub(crate) fn handle_received(&self, received: Received) {
        if received.messages > 0 {
            self.heard.store(self.hub.clock.now(), Ordering::Relaxed);
            self.hub.counters.messages_received.add(received.messages);
        }
        self.hub.counters.bytes_received.add(received.bytes);
    }

    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// Whether the handler waits for a message, and there is none.
    pub(crate) fn is_receiving(&self) -> bool {
        self.receiving.load(Ordering::Relaxed)
    }

    /// When a message last came, in ticks of the hub's clock.
    pub(crate) fn last_heard(&self) -> u32 {
        self.heard.load(Ordering::Relaxed)
    }

    /// What was asked for, without the query.
    pub(crate) fn path(&self) -> String {
        let target = self.head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        String::from_utf8_lossy(path).into_owned()
    }

    /// For a list of connections.
    pub(crate) fn describe(self: &Arc<Self>) -> Connection {
        let (queued, counts) = self.with(|outbox| (outbox.queued(), outbox.counts()));
        Connection {
            sender: Sender::new(Arc::clone(self)),
            peer_addr: self.address,
            path: self.path(),
            route: (*self.destination.pattern).to_owned(),
            age: self.opened.elapsed(),
            queued,
            counts,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.with(|outbox| outbox.counts())
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Whether messages may be sent, waiting or not.
    pub(crate) fn is_open(&self) -> bool {
        self.sendable.load(Ordering::Relaxed) || self.with(|outbox| outbox.link.can_send())
    }
}

impl Access<Transport> for &Peer {
    fn with<R>(&mut self, f: impl FnOnce(&mut Link<Transport>) -> R) -> R {
        Peer::with(self, |outbox| f(&mut outbox.link))
    }

    fn handle(&mut self, incoming: Incoming) -> Option<Event> {
        Peer::handle(self, incoming)
    }
}

impl fmt::Debug for Peer {
    /// Without what it refers to, which refers back to it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A handler that answers without a pause writes after this much, which is what fits the usual
/// socket buffer and stays in the second-level cache.
const CORK_LIMIT: usize = 64 << 10;
