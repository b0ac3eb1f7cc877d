//! [`Peer`]: a connection as everybody but its handler sees it: something to send to.
//!
//! Not its business: receiving, which is the socket's, and deciding who gets what.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::{
    CloseFrame, Outgoing, Skip, Text,
    conn::{
        Access, Intake, Link,
        proto::{AgreedDeflate, Event, Incoming, SendError, SendQueue},
    },
    cork,
    hub::Hub,
    topic::Topic,
};

/// What the session, its socket, its senders and the topics share.
pub(crate) struct Peer {
    /// Unique in this process, never 0.
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    /// The request's head; parsed on demand, because most handlers never look.
    pub(crate) head: Box<[u8]>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) deflate: Option<AgreedDeflate>,
    pub(crate) hub: Arc<Hub>,
    /// Whether messages may be sent right now, for a look without the lock.
    sendable: AtomicBool,
    /// Whether the handler waits for a message, and the transport had none: set and cleared by the
    /// future that waits.
    pub(crate) receiving: AtomicBool,
    /// The connection was ended from outside; its handler is not asked any more.
    aborted: AtomicBool,
    core: Mutex<Core>,
}

/// What is behind the lock.
pub(crate) struct Core {
    pub(crate) link: Link<TcpStream>,
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

impl Peer {
    pub(crate) fn new(
        link: Link<TcpStream>,
        address: SocketAddr,
        head: &[u8],
        subprotocol: Option<Text>,
        deflate: Option<AgreedDeflate>,
        hub: Arc<Hub>,
    ) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            address,
            head: head.into(),
            subprotocol: subprotocol.map(|name| name.as_str().into()),
            deflate,
            hub,
            sendable: AtomicBool::new(true),
            receiving: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            core: Mutex::new(Core {
                link,
                session: Waker::noop().clone(),
                waiting: Vec::new(),
                held: None,
                receiver: None,
                intake: None,
                topics: Some(Vec::new()),
            }),
        }
    }

    /// Calls `f` with the core, and takes note of what that changed.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.lock();
        let result = f(&mut core);
        if core.held.is_some() && !core.link.is_mid_message() {
            core.release_held();
        }
        let link = &core.link;
        let sendable = link.can_send() && !link.is_mid_message() && !link.is_full();
        self.sendable.store(sendable, Ordering::Relaxed);
        if !core.waiting.is_empty() && (!link.is_full() || !link.can_send()) {
            let waiting = std::mem::take(&mut core.waiting);
            drop(core);
            waiting.into_iter().for_each(Waker::wake);
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.with(|core| {
            let link = &mut core.link;
            if !link.can_send() || link.is_mid_message() || link.queued() >= CORK_LIMIT {
                return Sending::Waiting(Box::new(message));
            }
            let sent = link.send(message);
            debug_assert!(sent.is_ok(), "it was looked at before");
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
        self.with(|core| {
            core.uncork(self.id);
            if matches!(sending, Sending::Waiting(_)) {
                ready!(core.poll_room(cx));
            }
            if let Sending::Waiting(message) = std::mem::replace(sending, Sending::Crowded) {
                core.link.send(*message)?;
            }
            // The message is accepted; what the transport does not take now, the session writes later.
            core.flush();
            if !core.link.can_send() {
                return Poll::Ready(Ok(()));
            }
            core.poll_room(cx).map(Ok)
        })
    }

    /// Sends whole frames if there is room for them under `limit`; never waits.
    pub(crate) fn try_send_frames(&self, frames: &Bytes, limit: usize) -> Result<(), Skip> {
        self.with(|core| core.offer(self.id, frames, limit))
    }

    /// Starts the closing handshake behind what was sent before.
    pub(crate) fn close(&self, frame: CloseFrame) -> Result<(), SendError> {
        self.with(|core| {
            core.uncork(self.id);
            let result = core.link.close(frame);
            core.flush();
            // The session has a deadline to keep now.
            core.session.wake_by_ref();
            result
        })
    }

    /// Ends the connection without ceremony.
    pub(crate) fn abort(&self) {
        self.with(|core| {
            self.aborted.store(true, Ordering::Relaxed);
            core.link.drop_transport();
            core.session.wake_by_ref();
            core.wake_receiver();
        });
    }

    /// Hands a control frame or a violation over, behind what is in the cork.
    pub(crate) fn handle(&self, incoming: Incoming) -> Option<Event> {
        self.with(|core| {
            core.uncork(self.id);
            let event = core.link.handle(incoming);
            // A socket in another task than its session's has nobody to flush the answer for it.
            if !cork::is_in(self.id) {
                core.flush();
                core.wake_session();
            }
            event
        })
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Whether messages may be sent, waiting or not.
    pub(crate) fn is_open(&self) -> bool {
        self.sendable.load(Ordering::Relaxed) || self.with(|core| core.link.can_send())
    }
}

impl Core {
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
        let _ = self.link.poll_flush(&mut Context::from_waker(&self.session));
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

    /// See [`Peer::try_send_frames`].
    pub(crate) fn offer(&mut self, id: u64, frames: &Bytes, limit: usize) -> Result<(), Skip> {
        self.uncork(id);
        let queued = self.link.queued();
        if queued > 0 && queued.saturating_add(frames.len()) > limit {
            return Err(Skip::QueueFull { queued });
        }
        self.link.offer(&mut Context::from_waker(&self.session), frames).map_err(Skip::from)
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

impl Access<TcpStream> for &Peer {
    fn with<R>(&mut self, f: impl FnOnce(&mut Link<TcpStream>) -> R) -> R {
        Peer::with(self, |core| f(&mut core.link))
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
