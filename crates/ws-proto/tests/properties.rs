//! Properties of RFC 6455 endpoints: no input panics, no cut makes a difference, everything sent
//! arrives in order, and every connection ends with both ends knowing the same.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

mod support;

use proptest::{collection::vec, prelude::*, sample::Index};
use support::{Endpoint, Pair, frame, from_peer, in_pieces};
use ws_proto::{
    Chunk, CloseCode, CloseFrame, Config, Event, Inbound, Incoming, Limits, Message,
    PreparedMessage, Role, SendError, State, bytes::BytesMut,
};

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

/// Limits that short inputs reach.
fn tight() -> Config {
    let config = Config::default().max_message_size(600).max_frame_size(400).max_fragments(6);
    assert_ne!(config.limits(), Limits::default());
    config
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<String>().prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..130),
        1 => (any::<u8>(), 300..500usize).prop_map(|(byte, len)| vec![byte; len]),
        1 => (prop::sample::select(vec![1000u16, 1001, 1005, 3000, 9999]), any::<String>())
            .prop_map(|(code, reason)| [&code.to_be_bytes()[..], reason.as_bytes()].concat()),
    ]
}

/// Mostly frames, mostly legal, as the role's peer sends them; else any bytes.
fn wire() -> impl Strategy<Value = (Role, Vec<u8>)> {
    let legal = prop::sample::select(vec![0x00u8, 0x80, 0x01, 0x81, 0x02, 0x82, 0x88, 0x89, 0x8a]);
    let first = prop_oneof![20 => legal, 1 => any::<u8>()];
    let piece = prop_oneof![
        20 => (first, payload()).prop_map(|(first, payload)| (true, frame(first, payload))),
        1 => vec(any::<u8>(), 0..20).prop_map(|garbage| (false, garbage)),
    ];
    (role(), vec(piece, 0..10)).prop_map(|(role, pieces)| {
        let wire = pieces
            .into_iter()
            .flat_map(|(is_frame, bytes)| if is_frame { from_peer(role, &bytes) } else { bytes });
        (role, wire.collect())
    })
}

proptest! {
    #[test]
    fn any_cut_of_any_input_gives_the_same_events_and_the_same_answer(
        (role, wire) in wire(),
        sizes in vec(0..40usize, 0..40),
    ) {
        for config in [Config::default(), tight()] {
            let whole = in_pieces(role, &config, &wire, []);
            prop_assert_eq!(&whole, &in_pieces(role, &config, &wire, vec![1; wire.len()]));
            prop_assert_eq!(&whole, &in_pieces(role, &config, &wire, sizes.clone()));
            // Whatever came: one Close at most, and it is the last thing on the wire.
            let frames: Vec<_> = whole.sent.split(' ').filter(|word| *word != "shutdown").collect();
            let close = frames.iter().position(|frame| frame.starts_with("88"));
            prop_assert!(close.is_none_or(|at| at + 1 == frames.len()), "{}", whole.sent);
            prop_assert_eq!(close.is_some(), whole.state == State::Draining);
        }
    }

    /// The short way and the long way to a message are the same way.
    #[test]
    fn polling_for_whole_messages_first_makes_no_difference(
        (role, wire) in wire(),
        sizes in vec(0..200usize, 0..20),
    ) {
        for config in [Config::default(), tight()] {
            let [one, other] = [true, false].map(|short_way| {
                let mut inbound = Inbound::new(role, config.limits());
                let (mut input, mut rest) = (BytesMut::new(), &wire[..]);
                let mut incoming = Vec::new();
                for size in sizes.iter().copied().chain([usize::MAX]) {
                    let (piece, tail) = rest.split_at(size.min(rest.len()));
                    input.extend_from_slice(piece);
                    rest = tail;
                    loop {
                        let whole = short_way.then(|| inbound.poll_whole(&mut input)).flatten();
                        let next = whole.map(Incoming::Message).or_else(|| inbound.poll(&mut input));
                        let Some(next) = next else { break };
                        incoming.push(next);
                    }
                }
                (incoming, input, inbound.is_finished())
            });
            prop_assert_eq!(one, other);
        }
    }

    /// Chunks put together are the messages, up to what came of the one that broke off.
    #[test]
    fn streaming_tells_the_same_as_whole_messages(
        (role, wire) in wire(),
        sizes in vec(0..40usize, 0..40),
    ) {
        let config = Config::default().max_fragments(6);
        let whole = in_pieces(role, &config, &wire, []);
        let mut streaming = Endpoint::with(role, &config);
        streaming.connection.set_streaming(true);
        let mut rest = &wire[..];
        for size in sizes {
            let (piece, tail) = rest.split_at(size.min(rest.len()));
            streaming.feed(piece);
            rest = tail;
        }
        streaming.feed(rest);
        let mut begun = Vec::new();
        let joined: Vec<_> = streaming.events.iter().filter_map(|event| {
            let Event::Chunk(chunk) = event else { return Some(event.clone()) };
            begun.extend_from_slice(chunk.data.as_bytes());
            if !chunk.last {
                return None;
            }
            let data = std::mem::take(&mut begun);
            Some(Event::Message(match chunk.data {
                Message::Text(_) => String::from_utf8(data).unwrap().into(),
                Message::Binary(_) => data.into(),
            }))
        }).collect();
        prop_assert_eq!(joined, whole.events);
        prop_assert_eq!(streaming.state(), whole.state);
        prop_assert_eq!(streaming.connection.closed(), whole.closed);
    }
}

