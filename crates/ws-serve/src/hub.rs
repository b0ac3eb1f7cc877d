//! [`Hub`]: what the connections of one runtime share: the flusher, and the list of connections.
//!
//! Not its business: what topics hold, which is `topic.rs`.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    task::Poll,
};

use atomic_waker::AtomicWaker;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    Lag, Topics, clock::Clock, peer::Peer, settings::Settings, shard::Shard, stats::Counters,
    turn::Turn,
};

type Serving = (Arc<Shard>, Turn);

/// One per runtime: a worker's, or the user's own.
pub(crate) struct Hub {
    settings: Arc<Settings>,
    pub(crate) counters: Counters,
    /// Advanced by a task of its own; see [`Clock`].
    pub(crate) clock: Clock,
    flusher: AtomicWaker,
    /// Shards in which something was published since they were last flushed.
    dirty: Mutex<VecDeque<Arc<Shard>>>,
    /// The turn that is being served; its lock keeps turns in order.
    under_way: Mutex<Option<Serving>>,
    /// Cancelled when nobody is accepted any more.
    pub(crate) over: CancellationToken,
    /// Places for clients that are told why there is none.
    pub(crate) refusals: Arc<Semaphore>,
    /// Cancelled when serving has ended: nothing may begin any more.
    pub(crate) ended: CancellationToken,
    peers: Mutex<HashMap<u64, Arc<Peer>>>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("connections", &self.len()).finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(settings: &Arc<Settings>) -> Self {
        Self {
            settings: Arc::clone(settings),
            counters: Counters::default(),
            clock: Clock::default(),
            flusher: AtomicWaker::new(),
            dirty: Mutex::default(),
            under_way: Mutex::default(),
            over: CancellationToken::new(),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            ended: CancellationToken::new(),
            peers: Mutex::default(),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn topics(&self) -> &Topics {
        &self.settings.topics
    }

    /// Lets the application know. A panic there is its own: it must not end the flusher.
    pub(crate) fn handle_lag(&self, lag: Lag) {
        match lag.lagging {
            true => self.counters.lag_began.add(1),
            false => self.counters.lag_ended.add(1),
        }
        if let Some(on_lag) = &self.settings.on_lag {
            let _ = catch_unwind(AssertUnwindSafe(|| on_lag(lag)));
        }
    }

    /// Takes note that a shard wants to be flushed at the end of this turn.
    pub(crate) fn mark_dirty(&self, shard: Arc<Shard>) {
        lock(&self.dirty).push_back(shard);
        self.flusher.wake();
    }

    pub(crate) fn add(&self, peer: &Arc<Peer>) {
        self.counters.opened.add(1);
        lock(&self.peers).insert(peer.id, Arc::clone(peer));
    }

    pub(crate) fn remove(&self, peer: &Peer) {
        let removed = lock(&self.peers).remove(&peer.id).is_some();
        if removed {
            let (counts, code) = peer.with(|outbox| (outbox.counts(), outbox.link.closed().code()));
            self.counters.handle_end(counts, code);
        }
    }

    /// Serves all that was published.
    pub(crate) fn flush_all(&self) {
        self.flush(&mut { usize::MAX });
    }

    /// Ends all connections without ceremony.
    pub(crate) fn abort_all(&self) {
        self.ended.cancel();
        self.peers().iter().for_each(|peer| peer.abort());
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.peers).len()
    }

    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        lock(&self.peers).values().cloned().collect()
    }

    /// The flusher: once per turn of the runtime, after the tasks that were ready, offers what was
    /// published to all members. Runs until it is dropped.
    ///
    /// Run it unconstrained: its writes are many by design, and it lets others in by itself.
    pub(crate) async fn flush_forever(&self) {
        poll_fn(|cx| {
            self.flusher.register(cx.waker());
            let mut budget = WRITES_PER_TURN;
            self.flush(&mut budget);
            if budget == 0 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// Serves what was published at once, unless that is under way already.
    pub(crate) fn flush_now(&self) {
        let under_way = match self.under_way.try_lock() {
            Ok(under_way) => under_way,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Perhaps by ourselves: publishing is allowed in a callback of the serving.
            Err(TryLockError::WouldBlock) => return,
        };
        self.serve(under_way, &mut { usize::MAX });
    }

    /// Serves what was published, turn by turn, until there is nothing left or the budget is used up.
    fn flush(&self, budget: &mut usize) {
        self.serve(lock(&self.under_way), budget);
    }

    fn serve(&self, mut under_way: MutexGuard<'_, Option<Serving>>, budget: &mut usize) {
        while *budget > 0 {
            let (shard, turn) = match &mut *under_way {
                Some(serving) => serving,
                None => match lock(&self.dirty).pop_front() {
                    Some(shard) => {
                        let turn = shard.take();
                        under_way.insert((shard, turn))
                    }
                    None => return,
                },
            };
            turn.run(budget);
            if turn.is_done() {
                shard.handle_served();
                *under_way = None;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// After so many deliveries the runtime's other tasks get a turn: about a millisecond of writes.
const WRITES_PER_TURN: usize = 256;

/// Chosen: a client that reads is done within a second, and one that does not within the open timeout of
/// the default configuration; beyond that many a flood gets nothing but its end.
const MAX_REFUSALS: usize = 1000;
