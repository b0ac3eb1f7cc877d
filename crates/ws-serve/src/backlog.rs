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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CloseCode;

    const ENTRY: usize = size_of::<Option<Entry>>();

    /// What [`Backlog`] does, said as simply as possible: each topic's messages in a list.
    #[derive(Default)]
    struct Model {
        queues: Vec<(usize, Vec<Waiting>)>,
        losses: Losses,
    }

    struct Waiting {
        number: u64,
        key: Option<usize>,
        conflates: bool,
        weight: usize,
    }

    impl Model {
        fn bytes(&self) -> usize {
            self.queues.iter().flat_map(|(_, queue)| queue).map(|waiting| waiting.weight).sum()
        }

        fn push(
            &mut self,
            topic: usize,
            new: Waiting,
            policy: SlowConsumer,
            room: usize,
        ) -> Result<(), Overflow> {
            if self.queues.iter().all(|(of, _)| *of != topic) {
                self.queues.push((topic, Vec::new()));
            }
            let weigh =
                |queue: &[Waiting]| queue.iter().map(|waiting| waiting.weight).sum::<usize>();
            let others = self.queues.iter().filter(|(of, _)| *of != topic);
            let others: usize = others.map(|(_, queue)| weigh(queue)).sum();
            let own = self.queues.iter_mut().find(|(of, _)| *of == topic);
            let (_, queue) = own.expect("there is one now");
            // If not even dropping all of its own would do, nothing of it is dropped.
            if others + new.weight <= room {
                let outdated = |old: &Waiting| old.conflates && old.key == new.key;
                if new.conflates
                    && let Some(place) = queue.iter().position(outdated)
                {
                    queue.remove(place);
                    self.losses[Loss::Conflated as usize] += 1;
                }
                if matches!(policy, SlowConsumer::DropOldest | SlowConsumer::Conflate) {
                    while others + weigh(queue) + new.weight > room {
                        queue.remove(0);
                        self.losses[Loss::Full as usize] += 1;
                    }
                }
            }
            let fits = others + weigh(queue) + new.weight <= room;
            if fits {
                queue.push(new);
            } else {
                self.losses[Loss::Full as usize] += 1;
            }
            self.queues.retain(|(_, queue)| !queue.is_empty());
            if !fits && matches!(policy, SlowConsumer::Disconnect(_)) {
                return Err(Overflow);
            }
            Ok(())
        }

        fn pop(&mut self) -> Option<u64> {
            if self.queues.is_empty() {
                return None;
            }
            let (topic, mut queue) = self.queues.remove(0);
            let number = queue.remove(0).number;
            if !queue.is_empty() {
                self.queues.push((topic, queue));
            }
            Some(number)
        }
    }

    /// SplitMix64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((mixed ^ (mixed >> 31)) % end as u64) as usize
        }
    }

    fn published(number: u64, key: Option<&str>) -> Published {
        let message = PreparedMessage::new(number.to_string());
        Published { message, key: key.map(Key::from) }
    }

    fn number_of(message: &PreparedMessage) -> u64 {
        let message = message.message();
        message.as_text().and_then(|text| text.parse().ok()).expect("a number")
    }

    fn push(backlog: &mut Backlog, tally: &Arc<Tally>, number: u64, key: &str) -> Losses {
        let mut losses = Losses::default();
        let published = published(number, Some(key));
        let pushed =
            backlog.push(&published, 10, tally, SlowConsumer::Conflate, usize::MAX, &mut losses);
        assert_eq!(pushed, Ok(()));
        losses
    }

    /// T19: any policy, key, size, limit and topic after any other.
    #[test]
    fn random_steps_agree_with_the_model() {
        const STEPS: u64 = 100_000;
        let mut random = Random(1);
        let tallies: [Arc<Tally>; 4] = Default::default();
        let (mut backlog, mut model) = (Backlog::default(), Model::default());
        let mut losses = Losses::default();
        for number in 0..STEPS {
            if random.below(if number / 1000 % 2 == 0 { 8 } else { 2 }) == 0 {
                let popped = backlog.pop().map(|message| number_of(&message));
                assert_eq!(popped, model.pop(), "step {number}");
            } else {
                let (topic, frame_len) = (random.below(4), 2 + random.below(60));
                let key = random.below(8).checked_sub(1);
                let policy = match random.below(8) {
                    0 => SlowConsumer::Disconnect(CloseCode::TRY_AGAIN_LATER),
                    1 => SlowConsumer::DropNewest,
                    2 => SlowConsumer::DropOldest,
                    _ => SlowConsumer::Conflate,
                };
                let room = match random.below(10) {
                    0 => random.below(1000),
                    _ => 2_000,
                };
                let conflates = policy == SlowConsumer::Conflate;
                let new = Waiting { number, key, conflates, weight: frame_len + ENTRY };
                let name = key.map(|key| key.to_string());
                let published = published(number, name.as_deref());
                let tally = &tallies[topic];
                let pushed = backlog.push(&published, frame_len, tally, policy, room, &mut losses);
                assert_eq!(pushed, model.push(topic, new, policy, room), "step {number}");
            }
            assert_eq!((backlog.bytes(), losses), (model.bytes(), model.losses), "step {number}");
            let waiting: usize = model.queues.iter().map(|(_, queue)| queue.len()).sum();
            assert_eq!((backlog.len(), backlog.is_empty()), (waiting, waiting == 0));
            for (topic, tally) in tallies.iter().enumerate() {
                let queue = model.queues.iter().find(|(of, _)| *of == topic);
                let waiting = queue.map_or(0, |(_, queue)| queue.len() as u64);
                assert_eq!(tally.counts().waiting, waiting, "step {number}");
            }
            for queue in &backlog.queues {
                assert!(queue.entries.len() <= 2 * queue.len + FEW + 1, "gaps are closed");
                assert!(queue.by_key.len() <= queue.len);
            }
        }
        while let Some(message) = backlog.pop() {
            assert_eq!(Some(number_of(&message)), model.pop());
        }
        assert_eq!((model.pop(), backlog.bytes(), backlog.len()), (None, 0, 0));
        let of_topics = tallies.iter().map(|tally| tally.counts());
        let lost: u64 = of_topics.map(|counts| counts.dropped() + counts.waiting).sum();
        assert_eq!(lost, losses.iter().sum::<u64>());
        assert!(losses[Loss::Full as usize] > 1000 && losses[Loss::Conflated as usize] > 1000);
    }

    /// One key in front that is never updated, and one that is: its gaps lie in the middle.
    #[test]
    fn gaps_of_replaced_messages_are_closed() {
        let tally = Arc::default();
        let mut backlog = Backlog::default();
        push(&mut backlog, &tally, 0, "still");
        for number in 1..10_000 {
            let losses = push(&mut backlog, &tally, number, "busy");
            assert_eq!(losses[Loss::Conflated as usize], u64::from(number > 1));
            assert!(backlog.queues[0].entries.len() <= 2 * 2 + FEW + 1);
            assert_eq!((backlog.len(), backlog.bytes()), (2, 2 * (10 + ENTRY)));
        }
        // Keys are found behind closed gaps, and after messages have been taken out.
        push(&mut backlog, &tally, 10_000, "still");
        assert_eq!(backlog.pop().map(|message| number_of(&message)), Some(9_999));
        push(&mut backlog, &tally, 10_001, "busy");
        push(&mut backlog, &tally, 10_002, "busy");
        assert_eq!(backlog.pop().map(|message| number_of(&message)), Some(10_000));
        assert_eq!(backlog.pop().map(|message| number_of(&message)), Some(10_002));
        assert!(backlog.pop().is_none() && backlog.is_empty() && backlog.bytes() == 0);
    }

    #[test]
    fn what_is_discarded_is_lost_and_waits_no_longer() {
        let tallies: [Arc<Tally>; 3] = Default::default();
        let mut backlog = Backlog::default();
        for number in 0..30 {
            push(&mut backlog, &tallies[number as usize % 3], number, &(number / 6).to_string());
        }
        assert_eq!(backlog.len(), 15);
        let mut losses = Losses::default();
        backlog.discard(&mut losses);
        assert_eq!(losses, [0, 0, 15]);
        for tally in &tallies {
            let counts = tally.counts();
            assert_eq!(
                (counts.waiting, counts.dropped_closed, counts.dropped_conflated),
                (0, 5, 5)
            );
        }
    }

    /// [`Server::max_queue`](crate::Server::max_queue) says so.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn remembering_a_message_costs_40_bytes() {
        assert_eq!(ENTRY, 40);
    }
}