/// What an application may do, and what the transport may.
#[derive(Clone, Debug)]
enum Op {
    Send(Message),
    SendPrepared(Message),
    /// A whole message in chunks that are cut there; text is cut between characters.
    SendChunks(Message, Vec<Index>),
    /// A chunk of a text message.
    Chunk(String, bool),
    Ping(Vec<u8>),
    Close(u16, String),
    /// So many bytes of what the sender owes go over.
    Carry(usize),
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        any::<String>().prop_map(Message::from),
        vec(any::<u8>(), 0..300).prop_map(Message::from),
        // Beyond what is copied, in the send queue and from the read buffer.
        (any::<u8>(), 4000..20_000usize).prop_map(|(byte, len)| vec![byte; len].into()),
    ]
}

/// Operations that send messages whole.
fn sending() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => message().prop_map(Op::Send),
        1 => message().prop_map(Op::SendPrepared),
        2 => (message(), vec(any::<Index>(), 0..5)).prop_map(|(m, cuts)| Op::SendChunks(m, cuts)),
        2 => vec(any::<u8>(), 0..126).prop_map(Op::Ping),
        3 => prop_oneof![0..20usize, 0..5000usize].prop_map(Op::Carry),
    ]
}

/// Everything.
fn anything() -> impl Strategy<Value = Op> {
    let code = prop::sample::select(vec![1000u16, 1001, 1011, 4000]);
    prop_oneof![
        20 => sending(),
        4 => (any::<String>(), any::<bool>()).prop_map(|(text, last)| Op::Chunk(text, last)),
        1 => (code, any::<String>()).prop_map(|(code, reason)| Op::Close(code, reason)),
    ]
}

/// The chunks of a message that is cut at these places, or a little before.
fn cut(message: &Message, cuts: &[Index]) -> Vec<Chunk> {
    let len = message.len();
    let mut cuts: Vec<_> = cuts
        .iter()
        .map(|cut| cut.index(len + 1))
        .map(|at| message.as_text().map_or(at, |text| text.floor_char_boundary(at)))
        .chain([0, len])
        .collect();
    cuts.sort_unstable();
    let piece = |ends: &[usize]| Chunk {
        data: match message {
            Message::Text(text) => text[ends[0]..ends[1]].into(),
            Message::Binary(data) => data.slice(ends[0]..ends[1]).into(),
        },
        last: false,
    };
    let mut chunks: Vec<_> = cuts.windows(2).map(piece).collect();
    chunks.last_mut().unwrap().last = true;
    chunks
}

/// What one end has been allowed to send, and must therefore arrive.
#[derive(Default)]
struct Sent {
    messages: Vec<Message>,
    pings: Vec<Vec<u8>>,
    begun: Option<String>,
}

