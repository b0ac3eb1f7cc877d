//! [`Shard`]: the part of a topic that lives on one runtime: its members, and the current turn's messages.
//!
//! Publishing appends to the messages, whatever the number of members. Not its business: how a turn
//! gets to the members, which is `turn.rs`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{PreparedMessage, SlowConsumer, counts::Tally, hub::Hub, peer::Peer, turn::Turn};

/// The part of a topic that lives on one runtime.
pub(crate) struct Shard {
    /// Weak, because the hub's connections hold topics.
    hub: Weak<Hub>,
    /// The whole topic's.
    tally: Arc<Tally>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Shared with the turn that is being served, so that joining and leaving need not wait for it.
    members: Arc<Vec<Arc<Member>>>,
    /// Where in `members` each connection is.
    places: HashMap<u64, usize>,
    /// What was published in this turn.
    messages: Vec<Published>,
    /// How many bytes that are.
    bytes: usize,
    /// Which of the messages a connection must not get.
    exceptions: Vec<(u64, usize)>,
    /// The topic's own policy, if it has one.
    policy: Option<SlowConsumer>,
    /// Counts the turns, to tell in which one a member joined.
    number: u64,
    /// Former turns that are being served.
    serving: usize,
}

/// A message that was published, and what it is about.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) message: PreparedMessage,
    pub(crate) key: Option<Key>,
}

/// Of messages with the same key, only the last one counts.
pub(crate) type Key = Arc<str>;

/// A connection in a topic.
pub(crate) struct Member {
    pub(crate) peer: Arc<Peer>,
    /// Cleared, under the connection's lock, when it leaves.
    pub(crate) active: AtomicBool,
    /// The turn in which it joined, and how many of that turn's messages were there already.
    pub(crate) joined: (u64, usize),
}

impl Shard {
    pub(crate) fn new(hub: &Arc<Hub>, tally: Arc<Tally>, policy: Option<SlowConsumer>) -> Self {
        let state = State { policy, ..State::default() };
        Self { hub: Arc::downgrade(hub), tally, state: Mutex::new(state) }
    }

    pub(crate) fn is_of(&self, hub: &Arc<Hub>) -> bool {
        std::ptr::eq(self.hub.as_ptr(), Arc::as_ptr(hub))
    }

    pub(crate) fn len(&self) -> usize {
        self.state().members.len()
    }

    /// Adds a member; answers whether it was none before.
    pub(crate) fn add(&self, peer: &Arc<Peer>) -> bool {
        let mut state = self.state();
        if state.places.contains_key(&peer.id) {
            return false;
        }
        let joined = (state.number, state.messages.len());
        let member = Member { peer: Arc::clone(peer), active: AtomicBool::new(true), joined };
        let place = state.members.len();
        state.places.insert(peer.id, place);
        Arc::make_mut(&mut state.members).push(Arc::new(member));
        true
    }

    pub(crate) fn remove(&self, peer: &Peer) {
        let (removed, last) = {
            let mut state = self.state();
            let Some(place) = state.places.remove(&peer.id) else { return };
            // What was published before it left is still for it; unless it may not have been served
            // the turn before, because a gap would be worse than an early end.
            let new = state.members.get(place).is_some_and(|m| m.joined.0 == state.number);
            let last = (!state.messages.is_empty() && (state.serving == 0 || new)).then(|| {
                let (messages, exceptions) = (state.messages.clone(), state.exceptions.clone());
                self.turn(&state, messages, exceptions, Arc::default())
            });
            let member = Arc::make_mut(&mut state.members).swap_remove(place);
            if let Some(moved) = state.members.get(place).map(|member| member.peer.id) {
                state.places.insert(moved, place);
            }
            (member, last)
        };
        if let Some(mut last) = last {
            last.serve(&removed);
        }
        // A turn that is being served has a list of its own; the connection's lock orders us with it.
        peer.with(|_| removed.active.store(false, Ordering::Relaxed));
    }

    pub(crate) fn set_policy(&self, policy: SlowConsumer) {
        self.state().policy = Some(policy);
    }

    /// Adds a message to the turn. Answers with the hub if so much was published that it should [flush
    /// now](Hub::flush_now), when no lock is held.
    pub(crate) fn append(
        self: &Arc<Self>,
        published: &Published,
        except: Option<u64>,
    ) -> Option<Arc<Hub>> {
        let mut state = self.state();
        if state.members.is_empty() {
            return None;
        }
        let index = state.messages.len();
        state.bytes += published.message.as_frame().len() + size_of::<Published>();
        let much = state.bytes > MAX_TURN;
        state.messages.push(published.clone());
        state.exceptions.extend(except.map(|id| (id, index)));
        drop(state);
        if index > 0 && !much {
            return None;
        }
        let hub = self.hub.upgrade()?;
        if index == 0 {
            hub.mark_dirty(Arc::clone(self));
        }
        much.then_some(hub)
    }

    /// Ends the turn: takes what was published and to whom it goes. [`Self::handle_served`] follows.
    pub(crate) fn take(&self) -> Turn {
        let mut state = self.state();
        state.serving += 1;
        state.bytes = 0;
        let messages = std::mem::take(&mut state.messages);
        let exceptions = std::mem::take(&mut state.exceptions);
        let turn = self.turn(&state, messages, exceptions, Arc::clone(&state.members));
        state.number += 1;
        turn
    }

    fn turn(
        &self,
        state: &State,
        messages: Vec<Published>,
        exceptions: Vec<(u64, usize)>,
        members: Arc<Vec<Arc<Member>>>,
    ) -> Turn {
        let tally = Arc::clone(&self.tally);
        Turn::new(state.number, messages, exceptions, members, tally, state.policy)
    }

    /// Takes note that a turn has been served.
    pub(crate) fn handle_served(&self) {
        self.state().serving -= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn with more bytes than this is served by who publishes, without waiting for the flusher: so that
/// publishing in a loop takes no memory without end. As a member's queue by default.
const MAX_TURN: usize = 1 << 20;
