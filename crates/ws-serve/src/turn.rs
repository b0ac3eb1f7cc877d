//! [`Turn`]: what was published to a topic during a turn of the runtime, on its way to the members.
//!
//! The messages are joined to one slice of bytes, and each member's transport is offered the same
//! slice. Members with different ideas of compression have a slice for each idea. Not its business:
//! who the members are.

use std::{ops::Range, sync::Arc, sync::atomic::Ordering};

use bytes::{Bytes, BytesMut};

use crate::{
    CloseCode, CloseFrame, PreparedMessage, Skip, conn::proto::AgreedDeflate, shard::Member,
};

/// The messages of a turn on their way to the members.
pub(crate) struct Turn {
    number: u64,
    messages: Vec<PreparedMessage>,
    exceptions: Vec<(u64, usize)>,
    members: Arc<Vec<Arc<Member>>>,
    max_queue: usize,
    /// The next member to serve.
    next: usize,
    /// The joined messages, in each form that a member has asked for.
    slices: Vec<(Form, Slice)>,
}

/// The window for which messages are compressed, if they are. All connections of a server share the
/// rest of the settings.
type Form = Option<u8>;

/// The frames of a turn, one after the other.
struct Slice {
    bytes: Bytes,
    /// Where each message ends in `bytes`.
    ends: Vec<usize>,
    /// The messages at which `bytes` is cut, so that no piece of several is over the queue's limit.
    cuts: Vec<usize>,
}

impl Turn {
    pub(crate) fn new(
        number: u64,
        messages: Vec<PreparedMessage>,
        exceptions: Vec<(u64, usize)>,
        members: Arc<Vec<Arc<Member>>>,
        max_queue: usize,
    ) -> Self {
        let slices = Vec::new();
        Self { number, messages, exceptions, members, max_queue, next: 0, slices }
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

    /// Offers a member what is for it.
    pub(crate) fn serve(&mut self, member: &Member) {
        let (number, before) = member.joined;
        // Nothing that was published before it joined.
        let first = if number == self.number { before } else { 0 };
        let id = member.peer.id;
        let form = self.form(member.peer.deflate.as_ref());
        let Some((_, slice)) = self.slices.get(form) else { return };
        // Without the member's own messages, if it does not want them; in pieces, if there is much.
        let own = self.exceptions.iter().filter(|(except, _)| *except == id);
        let mut stops: Vec<_> = own.map(|(_, index)| *index..*index + 1).collect();
        stops.extend(slice.cuts.iter().map(|cut| *cut..*cut));
        stops.sort_by_key(|stop| stop.start);

        let lagging = member.peer.with(|core| {
            let mut from = first;
            let end = slice.ends.len();
            for stop in stops.into_iter().chain(std::iter::once(end..end)) {
                if !member.active.load(Ordering::Relaxed) {
                    return false;
                }
                if from < stop.start {
                    let result = if from == 0 && stop.start == end {
                        core.offer(id, &slice.bytes, self.max_queue)
                    } else {
                        core.offer(id, &slice.of(from..stop.start), self.max_queue)
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

    /// The place of the messages' form for an agreement, made if nobody has asked for it before.
    fn form(&mut self, agreed: Option<&AgreedDeflate>) -> usize {
        let form = agreed.map(|agreed| agreed.send.window_bits);
        if let Some(place) = self.slices.iter().position(|(other, _)| *other == form) {
            return place;
        }
        let frames = self.messages.iter().map(|message| message.frame_for(agreed));
        self.slices.push((form, Slice::new(frames, self.max_queue)));
        self.slices.len() - 1
    }
}

impl Slice {
    fn new<'a>(frames: impl ExactSizeIterator<Item = &'a Bytes> + Clone, max_piece: usize) -> Self {
        let mut ends = Vec::with_capacity(frames.len());
        let mut cuts = Vec::new();
        let (mut end, mut piece) = (0, 0);
        for (index, frame) in frames.clone().enumerate() {
            if end > piece && end - piece + frame.len() > max_piece {
                cuts.push(index);
                piece = end;
            }
            end += frame.len();
            ends.push(end);
        }
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
        Self { bytes, ends, cuts }
    }

    /// The frames of some of the messages.
    fn of(&self, messages: Range<usize>) -> Bytes {
        let end_of = |count: usize| count.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.bytes.slice(end_of(messages.start)..end_of(messages.end))
    }
}
