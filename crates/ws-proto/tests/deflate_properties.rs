//! Properties of permessage-deflate (RFC 7692): whatever was agreed on, and however messages are made
//! and cut, they arrive as they were; and no payload that claims to be compressed does harm.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[path = "support/deflated.rs"]
mod deflated;
mod support;

use deflated::{agree, compress, endpoint, in_pieces, joined, noise, stored_payload};
use proptest::{collection::vec, prelude::*, sample::Index};
use support::{Outcome, frame, from_peer};
use ws_proto::{
    AgreedDeflate, Chunk, Compression, Config, Context, Deflate, Event, Message, Outgoing,
    PreparedMessage, Role, State,
};

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

/// Windows, contexts, levels and memory; now and then the window that has no compressor.
fn agreement() -> impl Strategy<Value = AgreedDeflate> {
    let context = || {
        (any::<bool>(), 8..=15u8)
            .prop_map(|(takeover, window_bits)| Context { takeover, window_bits })
    };
    (1..=9u8, 1..=9u8, 0..300usize, context(), context()).prop_map(
        |(level, mem_level, threshold, send, receive)| {
            let settings = Deflate::default().level(level).mem_level(mem_level);
            settings.threshold(threshold).agree(send, receive)
        },
    )
}

/// Few words, so that contexts have something to remember; noise, which has nothing; and long ones,
/// beyond the smaller windows.
fn message() -> impl Strategy<Value = Message> {
    let word = prop::sample::select(vec!["alpha", "beta", "γάμμα", "{\"id\": ", "𝄞", "\n"]);
    prop_oneof![
        3 => vec(word, 0..200).prop_map(|words| words.concat().into()),
        1 => any::<String>().prop_map(Message::from),
        1 => (0..3000usize, any::<u64>()).prop_map(|(len, seed)| noise(len, seed, 0..=255).into()),
        1 => (any::<u8>(), 0..70_000usize).prop_map(|(byte, len)| vec![byte; len].into()),
        1 => (1..9000usize, any::<u64>(), 1..4usize)
            .prop_map(|(len, seed, times)| noise(len, seed, b'a'..=b'z').repeat(times).into()),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Send(Message, Compression),
    SendPrepared(Message, Compression),
    /// In chunks that are cut there; text is cut between characters.
    SendChunks(Message, Vec<Index>),
    Ping(Vec<u8>),
    /// So many bytes of what the sender owes go over.
    Carry(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let wish = prop::sample::select(vec![
        Compression::Auto,
        Compression::Auto,
        Compression::Always,
        Compression::Never,
    ]);
    let outgoing = || (message(), wish.clone());
    prop_oneof![
        4 => outgoing().prop_map(|(message, wish)| Op::Send(message, wish)),
        2 => outgoing().prop_map(|(message, wish)| Op::SendPrepared(message, wish)),
        2 => (message(), vec(any::<Index>(), 0..5)).prop_map(|(m, cuts)| Op::SendChunks(m, cuts)),
        1 => vec(any::<u8>(), 0..126).prop_map(Op::Ping),
        3 => (0..3000usize).prop_map(Op::Carry),
    ]
}

/// The pieces of a message, cut at these places or a little before.
fn cut(message: &Message, cuts: &[Index]) -> Vec<Chunk> {
    let text = message.as_text();
    let floor = |at| (0..=at).rev().find(|at| text.is_none_or(|text| text.is_char_boundary(*at)));
    let mut cuts: Vec<_> =
        cuts.iter().filter_map(|cut| floor(cut.index(message.len() + 1))).collect();
    cuts.extend([0, message.len()]);
    cuts.sort_unstable();
    let piece = |ends: &[usize]| {
        let data = match text {
            Some(text) => text[ends[0]..ends[1]].into(),
            None => message.as_bytes()[ends[0]..ends[1]].into(),
        };
        Chunk { data, last: false }
    };
    let mut chunks: Vec<_> = cuts.windows(2).map(piece).collect();
    chunks.last_mut().unwrap().last = true;
    chunks
}

/// Deflate of all kinds, in part broken: what a compressor makes, with bytes replaced, cut off, put
/// behind; blocks of each type; and any bytes.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        any::<String>().prop_map(String::into_bytes),
        vec(any::<u8>(), 0..200),
        (any::<u8>(), 0..3000usize).prop_map(|(byte, len)| vec![byte; len]),
        (0..800usize, any::<u64>()).prop_map(|(len, seed)| noise(len, seed, b'a'..=b'h')),
    ];
    let good = (data, any::<bool>())
        .prop_map(|(data, dense)| if dense { compress(&data) } else { stored_payload(&data) });
    let broken = (good.clone(), any::<Index>(), any::<u8>(), any::<Index>()).prop_map(
        |(mut payload, at, value, end)| {
            *at.get_mut(&mut payload) = value;
            payload.truncate(payload.len() - end.index(payload.len()) / 8);
            payload
        },
    );
    prop_oneof![
        3 => good.clone(),
        3 => broken,
        1 => (good, vec(any::<u8>(), 0..10)).prop_map(|(good, more)| [good, more].concat()),
        1 => vec(any::<u8>(), 0..60),
    ]
}

