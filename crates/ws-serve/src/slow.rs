//! [`SlowConsumer`]: what happens to a client that does not keep up, and [`Lag`], the word of it.
//!
//! Not its business: doing it, which is `backlog.rs`.

use crate::{CloseCode, Counts, PeerAddress};

/// What to do when a message is published and a member's queue has no room for it.
///
/// A publisher never waits, and a member that reads too slowly never slows the others down. What it
/// does not take waits in its queue, up to [`Server::max_queue`](crate::Server::max_queue) bytes; this
/// is about what comes then. It is set for a [server](crate::Server::slow_consumer) and for a
/// [topic](crate::Topic::set_slow_consumer). Control frames do not count, and are never dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// Disconnect it with this code: a gap would go unnoticed, and a client that comes back gets a
    /// fresh start. For chats and logs; the default, with 1013.
    Disconnect(CloseCode),
    /// Drop the new message. For streams whose beginning matters.
    DropNewest,
    /// Drop the topic's oldest message that waits, until there is room. For streams whose end matters.
    DropOldest,
    /// Replace a message that waits by a newer one with the same key, whether there is room or not; see
    /// [`Topic::publish_keyed`](crate::Topic::publish_keyed). The client gets the latest value of each key, in
    /// the order of their latest updates. For dashboards and prices. If there is no room even so, the
    /// oldest values go.
    Conflate,
}

impl Default for SlowConsumer {
    fn default() -> Self {
        Self::Disconnect(CloseCode::TRY_AGAIN_LATER)
    }
}

/// A connection starts to lag behind what is published, or has caught up; see
/// [`Server::on_lag`](crate::Server::on_lag).
///
/// It starts when half of its queue is full, or when a message is dropped, and stops when nothing waits
/// any more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lag {
    /// See [`Socket::id`](crate::Socket::id).
    pub connection: u64,
    /// See [`Socket::peer_addr`](crate::Socket::peer_addr).
    pub peer_addr: PeerAddress,
    /// Whether it starts; otherwise it stops.
    pub lagging: bool,
    /// Bytes that wait in its queue.
    pub queued: usize,
    /// What became of its messages so far.
    pub counts: Counts,
}
