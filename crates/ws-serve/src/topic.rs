//! [`Topic`]: publish to many.
//!
//! Each runtime has a [`Shard`] of a topic, with its own members. Not its business: how they are
//! served, which is `shard.rs`, and when, which is `hub.rs`.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::{
    Counts, PreparedMessage, SlowConsumer, Socket,
    counts::Tally,
    hub::Hub,
    peer::Peer,
    shard::{Published, Shard},
};

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
            tally: Arc::default(),
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
    tally: Arc<Tally>,
    shards: Mutex<Shards>,
}

#[derive(Default)]
struct Shards {
    /// One for each runtime that has had members.
    all: Vec<Arc<Shard>>,
    /// The topic's own policy, if it has one.
    policy: Option<SlowConsumer>,
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
        peer.with(|outbox| {
            outbox.uncork(peer.id);
            outbox.flush();
        });
        let shard = self.shard(&peer.hub);
        if !shard.add(peer) {
            return;
        }
        let joined = peer.with(|outbox| match &mut outbox.topics {
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
        peer.with(|outbox| {
            if let Some(topics) = &mut outbox.topics {
                topics.retain(|topic| !Arc::ptr_eq(&topic.inner, &self.inner));
            }
        });
    }

    /// Publishes a message to all members. Never waits, and costs the same for ten members as for
    /// ten thousand: they are served when the current turn of their runtime ends. Only who publishes more
    /// than 1 MiB within a turn serves them at once, so that no memory grows without end.
    ///
    /// It is framed once, and compressed at most once for each window that members use, whatever
    /// their number.
    pub fn publish(&self, message: impl Into<PreparedMessage>) {
        self.append(message.into(), None, None);
    }

    /// As [`publish`](Self::publish), for a message that outdates the ones before it with the same
    /// key: where the policy is [`SlowConsumer::Conflate`], a client that is behind gets only the last.
    /// Messages without a key outdate each other.
    #[doc(alias = "conflate")]
    pub fn publish_keyed(&self, key: &str, message: impl Into<PreparedMessage>) {
        self.append(message.into(), Some(key), None);
    }

    /// As [`publish`](Self::publish), to everybody but this connection.
    pub fn publish_except(&self, socket: &Socket, message: impl Into<PreparedMessage>) {
        self.append(message.into(), None, Some(socket.id()));
    }

    /// What happens to members that do not keep up, instead of what is [set for the
    /// server](crate::Server::slow_consumer). From the next turn on.
    ///
    /// A topic that nobody is in and nobody holds is forgotten, and its policy with it.
    pub fn set_slow_consumer(&self, policy: SlowConsumer) {
        let mut shards = lock(&self.inner.shards);
        shards.policy = Some(policy);
        shards.all.iter().for_each(|shard| shard.set_policy(policy));
    }

    /// What became of the messages that were published to it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.tally.counts()
    }

    /// How many connections are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.inner.shards).all.iter().map(|shard| shard.len()).sum()
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes a connection whose list of topics is being taken care of.
    pub(crate) fn remove(&self, peer: &Peer) {
        let shards = lock(&self.inner.shards);
        let shard = shards.all.iter().find(|shard| shard.is_of(&peer.hub)).cloned();
        drop(shards);
        if let Some(shard) = shard {
            shard.remove(peer);
        }
    }

    fn append(&self, message: PreparedMessage, key: Option<&str>, except: Option<u64>) {
        let published = Published { message, key: key.map(Into::into) };
        let full: Vec<_> = {
            let shards = lock(&self.inner.shards);
            shards.all.iter().filter_map(|shard| shard.append(&published, except)).collect()
        };
        full.iter().for_each(|hub| hub.flush_now());
    }

    fn shard(&self, hub: &Arc<Hub>) -> Arc<Shard> {
        let mut shards = lock(&self.inner.shards);
        if let Some(shard) = shards.all.iter().find(|shard| shard.is_of(hub)) {
            return Arc::clone(shard);
        }
        let shard = Shard::new(hub, Arc::clone(&self.inner.tally), shards.policy);
        let shard = Arc::new(shard);
        shards.all.push(Arc::clone(&shard));
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
