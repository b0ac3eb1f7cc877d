//! [`Topic`]: publish to many. Messages are framed once and gather until the turn ends.
//!
//! Each runtime has a [`Shard`] of a topic: its own members, and the framed bytes of the current
//! turn. Publishing appends to them, whatever the number of members; the hub's flusher then offers the
//! same slice to each. Not its business: when that happens, which is `hub.rs`.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};

use crate::{CloseCode, CloseFrame, Message, Skip, Socket, cork::header, hub::Hub, peer::Peer};

/// All topics of a server, by name. Cloning is cheap.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// let server = ws_serve::Server::bind("127.0.0.1:9001")?;
/// let news = server.topics().get("news");
/// tokio::spawn(async move { news.publish("hot off the press") });
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Topics {
    by_name: Arc<Mutex<HashMap<String, Weak<Inner>>>>,
}

impl Topics {
    /// The topic of this name; made if there is none. It exists as long as it has members or
    /// somebody holds it.
    #[must_use]
    pub fn get(&self, name: &str) -> Topic {
        let mut by_name = lock(&self.by_name);
        if let Some(inner) = by_name.get(name).and_then(Weak::upgrade) {
            return Topic { inner };
        }
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            registry: self.clone(),
            shards: Mutex::default(),
        });
        by_name.insert(name.to_owned(), Arc::downgrade(&inner));
        Topic { inner }
    }

    /// How many topics there are.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.by_name).len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A name that connections join and messages are published to. Cloning is cheap.
///
/// Messages of one publisher reach each member in order. Nothing that was published before a
/// connection joined reaches it, and nothing after it left.
#[derive(Clone)]
pub struct Topic {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    registry: Topics,
    /// One for each runtime that has had members.
    shards: Mutex<Vec<Arc<Shard>>>,
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Adds a connection; see [`Socket::join`].
    pub fn join(&self, socket: &Socket) {
        let peer = socket.peer();
        // What was sent before comes before what is published from now on, on whichever thread.
        peer.with(|core| {
            core.uncork(peer.id);
            core.flush();
        });
        let shard = self.shard(&peer.hub);
        if !shard.add(peer) {
            return;
        }
        let joined = peer.with(|core| match &mut core.topics {
            Some(topics) => {
                topics.push(self.clone());
                true
            }
            None => false,
        });
        // A socket may outlive its session, in another task.
        if !joined {
            shard.remove(peer);
        }
    }

    /// Removes a connection; see [`Socket::leave`].
    pub fn leave(&self, socket: &Socket) {
        let peer = socket.peer();
        self.remove(peer);
        peer.with(|core| {
            if let Some(topics) = &mut core.topics {
                topics.retain(|topic| !Arc::ptr_eq(&topic.inner, &self.inner));
            }
        });
    }

    /// Publishes a message to all members. Never waits, and costs the same for ten members as for
    /// ten thousand: they are served when the current turn of their runtime ends.
    pub fn publish(&self, message: impl Into<Message>) {
        self.append(&message.into(), None);
    }

    /// As [`publish`](Self::publish), to everybody but this connection.
    pub fn publish_except(&self, socket: &Socket, message: impl Into<Message>) {
        self.append(&message.into(), Some(socket.id()));
    }

    /// How many connections are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.inner.shards).iter().map(|shard| lock(&shard.state).members.len()).sum()
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes a connection whose list of topics is being taken care of.
    pub(crate) fn remove(&self, peer: &Peer) {
        let shard = lock(&self.inner.shards).iter().find(|shard| shard.is_of(&peer.hub)).cloned();
        if let Some(shard) = shard {
            shard.remove(peer);
        }
    }

    fn append(&self, message: &Message, except: Option<u64>) {
        for shard in &*lock(&self.inner.shards) {
            shard.append(message, except);
        }
    }

    fn shard(&self, hub: &Arc<Hub>) -> Arc<Shard> {
        let mut shards = lock(&self.inner.shards);
        if let Some(shard) = shards.iter().find(|shard| shard.is_of(hub)) {
            return Arc::clone(shard);
        }
        let (max_queue, hub) = (hub.max_queue(), Arc::downgrade(hub));
        let shard = Arc::new(Shard { hub, max_queue, state: Mutex::default() });
        shards.push(Arc::clone(&shard));
        shard
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut by_name = lock(&self.registry.by_name);
        // Somebody may have made a new one of this name meanwhile.
        if by_name.get(&self.name).is_some_and(|topic| topic.strong_count() == 0) {
            by_name.remove(&self.name);
        }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.name()).field("members", &self.len()).finish()
    }
}

/// The part of a topic that lives on one runtime.
pub(crate) struct Shard {
    /// Weak, because the hub's connections hold topics.
    hub: Weak<Hub>,
    max_queue: usize,
    state: Mutex<ShardState>,
}

#[derive(Default)]
struct ShardState {
    /// Shared with the flush under way, so that joining and leaving need not wait for it.
    members: Arc<Vec<Arc<Member>>>,
    /// Where in `members` each connection is.
    places: HashMap<u64, usize>,
    /// The framed messages of this turn.
    log: BytesMut,
    /// Where the log is cut, between messages, so that no piece of several is over the queue's limit.
    cuts: Vec<usize>,
    /// Which parts of the log a connection must not get.
    exceptions: Vec<(u64, Range<usize>)>,
    /// Counts the flushes, to tell in which turn a member joined.
    turn: u64,
    dirty: bool,
    /// Flushes under way, of former turns.
    flushing: usize,
}

