//! [`Monitor`]: a server's numbers, and who is connected, for admin pages and metrics.
//!
//! Not its business: how they are shown.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Counts, Gate, PeerAddress, Sender, hub::Hub};

/// Watches a server, from anywhere. Cloning is cheap.
///
/// ```no_run
/// use ws_serve::{Page, Server};
///
/// # async fn handler(_: ws_serve::Socket) {}
/// # fn example() -> std::io::Result<()> {
/// let server = Server::bind("127.0.0.1:9001")?;
/// let monitor = server.monitor();
/// let server = server.page_with("/stats", move |_| Page::text(format!("{:#?}\n", monitor.stats())));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gate: Arc<Gate>,
    hubs: Mutex<Vec<Weak<Hub>>>,
    started: Instant,
}

/// What a server has done so far. Numbers of different threads are of slightly different moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that are there, with those whose handshake is under way.
    pub connections: u64,
    /// IPv4 addresses, and IPv6 networks of /64, that have a connection.
    pub addresses: u64,
    /// Connections that were refused for a limit.
    pub refused: u64,
    /// WebSockets that are open.
    pub open: u64,
    /// WebSockets that were opened.
    pub opened: u64,
    /// Requests that became no WebSocket, and were answered with plain HTTP or not at all.
    pub not_opened: u64,
    /// Handlers that failed or panicked.
    pub handlers_failed: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Bytes received, without handshakes.
    pub bytes_received: u64,
    /// Messages that handlers sent. Published ones are in `published`.
    pub messages_sent: u64,
    /// Bytes sent, without handshakes.
    pub bytes_sent: u64,
    /// What became of published messages, over all connections that have been.
    pub published: Counts,
    /// Connections that lag behind what is published.
    pub lagging: u64,
    /// Bytes that wait to be written, over all connections.
    pub queued_bytes: u64,
}

/// A connection, as of a moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// Who it is, and what can be sent to it; [`close`](Sender::close), for example.
    pub sender: Sender,
    /// Where the other end is.
    pub peer_addr: PeerAddress,
    /// The path that was asked for, without the query.
    pub path: String,
    /// The pattern of the route that it matched; `*` for the fallback.
    pub route: String,
    /// How long it has been open.
    pub age: Duration,
    /// Bytes that wait to be written to it.
    pub queued: usize,
    /// What became of the messages that were published to its topics.
    pub counts: Counts,
}

impl Monitor {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self { shared: Arc::new(Shared { gate, hubs: Mutex::default(), started: Instant::now() }) }
    }

    /// The server's numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let gate = self.shared.gate.stats();
        let mut stats = Stats {
            connections: gate.connections as u64,
            addresses: gate.addresses as u64,
            refused: gate.refused,
            ..Stats::default()
        };
        for hub in self.hubs() {
            hub.counters.add_to(&mut stats);
            stats.open += hub.len() as u64;
            for peer in hub.peers() {
                let (queued, counts) = peer.with(|outbox| (outbox.queued(), outbox.counts()));
                stats.published += counts;
                stats.queued_bytes += queued as u64;
            }
        }
        stats
    }

    /// All open connections. Takes the lock of each for a moment.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.hubs().iter().flat_map(|hub| hub.peers()).map(|peer| peer.describe()).collect()
    }

    /// How many WebSockets ended with which close code; those without one with 1006.
    #[must_use]
    pub fn close_codes(&self) -> BTreeMap<u16, u64> {
        let mut codes = BTreeMap::new();
        for hub in self.hubs() {
            for (code, count) in &*lock(&hub.counters.close_codes) {
                *codes.entry(*code).or_default() += count;
            }
        }
        codes
    }

    /// How long ago the server was made.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.shared.started.elapsed()
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.shared.gate
    }

    pub(crate) fn watch(&self, hub: &Arc<Hub>) {
        lock(&self.shared.hubs).push(Arc::downgrade(hub));
    }

    fn hubs(&self) -> Vec<Arc<Hub>> {
        lock(&self.shared.hubs).iter().filter_map(Weak::upgrade).collect()
    }
}

/// What one runtime counts. Each has its own, so that no two processors want the same line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Counters {
    pub(crate) opened: Counter,
    pub(crate) not_opened: Counter,
    pub(crate) handlers_failed: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) messages_sent: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) lag_began: Counter,
    pub(crate) lag_ended: Counter,
    /// What became of messages published to connections that are no more.
    past: Mutex<Counts>,
    close_codes: Mutex<HashMap<u16, u64>>,
}

impl Counters {
    /// Takes note that a connection is no more.
    pub(crate) fn handle_end(&self, counts: Counts, code: u16) {
        *lock(&self.past) += counts;
        *lock(&self.close_codes).entry(code).or_default() += 1;
    }

    fn add_to(&self, stats: &mut Stats) {
        stats.opened += self.opened.get();
        stats.not_opened += self.not_opened.get();
        stats.handlers_failed += self.handlers_failed.get();
        stats.messages_received += self.messages_received.get();
        stats.bytes_received += self.bytes_received.get();
        stats.messages_sent += self.messages_sent.get();
        stats.bytes_sent += self.bytes_sent.get();
        let ended = self.lag_ended.get();
        stats.lagging += self.lag_began.get().saturating_sub(ended);
        stats.published += *lock(&self.past);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
