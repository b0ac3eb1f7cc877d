//! [`Backlog`]: published messages that wait for a client which is behind, within a limit of bytes.
//!
//! Each topic has a queue of its own, so that a policy drops nothing but its own topic's messages; the
//! queues are served in turns. Messages are held by reference: a thousand slow clients share the bytes.
//! Not its business: the connection's own messages, and bytes that the transport has begun to take,
//! both of which are the link's.

use std::{
    collections::{HashMap, VecDeque},
    mem::size_of,
    sync::Arc,
};

use crate::{
    PreparedMessage, SlowConsumer,
    counts::{Loss, Losses, Tally},
    shard::{Key, Published},
};

/// What waits for one connection.
#[derive(Default)]
pub(crate) struct Backlog {
    /// None of them is empty. The first one is served next.
    queues: VecDeque<Queue>,
    /// What all the entries weigh.
    bytes: usize,
}

/// One topic's messages.
struct Queue {
    tally: Arc<Tally>,
    /// `None` where a message has been replaced by a newer one; the first one is never `None`.
    entries: VecDeque<Option<Entry>>,
    /// How many entries there have been before the first one.
    gone: u64,
    /// How many entries there are.
    len: usize,
    /// What they weigh.
    bytes: usize,
    /// At which number each key's entry is, if the topic conflates.
    by_key: HashMap<Option<Key>, u64>,
}

struct Entry {
    message: PreparedMessage,
    key: Option<Key>,
    weight: usize,
    conflates: bool,
}

/// A message did not fit, and its topic's policy is to end the connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// What the entries weigh: the frames, and what it costs to remember them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.queues.iter().map(|queue| queue.len).sum()
    }

    /// Takes a message in, which may mean to drop another one, or this one. `frame_len` is its size on
    /// the wire, `room` what may wait in all.
    pub(crate) fn push(
        &mut self,
        published: &Published,
        frame_len: usize,
        tally: &Arc<Tally>,
        policy: SlowConsumer,
        room: usize,
        losses: &mut Losses,
    ) -> Result<(), Overflow> {
        let weight = frame_len + size_of::<Option<Entry>>();
        let conflates = policy == SlowConsumer::Conflate;
        let place = self.queues.iter().position(|queue| Arc::ptr_eq(&queue.tally, tally));
        if let Some(place) = place {
            let queue = &mut self.queues[place];
            // Nothing is dropped for a message that does not fit even so.
            let fits = self.bytes - queue.bytes + weight <= room;
            if fits
                && conflates
                && let Some(old) = queue.remove(&published.key)
            {
                self.bytes -= old.weight;
                queue.lose(Loss::Conflated, losses);
            }
            if fits && matches!(policy, SlowConsumer::DropOldest | SlowConsumer::Conflate) {
                while self.bytes + weight > room
                    && let Some(old) = queue.pop()
                {
                    self.bytes -= old.weight;
                    queue.lose(Loss::Full, losses);
                }
            }
        }
        if self.bytes + weight > room {
            if let Some(place) = place
                && self.queues[place].len == 0
            {
                self.queues.remove(place);
            }
            tally.lose(Loss::Full, 1);
            losses[Loss::Full as usize] += 1;
            return match policy {
                SlowConsumer::Disconnect(_) => Err(Overflow),
                _ => Ok(()),
            };
        }
        let place = place.unwrap_or_else(|| {
            self.queues.push_back(Queue::new(Arc::clone(tally)));
            self.queues.len() - 1
        });
        let (message, key) = (published.message.clone(), published.key.clone());
        self.queues[place].push(Entry { message, key, weight, conflates });
        self.bytes += weight;
        Ok(())
    }

    /// Takes the next message out, for delivery.
    pub(crate) fn pop(&mut self) -> Option<PreparedMessage> {
        let mut queue = self.queues.pop_front()?;
        let entry = queue.pop()?;
        self.bytes -= entry.weight;
        queue.tally.end_wait();
        // In turns, so that a busy topic does not starve the others.
        if queue.len > 0 {
            self.queues.push_back(queue);
        }
        Some(entry.message)
    }

    /// Drops everything, because the connection ends.
    pub(crate) fn discard(mut self, losses: &mut Losses) {
        for queue in &mut self.queues {
            while queue.pop().is_some() {
                queue.lose(Loss::Closed, losses);
            }
        }
    }
}

impl Queue {
    fn new(tally: Arc<Tally>) -> Self {
        Self { tally, entries: VecDeque::new(), gone: 0, len: 0, bytes: 0, by_key: HashMap::new() }
    }

    fn push(&mut self, entry: Entry) {
        if entry.conflates {
            self.by_key.insert(entry.key.clone(), self.gone + self.entries.len() as u64);
        }
        self.len += 1;
        self.bytes += entry.weight;
        self.entries.push_back(Some(entry));
        self.tally.wait();
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()??;
        self.gone += 1;
        self.len -= 1;
        self.bytes -= entry.weight;
        if entry.conflates {
            self.by_key.remove(&entry.key);
        }
        self.skip_replaced();
        Some(entry)
    }

    /// Takes the entry with this key out, wherever it is.
    fn remove(&mut self, key: &Option<Key>) -> Option<Entry> {
        let number = self.by_key.remove(key)?;
        let entry = self.entries.get_mut((number - self.gone) as usize)?.take()?;
        self.len -= 1;
        self.bytes -= entry.weight;
        self.skip_replaced();
        // Each key leaves a gap when it is updated; so many gaps are worth a walk.
        if self.entries.len() > 2 * self.len + FEW {
            self.close_gaps();
        }
        Some(entry)
    }

    fn skip_replaced(&mut self) {
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.gone += 1;
        }
    }

    fn close_gaps(&mut self) {
        self.entries.retain(Option::is_some);
        let entries = self.entries.iter().flatten().enumerate();
        let keyed = entries.filter(|(_, entry)| entry.conflates);
        self.by_key = keyed.map(|(i, entry)| (entry.key.clone(), self.gone + i as u64)).collect();
    }

    /// Counts a message that waited and is dropped.
    fn lose(&self, loss: Loss, losses: &mut Losses) {
        self.tally.lose(loss, 1);
        self.tally.end_wait();
        losses[loss as usize] += 1;
    }
}

/// Gaps that are not worth a walk.
const FEW: usize = 16;