/// Messages of one type that claim to be compressed, each in fragments.
fn frames(first: u8) -> impl Strategy<Value = Vec<u8>> {
    vec((payload(), 1..300usize), 1..5).prop_map(move |messages| {
        let mut frames = Vec::new();
        for (payload, size) in messages {
            let count = payload.chunks(size).count();
            for (i, piece) in payload.chunks(size).enumerate() {
                let fin = if i + 1 == count { 0x80 } else { 0 };
                frames.extend(frame(fin | if i == 0 { first } else { 0 }, piece));
            }
        }
        frames
    })
}

/// Limits that short inputs reach.
fn tight() -> Config {
    Config::default().max_message_size(600).max_frame_size(400).max_fragments(6)
}

fn outcome(
    role: Role,
    config: &Config,
    agreed: &AgreedDeflate,
    frames: &[u8],
    sizes: impl IntoIterator<Item = usize>,
    streaming: bool,
) -> Outcome {
    let mut endpoint = endpoint(role, config, agreed);
    endpoint.connection.set_streaming(streaming);
    in_pieces(endpoint, &from_peer(role, frames), sizes)
}

fn assert_any_cut_is_the_same(
    role: Role,
    frames: &[u8],
    sizes: &[usize],
    takeover: bool,
) -> Result<(), TestCaseError> {
    let agreed = agree(&Deflate::default(), takeover, 15);
    for config in [Config::default(), tight()] {
        let whole = outcome(role, &config, &agreed, frames, [], false);
        let bytes = vec![1; frames.len() * 2];
        prop_assert_eq!(&whole, &outcome(role, &config, &agreed, frames, bytes, false));
        let pieces = sizes.iter().copied();
        prop_assert_eq!(&whole, &outcome(role, &config, &agreed, frames, pieces, false));
        for event in &whole.events {
            let Event::Message(message) = event else { panic!("{event:?}") };
            prop_assert!(message.len() as u64 <= config.limits().max_message_size);
        }
        let code = whole.closed.cause.as_ref().map(|cause| cause.close_code().value());
        prop_assert!(matches!(code, None | Some(1007 | 1009)), "{:?}", code);
        prop_assert_eq!(code.is_some(), whole.state == State::Draining);
    }
    Ok(())
}

proptest! {
    /// Both ways at once, over a transport that takes and gives what it likes, handed out whole or in
    /// chunks.
    #[test]
    fn whatever_was_agreed_on_messages_arrive_as_they_were(
        agreed in agreement(),
        ops in vec((role(), op()), 0..30),
        streaming: bool,
    ) {
        let mut pair = deflated::pair(&Config::default(), Role::Client, &agreed);
        pair.client.connection.set_streaming(streaming);
        pair.server.connection.set_streaming(streaming);
        let (mut by_client, mut by_server) = (Vec::new(), Vec::new());
        for (sender, op) in ops {
            let connection = &mut pair.from(sender).0.connection;
            let sent = if sender == Role::Client { &mut by_client } else { &mut by_server };
            match op {
                Op::Send(message, compression) => {
                    sent.push(message.clone());
                    connection.send(Outgoing { message, compression }).unwrap();
                }
                Op::SendPrepared(message, compression) => {
                    sent.push(message.clone());
                    let prepared = PreparedMessage::new(Outgoing { message, compression });
                    connection.send_prepared(&prepared).unwrap();
                    prop_assert!(prepared.compressions() <= 1);
                }
                Op::SendChunks(message, cuts) => {
                    for chunk in cut(&message, &cuts) {
                        connection.send_chunk(chunk).unwrap();
                    }
                    sent.push(message);
                }
                Op::Ping(payload) => connection.ping(payload).unwrap(),
                Op::Carry(most) => {
                    pair.carry(sender, most);
                }
            }
        }
        pair.run();
        for (sent, end) in [(by_client, &mut pair.server), (by_server, &mut pair.client)] {
            prop_assert_eq!(end.state(), State::Open, "{}", end.connection.closed());
            let heard = joined(std::mem::take(&mut end.events));
            let heard = heard.into_iter().filter_map(|event| match event {
                Event::Message(message) => Some(message),
                _ => None,
            });
            prop_assert!(heard.eq(sent), "{:?} heard other messages", end.role);
        }
    }

    #[test]
    fn any_cut_of_any_compressed_binary_gives_the_same_outcome(
        role in role(),
        frames in frames(0x42),
        sizes in vec(0..80usize, 0..40),
        takeover: bool,
    ) {
        assert_any_cut_is_the_same(role, &frames, &sizes, takeover)?;
    }

    #[test]
    fn any_cut_of_any_compressed_text_gives_the_same_outcome(
        role in role(),
        frames in frames(0x41),
        sizes in vec(0..80usize, 0..40),
        takeover: bool,
    ) {
        assert_any_cut_is_the_same(role, &frames, &sizes, takeover)?;
    }

    /// Chunks put together are the messages, up to what came of the one that broke off.
    #[test]
    fn streaming_tells_the_same_as_whole_messages(
        role in role(),
        frames in prop_oneof![frames(0x41), frames(0x42)],
        sizes in vec(0..80usize, 0..40),
        takeover: bool,
    ) {
        let config = Config::default();
        let agreed = agree(&Deflate::default(), takeover, 15);
        let whole = outcome(role, &config, &agreed, &frames, [], false);
        let chunks = outcome(role, &config, &agreed, &frames, sizes, true);
        prop_assert_eq!(joined(chunks.events), whole.events);
        prop_assert_eq!(chunks.state, whole.state);
        prop_assert_eq!(chunks.closed.cause.is_some(), whole.closed.cause.is_some());
    }
}
