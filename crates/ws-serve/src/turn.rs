//! [`Turn`]: what was published to a topic during a turn of the runtime, on its way to the members.
//!
//! The messages are joined to one slice of bytes, and each member's transport is offered the same
//! slice. Members with different ideas of compression have a slice for each idea. Not its business:
//! who the members are.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use bytes::{Bytes, BytesMut};

use crate::{
    SlowConsumer,
    conn::proto::AgreedDeflate,
    counts::Tally,
    outbox::Terms,
    shard::{Member, Published},
};

/// The messages of a turn on their way to the members.
pub(crate) struct Turn {
    number: u64,
    messages: Vec<Published>,
    /// Which messages each of these connections must not get, in order.
    exceptions: HashMap<u64, Vec<usize>>,
    members: Arc<Vec<Arc<Member>>>,
    tally: Arc<Tally>,
    /// The topic's own policy, if it has one.
    policy: Option<SlowConsumer>,
    /// The next member to serve.
    next: usize,
    /// How many messages were sent, over all members.
    sent: u64,
    /// The joined messages, in each form that a member has asked for.
    slices: Vec<Slice>,
}

/// The frames of a turn in one form, one after the other.
pub(crate) struct Slice {
    /// The window is what tells forms apart: bytes that were compressed for it, by whosever settings,
    /// are for all who agreed on it.
    agreed: Option<AgreedDeflate>,
    bytes: Bytes,
    /// Where each message ends in `bytes`.
    ends: Vec<usize>,
}

impl Turn {
    pub(crate) fn new(
        number: u64,
        messages: Vec<Published>,
        exceptions: Vec<(u64, usize)>,
        members: Arc<Vec<Arc<Member>>>,
        tally: Arc<Tally>,
        policy: Option<SlowConsumer>,
    ) -> Self {
        let slices = Vec::new();
        let mut by_member = HashMap::<_, Vec<_>>::new();
        for (id, place) in exceptions {
            by_member.entry(id).or_default().push(place);
        }
        let exceptions = by_member;
        Self { number, messages, exceptions, members, tally, policy, next: 0, sent: 0, slices }
    }

    /// Serves members until all are served or the budget is used up.
    pub(crate) fn run(&mut self, budget: &mut usize) {
        let members = Arc::clone(&self.members);
        while let Some(member) = members.get(self.next) {
            if *budget == 0 {
                return;
            }
            *budget -= 1;
            self.next += 1;
            self.serve(member);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.next >= self.members.len()
    }

    /// Sends a member what is for it.
    pub(crate) fn serve(&mut self, member: &Member) {
        let (number, before) = member.joined;
        // Nothing that was published before it joined.
        let first = if number == self.number { before } else { 0 };
        let id = member.peer.id;
        let form = self.form(member.peer.deflate.as_ref());
        let Some(slice) = self.slices.get(form) else { return };
        let destination = &member.peer.destination;
        let policy = self.policy.unwrap_or(destination.slow_consumer);
        let terms = Terms { tally: &self.tally, policy, max_queue: destination.max_queue };

        // Without the member's own messages, if it does not want them.
        let own = self.exceptions.get(&id).map(Vec::as_slice).unwrap_or_default();
        let stops = own.iter().copied().chain([self.messages.len()]);
        self.sent += member.peer.with(|outbox| {
            let (mut from, mut sent) = (first, 0);
            for stop in stops {
                if from < stop && member.active.load(Ordering::Relaxed) {
                    outbox.deliver(id, slice, from..stop, &self.messages, &terms);
                    sent += stop - from;
                }
                from = from.max(stop + 1);
            }
            sent as u64
        });
    }

    /// The place of the messages' form for an agreement, made if nobody has asked for it before.
    fn form(&mut self, agreed: Option<&AgreedDeflate>) -> usize {
        let window = |agreed: &AgreedDeflate| agreed.send.window_bits;
        let same = |slice: &Slice| slice.agreed.as_ref().map(window) == agreed.map(window);
        if let Some(place) = self.slices.iter().position(same) {
            return place;
        }
        self.slices.push(Slice::new(&self.messages, agreed));
        self.slices.len() - 1
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.tally.send(self.sent);
    }
}

impl Slice {
    fn new(messages: &[Published], agreed: Option<&AgreedDeflate>) -> Self {
        let frames = messages.iter().map(|published| published.message.frame_for(agreed));
        let mut end = 0;
        let ends = frames.clone().map(|frame| {
            end += frame.len();
            end
        });
        let ends: Vec<_> = ends.collect();
        // One message, as in most turns, is not copied.
        let mut single = frames.clone();
        let bytes = match (single.next(), single.next()) {
            (Some(frame), None) => frame.clone(),
            _ => {
                let mut joined = BytesMut::with_capacity(end);
                frames.for_each(|frame| joined.extend_from_slice(frame));
                joined.freeze()
            }
        };
        Self { agreed: agreed.copied(), bytes, ends }
    }

    /// The frames of some of the messages.
    pub(crate) fn bytes_of(&self, messages: Range<usize>) -> &[u8] {
        &self.bytes[self.start_of(messages.start)..self.start_of(messages.end)]
    }

    /// A message by itself.
    pub(crate) fn frame(&self, published: &Published) -> Bytes {
        published.message.frame_for(self.agreed.as_ref()).clone()
    }

    /// Which message comes so many bytes after the beginning of the `first` one, and how many bytes of
    /// it lie before there.
    pub(crate) fn message_at(&self, first: usize, written: usize) -> (usize, usize) {
        let position = self.start_of(first) + written;
        let place = self.ends.partition_point(|end| *end <= position);
        (place, position - self.start_of(place))
    }

    fn start_of(&self, message: usize) -> usize {
        message.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}