impl Sent {
    /// Does it, and takes note of what was accepted.
    fn apply(&mut self, pair: &mut Pair, sender: Role, op: Op) {
        let connection = &mut pair.from(sender).0.connection;
        let open = connection.state().can_send();
        // What an open connection refuses, and why it may.
        let may = match (open, &self.begun) {
            (false, _) => Err(SendError::Closing),
            (true, Some(_)) => Err(SendError::MessageUnderWay),
            (true, None) => Ok(()),
        };
        let may_control = if open { Ok(()) } else { Err(SendError::Closing) };
        match op {
            Op::Send(message) => {
                assert_eq!(connection.send(message.clone()), may);
                self.messages.extend(may.is_ok().then_some(message));
            }
            Op::SendPrepared(message) => {
                assert_eq!(connection.send_prepared(&PreparedMessage::new(message.clone())), may);
                self.messages.extend(may.is_ok().then_some(message));
            }
            Op::SendChunks(message, cuts) if may.is_ok() => {
                for chunk in cut(&message, &cuts) {
                    connection.send_chunk(chunk).unwrap();
                }
                self.messages.push(message);
            }
            Op::SendChunks(..) => {}
            Op::Chunk(text, last) => {
                let chunk = Chunk { data: text.clone().into(), last };
                assert_eq!(connection.send_chunk(chunk), may_control);
                if open {
                    let text = self.begun.take().unwrap_or_default() + &text;
                    if last {
                        self.messages.push(text.into());
                    } else {
                        self.begun = Some(text);
                    }
                }
            }
            Op::Ping(payload) => {
                assert_eq!(connection.ping(payload.clone()), may_control);
                self.pings.extend(may_control.is_ok().then_some(payload));
            }
            Op::Close(code, reason) => {
                let frame = CloseFrame::new(CloseCode::new(code).unwrap(), reason);
                assert_eq!(connection.close(frame), may_control);
            }
            Op::Carry(most) => {
                pair.carry(sender, most);
            }
        }
    }

    /// Checks what the other end heard.
    fn assert_heard_by(&self, receiver: &Endpoint) {
        let messages = receiver.events.iter().filter_map(|event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        });
        assert!(messages.eq(&self.messages), "{:?} heard other messages", receiver.role);
        let pings = receiver.events.iter().filter_map(|event| match event {
            Event::Ping(payload) => Some(payload),
            _ => None,
        });
        assert!(pings.eq(&self.pings), "{:?} heard other pings", receiver.role);
    }
}

proptest! {
    /// Any sequence of messages, whole, prepared or fragmented, and of Pings in between, both ways at
    /// once over a transport that takes and gives what it likes.
    #[test]
    fn everything_arrives_in_order(ops in vec((role(), sending()), 0..40)) {
        let mut pair = Pair::new();
        let (mut client, mut server) = (Sent::default(), Sent::default());
        for (sender, op) in ops {
            let sent = if sender == Role::Client { &mut client } else { &mut server };
            sent.apply(&mut pair, sender, op);
        }
        pair.run();
        client.assert_heard_by(&pair.server);
        server.assert_heard_by(&pair.client);
        // §5.5.3: each of the Pings may have been answered, the newest must have been.
        for (sent, heard) in [(&client, &pair.client), (&server, &pair.server)] {
            let mut pings = sent.pings.iter();
            let mut last = None;
            for event in &heard.events {
                let Event::Pong(payload) = event else { continue };
                prop_assert!(pings.any(|ping| ping == payload), "a Pong out of order");
                last = Some(payload);
            }
            prop_assert_eq!(last.map(|payload| &payload[..]), sent.pings.last().map(|ping| &ping[..]));
        }
        prop_assert_eq!((pair.client.state(), pair.server.state()), (State::Open, State::Open));
    }

    /// Whoever closes, when, and how far the bytes have got: nobody waits for ever, what was accepted
    /// before a Close has arrived, and both ends tell the same story.
    #[test]
    fn every_connection_ends_with_both_ends_knowing_the_same(
        ops in vec((role(), anything()), 0..60),
        last in role(),
    ) {
        let mut pair = Pair::new();
        let (mut client, mut server) = (Sent::default(), Sent::default());
        for (sender, op) in ops {
            let sent = if sender == Role::Client { &mut client } else { &mut server };
            sent.apply(&mut pair, sender, op);
        }
        // Somebody has to.
        let _ = pair.from(last).0.connection.close(CloseCode::NORMAL);
        pair.run();
        client.assert_heard_by(&pair.server);
        server.assert_heard_by(&pair.client);
        prop_assert_eq!((pair.client.state(), pair.server.state()), (State::Closed, State::Closed));
        let (one, other) = (pair.client.connection.closed(), pair.server.connection.closed());
        prop_assert!(one.received.is_some() && one.received == other.sent, "{one} / {other}");
        prop_assert!(one.sent.is_some() && one.sent == other.received, "{one} / {other}");
        prop_assert!(!(one.received_first && other.received_first), "{one} / {other}");
        prop_assert_eq!((one.cause, other.cause), (None, None));
        // The end is told once, behind everything else.
        for end in [&pair.client, &pair.server] {
            let closed = end.events.iter().filter(|event| matches!(event, Event::Closed(_))).count();
            prop_assert!(matches!(end.events[..], [.., Event::Closing(_), Event::Closed(_)]));
            prop_assert_eq!(closed, 1);
        }
        prop_assert_eq!(pair.server.shutdowns, 1);
    }
}