struct Member {
    peer: Arc<Peer>,
    /// Cleared, under the connection's lock, when it leaves.
    active: AtomicBool,
    /// The turn in which it joined, and how much of that turn's log was there already.
    joined: (u64, usize),
}

impl Shard {
    fn is_of(&self, hub: &Arc<Hub>) -> bool {
        std::ptr::eq(self.hub.as_ptr(), Arc::as_ptr(hub))
    }

    /// Adds a member; answers whether it was none before.
    fn add(&self, peer: &Arc<Peer>) -> bool {
        let mut state = lock(&self.state);
        if state.places.contains_key(&peer.id) {
            return false;
        }
        let joined = (state.turn, state.log.len());
        let member = Member { peer: Arc::clone(peer), active: AtomicBool::new(true), joined };
        let place = state.members.len();
        state.places.insert(peer.id, place);
        Arc::make_mut(&mut state.members).push(Arc::new(member));
        true
    }

    fn remove(&self, peer: &Peer) {
        let (removed, last) = {
            let mut state = lock(&self.state);
            let Some(place) = state.places.remove(&peer.id) else { return };
            // What was published before it left is still for it; unless it has not been served the
            // turn before, because a gap would be worse than an early end.
            let last = (state.dirty && state.flushing == 0).then(|| Flush {
                shard: None,
                bytes: Bytes::copy_from_slice(&state.log),
                cuts: state.cuts.clone(),
                exceptions: state.exceptions.clone(),
                members: Arc::default(),
                turn: state.turn,
                next: 0,
            });
            let member = Arc::make_mut(&mut state.members).swap_remove(place);
            if let Some(moved) = state.members.get(place).map(|member| member.peer.id) {
                state.places.insert(moved, place);
            }
            (member, last)
        };
        if let Some(last) = last {
            last.serve(&removed, self.max_queue);
        }
        // A flush under way has a list of its own; the connection's lock orders us with it.
        peer.with(|_| removed.active.store(false, Ordering::Relaxed));
    }

    fn append(self: &Arc<Self>, message: &Message, except: Option<u64>) {
        let mut state = lock(&self.state);
        if state.members.is_empty() {
            return;
        }
        let start = state.log.len();
        let header = header(message).encode();
        let piece = start - state.cuts.last().copied().unwrap_or_default();
        if piece > 0 && piece + header.len() + message.len() > self.max_queue {
            state.cuts.push(start);
        }
        state.log.reserve(header.len() + message.len());
        state.log.extend_from_slice(&header);
        state.log.extend_from_slice(message.as_bytes());
        if let Some(id) = except {
            let end = state.log.len();
            state.exceptions.push((id, start..end));
        }
        if !std::mem::replace(&mut state.dirty, true) {
            drop(state);
            if let Some(hub) = self.hub.upgrade() {
                hub.mark_dirty(Arc::clone(self));
            }
        }
    }

    /// Ends the turn: takes what was published and to whom it goes.
    pub(crate) fn take(self: &Arc<Self>) -> Flush {
        let mut state = lock(&self.state);
        state.flushing += 1;
        let turn = state.turn;
        state.turn += 1;
        state.dirty = false;
        Flush {
            shard: Some(Arc::clone(self)),
            bytes: state.log.split().freeze(),
            cuts: std::mem::take(&mut state.cuts),
            exceptions: std::mem::take(&mut state.exceptions),
            members: Arc::clone(&state.members),
            turn,
            next: 0,
        }
    }
}

/// The messages of a turn on their way to the members.
pub(crate) struct Flush {
    /// To tell when it is over.
    shard: Option<Arc<Shard>>,
    bytes: Bytes,
    cuts: Vec<usize>,
    exceptions: Vec<(u64, Range<usize>)>,
    members: Arc<Vec<Arc<Member>>>,
    turn: u64,
    next: usize,
}

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(shard) = &self.shard {
            lock(&shard.state).flushing -= 1;
        }
    }
}

impl Flush {
    /// Serves members until all are served or the budget is used up.
    pub(crate) fn run(&mut self, budget: &mut usize, max_queue: usize) {
        while let Some(member) = self.members.get(self.next) {
            if *budget == 0 {
                return;
            }
            *budget -= 1;
            self.next += 1;
            self.serve(member, max_queue);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.next >= self.members.len()
    }

    fn serve(&self, member: &Member, max_queue: usize) {
        let (turn, log) = member.joined;
        // Nothing that was published before it joined.
        let mut from = if turn == self.turn { log } else { 0 };
        let id = member.peer.id;
        let lagging = member.peer.with(|core| {
            // Without the member's own messages, if it does not want them; in pieces, if there is much.
            let own = self.exceptions.iter().filter(|(except, _)| *except == id);
            let mut stops: Vec<_> = own.map(|(_, range)| range.clone()).collect();
            stops.extend(self.cuts.iter().map(|cut| *cut..*cut));
            stops.sort_by_key(|stop| stop.start);
            let end = self.bytes.len();
            for stop in stops.into_iter().chain(std::iter::once(end..end)) {
                if !member.active.load(Ordering::Relaxed) {
                    return false;
                }
                if from < stop.start {
                    let result = if from == 0 && stop.start == end {
                        core.offer(id, &self.bytes, max_queue)
                    } else {
                        core.offer(id, &self.bytes.slice(from..stop.start), max_queue)
                    };
                    if let Err(Skip::QueueFull { .. }) = result {
                        return true;
                    }
                }
                from = from.max(stop.end);
            }
            false
        });
        if lagging {
            // A gap would go unnoticed; a client that reconnects gets a fresh start.
            tracing::debug!(connection = id, "disconnecting a member that does not keep up");
            let frame = CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "too slow");
            let _ = member.peer.close(frame);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
