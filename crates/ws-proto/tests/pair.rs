//! Client and server back to back, RFC 6455 §5 and §6: messages of every size, fragments, streaming,
//! prepared messages, keepalive under virtual time, masking keys.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use std::{collections::HashSet, time::Duration};

use support::{Endpoint, Pair, frame, from_peer, in_pieces, split, to_hex};
use ws_proto::{
    ChaChaKeys, Chunk, CloseCode, Config, Connection, Event, Incoming, Keepalive, MaskingKeys,
    Message, PreparedMessage, Role, SendError, SendQueue, State, Transmit,
    bytes::{Buf, BytesMut},
};

/// Sizes at the edges of the length forms (§5.2), of copying and sharing, and of the default limit.
const SIZES: [usize; 10] = [0, 1, 125, 126, 8192, 8193, 65535, 65536, 65537, 1 << 20];

fn text(data: &str, last: bool) -> Chunk {
    Chunk { data: data.into(), last }
}

fn echoes(role: Role) {
    let mut pair = Pair::new();
    for size in SIZES {
        let binary: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let string: String = "aé€😀".chars().cycle().take(size / 3).collect();
        for message in [Message::from(binary), Message::from(string)] {
            pair.from(role).0.connection.send(message.clone()).unwrap();
            while pair.carry(role, 10_007) {}
            let (_, to) = pair.from(role);
            let Some(Event::Message(received)) = to.events.pop() else { panic!("{:?}", to.events) };
            to.connection.send(received).unwrap();
            pair.run();
            assert_eq!(std::mem::take(&mut pair.from(role).0.events), [Event::Message(message)]);
        }
    }
}
both!(echoes: server_hears_its_echo, client_hears_its_echo);

/// B28: §5.4, a Ping waits for the end of the frame under way, not for the end of the message, nor of
/// all that is queued.
fn sends_control_frames_between_fragments(role: Role) {
    let mut endpoint = Endpoint::new(role);
    let connection = &mut endpoint.connection;
    let fragment = "x".repeat(100_000);
    connection.send_chunk(text(&fragment, false)).unwrap();
    connection.send_chunk(text("b", false)).unwrap();
    // The transport takes a part of the first fragment.
    assert_eq!(endpoint.write(1000), 1000);
    endpoint.connection.ping("now").unwrap();
    endpoint.feed(&from_peer(role, &frame(0x89, "you")));
    endpoint.connection.send_chunk(text("c", true)).unwrap();
    endpoint.connection.send("next").unwrap();
    endpoint.write(usize::MAX);
    let frames = split(role, &endpoint.wire);
    let heads: Vec<_> = frames.iter().map(|frame| (frame[0], frame[frame.len() - 1])).collect();
    let (ping, pong) = ((0x89, b'w'), (0x8a, b'u'));
    assert_eq!(heads, [(0x01, b'x'), ping, pong, (0x00, b'b'), (0x80, b'c'), (0x81, b't')]);
}
both!(sends_control_frames_between_fragments:
    server_sends_control_frames_between_fragments, client_sends_control_frames_between_fragments);

fn sends_fragments_with_pings_between(role: Role) {
    let mut pair = Pair::new();
    let (from, _) = pair.from(role);
    for (chunk, ping) in
        [(text("Hel", false), "1"), (text("", false), "2"), (text("lo", true), "3")]
    {
        from.connection.send_chunk(chunk).unwrap();
        from.connection.ping(ping).unwrap();
        from.write(usize::MAX);
    }
    pair.run();
    let (from, to) = pair.from(role);
    assert_eq!(to.heard(), ["ping 31", "ping 32", "ping 33", "text \"Hello\""]);
    assert_eq!(from.heard(), ["pong 31", "pong 32", "pong 33"]);
}
both!(sends_fragments_with_pings_between:
    server_sends_fragments_with_pings_between, client_sends_fragments_with_pings_between);

/// Streaming: text is cut between code points, wherever frames and reads are cut, and is whole again.
fn streams_text_cut_anywhere(role: Role) {
    const TEXT: &str = "aé€😀\u{10ffff}z";
    for first in 0..=TEXT.len() {
        for second in first..=TEXT.len() {
            let (a, b, c) = (
                &TEXT.as_bytes()[..first],
                &TEXT.as_bytes()[first..second],
                &TEXT.as_bytes()[second..],
            );
            let frames =
                [frame(0x01, a), frame(0x89, "p"), frame(0x00, b), frame(0x80, c)].concat();
            let wire = from_peer(role, &frames);
            for size in [1, 2, 3, 5, wire.len()] {
                let mut endpoint = Endpoint::new(role);
                endpoint.connection.set_streaming(true);
                wire.chunks(size).for_each(|piece| endpoint.feed(piece));
                let (mut whole, mut ends) = (String::new(), 0);
                for event in endpoint.events.drain(..).filter(|e| !matches!(e, Event::Ping(_))) {
                    let Event::Chunk(chunk) = event else { panic!("{event:?}") };
                    assert_eq!(ends, 0, "the last chunk is the last");
                    whole += chunk.data.as_text().unwrap();
                    ends += usize::from(chunk.last);
                }
                assert_eq!((whole.as_str(), ends), (TEXT, 1));
            }
        }
    }
}
both!(streams_text_cut_anywhere:
    server_streams_text_cut_anywhere, client_streams_text_cut_anywhere);

/// Chunks come as the bytes do; whether they come applies from the next message on.
fn streams_as_bytes_arrive(role: Role) {
    let mut endpoint = Endpoint::new(role);
    assert!(endpoint.receive("01 01 61").is_empty());
    endpoint.connection.set_streaming(true);
    assert_eq!(endpoint.receive("80 01 62"), ["text \"ab\""]);
    // 5 bytes are declared; 2 are there, the second of them half a code point.
    assert_eq!(endpoint.receive("01 05 63c3"), ["chunk text \"c\""]);
    let rest = from_peer(role, &frame(0x01, b"c\xc3\xa9de"));
    endpoint.feed(&rest[rest.len() - 3..]);
    assert_eq!(endpoint.heard(), ["chunk text \"éde\""]);
    endpoint.connection.set_streaming(false);
    assert_eq!(
        endpoint.receive("00 00 89 00 80 01 66"),
        ["chunk text \"\"", "ping ", "last text \"f\""]
    );
    assert_eq!(endpoint.receive("81 01 67 82 01 68"), ["text \"g\"", "binary 68"]);
    endpoint.connection.set_streaming(true);
    assert_eq!(endpoint.receive("82 00 81 01 69"), ["last binary ", "last text \"i\""]);
    // What was good is out; what is not UTF-8 fails the connection, also at the very end.
    assert_eq!(endpoint.receive("01 02 6ac3 80 00"), ["chunk text \"j\""]);
    let cause = endpoint.connection.closed().cause.unwrap();
    assert_eq!(cause.to_string(), "invalid UTF-8 at position 1");
}
both!(streams_as_bytes_arrive: server_streams_as_bytes_arrive, client_streams_as_bytes_arrive);

fn sends_prepared_messages(role: Role) {
    let mut pair = Pair::new();
    for size in SIZES {
        for message in [Message::from(vec![7; size]), Message::from("x".repeat(size))] {
            let prepared = PreparedMessage::new(message.clone());
            assert_eq!(prepared.message(), message);
            let (from, _) = pair.from(role);
            // Twice, because a client must not mask the shared bytes in place.
            from.connection.send_prepared(&prepared).unwrap();
            from.connection.send_prepared(&prepared).unwrap();
            pair.run();
            let events = std::mem::take(&mut pair.from(role).1.events);
            assert_eq!(events, [Event::Message(message.clone()), Event::Message(message)]);
        }
    }
}
both!(sends_prepared_messages: server_sends_prepared_messages, client_sends_prepared_messages);

/// A client masks in place only what nobody else sees.
#[test]
fn client_leaves_shared_payloads_alone() {
    let mut pair = Pair::new();
    let payload = bytes::Bytes::from(vec![1; 20_000]);
    let (shared, part) = (payload.clone(), payload.slice(5..15_000));
    for data in [payload, part.clone(), bytes::Bytes::from_static(&[1; 10_000])] {
        pair.client.connection.send(data.clone()).unwrap();
        pair.run();
        assert_eq!(pair.server.events.pop(), Some(Event::Message(data.into())));
    }
    assert!(shared.iter().chain(&part).all(|byte| *byte == 1));
}

// §5.3, masking keys.

/// B42: a fresh key for each frame, none shared between connections; from a server never one
/// (`split` asserts that).
#[test]
fn client_masks_every_frame_with_another_key() {
    let frames = |seed: u8| {
        let now = std::time::Instant::now();
        let keys = ChaChaKeys::from_seed([seed; 32]);
        let mut endpoint = Endpoint::new(Role::Client);
        endpoint.connection = Connection::client(&Config::default(), keys, now);
        for _ in 0..1000 {
            endpoint.connection.send("a").unwrap();
            endpoint.connection.ping("").unwrap();
            endpoint.connection.send_chunk(text("", true)).unwrap();
        }
        endpoint.connection.close(CloseCode::NORMAL).unwrap();
        endpoint.write(usize::MAX);
        assert_eq!(split(Role::Client, &endpoint.wire).len(), 3001);
        let mut keys = HashSet::new();
        let mut rest = &endpoint.wire[..];
        while !rest.is_empty() {
            assert!(keys.insert(rest[2..6].to_vec()), "a key came twice");
            rest = &rest[6 + usize::from(rest[1] & 0x7F)..];
        }
        keys
    };
    assert!(frames(1).is_disjoint(&frames(2)));
}

#[test]
fn client_asks_its_own_source_once_for_each_frame() {
    struct Counting(u8);
    impl MaskingKeys for Counting {
        fn next_key(&mut self) -> [u8; 4] {
            self.0 += 1;
            [self.0, 0, 0, 0]
        }
    }
    let mut endpoint = Endpoint::new(Role::Client);
    let start = endpoint.start;
    endpoint.connection = Connection::client(&Config::default(), Counting(0), start);
    endpoint.connection.send(&b"\x00"[..]).unwrap();
    endpoint.connection.send(&b"\x00"[..]).unwrap();
    endpoint.write(usize::MAX);
    assert_eq!(to_hex(&endpoint.wire), "82810100000001 82810200000002".replace(' ', ""));
}

// Keepalive (§5.5.2), under virtual time.

#[test]
fn keepalive_pings_and_is_answered_both_ways() {
    let mut pair = Pair::new();
    for second in 1..=600 {
        pair.at(second);
        let expected: &[&str] = match second {
            _ if second % 20 == 0 => &["ping 6b656570616c697665", "pong 6b656570616c697665"],
            _ => &[],
        };
        assert_eq!(pair.client.heard(), expected, "at {second} s");
        assert_eq!(pair.server.heard(), expected, "at {second} s");
    }
    assert_eq!((pair.client.state(), pair.server.state()), (State::Open, State::Open));
}

fn gives_a_silent_peer_up(role: Role) {
    let mut endpoint = Endpoint::new(role);
    let deadline = |seconds| Some(endpoint.start + Duration::from_secs(seconds));
    let (at_20, at_40) = (deadline(20), deadline(40));
    assert_eq!(endpoint.connection.poll_timeout(), at_20);
    endpoint.timeout(19);
    assert_eq!(endpoint.sent(), "");
    endpoint.timeout(20);
    assert_eq!(endpoint.sent(), to_hex(&frame(0x89, "keepalive")));
    assert_eq!(endpoint.connection.poll_timeout(), at_40);
    endpoint.timeout(39);
    assert_eq!((endpoint.sent().as_str(), endpoint.state()), ("", State::Open));
    endpoint.timeout(40);
    let close = to_hex(&support::close(1011, "keepalive ping timeout"));
    let shutdown = if role == Role::Server { " shutdown" } else { "" };
    assert_eq!(endpoint.sent(), close + shutdown);
    assert_eq!((endpoint.state(), endpoint.connection.poll_timeout()), (State::Draining, None));
    // §7.1.7: what comes now is too late.
    assert!(endpoint.receive("8a00 880203e8").is_empty());
    assert_eq!(endpoint.eof().len(), 1);
}
both!(gives_a_silent_peer_up: server_gives_a_silent_peer_up, client_gives_a_silent_peer_up);

/// What was heard before a Ping says nothing about after it.
fn gives_a_peer_up_that_falls_silent(role: Role) {
    let mut endpoint = Endpoint::new(role);
    endpoint.receive("8100");
    endpoint.timeout(20);
    endpoint.receive("8a00");
    endpoint.timeout(40);
    endpoint.timeout(60);
    assert_eq!(endpoint.state(), State::Draining);
}
both!(gives_a_peer_up_that_falls_silent:
    server_gives_a_peer_up_that_falls_silent, client_gives_a_peer_up_that_falls_silent);

/// T27: whoever slept for minutes has not listened, and so asks once more.
fn grants_a_fresh_round_after_a_suspension(role: Role) {
    let mut endpoint = Endpoint::new(role);
    let ping = to_hex(&frame(0x89, "keepalive"));
    endpoint.timeout(20);
    assert_eq!(endpoint.sent(), ping);
    endpoint.timeout(400);
    assert_eq!((endpoint.sent(), endpoint.state()), (ping, State::Open));
    endpoint.timeout(420);
    assert_eq!(endpoint.state(), State::Draining);
}
both!(grants_a_fresh_round_after_a_suspension:
    server_grants_a_fresh_round_after_a_suspension, client_grants_a_fresh_round_after_a_suspension);

/// B29: any frame is a sign of life, and none postpones the next Ping.
fn takes_any_frame_as_a_sign_of_life(role: Role) {
    for sign in ["8a00", "8900", "8100", "82 01 00"] {
        let mut endpoint = Endpoint::new(role);
        for round in 1..=5 {
            endpoint.timeout(20 * round);
            assert!(endpoint.sent().starts_with("8909"), "{sign} {round}");
            endpoint.receive(sign);
            endpoint.sent();
        }
        assert_eq!(endpoint.state(), State::Open);
    }
}
both!(takes_any_frame_as_a_sign_of_life:
    server_takes_any_frame_as_a_sign_of_life, client_takes_any_frame_as_a_sign_of_life);

/// B29: "any byte from the peer counts": one whose large message takes minutes to come is alive,
/// whether in one frame or in many.
fn takes_any_byte_as_a_sign_of_life(role: Role) {
    for begun in [frame(0x82, [0; 1000]), [frame(0x02, ""), frame(0x00, "x").repeat(300)].concat()]
    {
        let wire = from_peer(role, &begun);
        let mut endpoint = Endpoint::new(role);
        for (second, byte) in (1..).zip(&wire[..300]) {
            endpoint.feed(&[*byte]);
            endpoint.timeout(second);
        }
        assert_eq!(endpoint.state(), State::Open, "{}", endpoint.connection.closed());
    }
}
both!(takes_any_byte_as_a_sign_of_life:
    server_takes_any_byte_as_a_sign_of_life, client_takes_any_byte_as_a_sign_of_life);

/// The interval is what middleboxes see, however long a peer may take to answer.
fn pings_at_its_interval(role: Role) {
    let keepalive = Keepalive::every(Duration::from_secs(5)).timeout(Duration::from_secs(20));
    let mut endpoint = Endpoint::with(role, &Config::default().keepalive(keepalive));
    let mut pings = Vec::new();
    for second in 1..=30 {
        endpoint.timeout(second);
        if endpoint.sent().starts_with("8909") {
            pings.push(second);
            endpoint.receive("8a00");
        }
    }
    assert_eq!(pings, [5, 10, 15, 20, 25, 30]);
}
both!(pings_at_its_interval:
    server_pings_at_its_interval_when_the_timeout_is_longer,
    client_pings_at_its_interval_when_the_timeout_is_longer);

fn does_as_its_keepalive_is_set(role: Role) {
    let with = |keepalive| Endpoint::with(role, &Config::default().keepalive(keepalive));
    let mut off = with(Keepalive::off());
    off.timeout(1_000_000);
    assert_eq!((off.sent().as_str(), off.connection.poll_timeout()), ("", None));
    let mut patient = with(Keepalive::every(Duration::from_secs(1)).without_timeout());
    for second in 1..=100 {
        patient.timeout(second);
        assert!(patient.sent().starts_with("8909"));
    }
    let mut hasty = with(Keepalive::default().timeout(Duration::from_secs(1)));
    hasty.timeout(20);
    hasty.timeout(21);
    assert_eq!(hasty.state(), State::Draining);
}
both!(does_as_its_keepalive_is_set:
    server_does_as_its_keepalive_is_set, client_does_as_its_keepalive_is_set);

// What cannot be sent.

/// "The connection is as it was before the call": a refusal leaves nothing on the wire.
fn stays_usable_after_a_refusal(role: Role) {
    let mut pair = Pair::new();
    let (from, _) = pair.from(role);
    let connection = &mut from.connection;
    assert_eq!(connection.ping(vec![0; 126]), Err(SendError::ControlTooLong(126)));
    connection.send_chunk(text("Hel", false)).unwrap();
    assert_eq!(connection.send("no"), Err(SendError::MessageUnderWay));
    let prepared = PreparedMessage::new("no");
    assert_eq!(connection.send_prepared(&prepared), Err(SendError::MessageUnderWay));
    let binary = Chunk { data: vec![0].into(), last: true };
    assert_eq!(connection.send_chunk(binary.clone()), Err(SendError::MixedTypes));
    connection.ping("ok").unwrap();
    connection.send_chunk(text("lo", true)).unwrap();
    connection.send_chunk(binary).unwrap();
    connection.send_prepared(&prepared).unwrap();
    connection.close(CloseCode::NORMAL).unwrap();
    for refused in [
        connection.send("no"),
        connection.send_prepared(&prepared),
        connection.send_chunk(text("no", true)),
        connection.ping("no"),
        connection.close(CloseCode::NORMAL),
    ] {
        assert_eq!(refused, Err(SendError::Closing));
    }
    pair.run();
    let heard = ["ping 6f6b", "text \"Hello\"", "binary 00", "text \"no\"", "closing 1000 (OK)"];
    assert_eq!(pair.from(role).1.heard()[..5], heard);
    assert!(pair.from(role).0.connection.closed().is_clean());
}
both!(stays_usable_after_a_refusal:
    server_stays_usable_after_a_refusal, client_stays_usable_after_a_refusal);

/// §5.5.1: a Close may cut a message off; the peer tells what it got, and the half message is gone.
fn closes_inside_a_fragmented_message(role: Role) {
    let mut pair = Pair::new();
    let (from, _) = pair.from(role);
    from.connection.send_chunk(text("half", false)).unwrap();
    from.connection.close(CloseCode::GOING_AWAY).unwrap();
    pair.run();
    assert_eq!(pair.from(role).1.heard()[0], "closing 1001 (going away)");
    assert!(pair.from(role).1.connection.closed().is_clean());
}
both!(closes_inside_a_fragmented_message:
    server_closes_inside_a_fragmented_message, client_closes_inside_a_fragmented_message);

/// B18: a masked payload is unmasked in whatever pieces it comes.
#[test]
fn server_unmasks_in_any_pieces() {
    for len in 0..=300usize {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let wire = from_peer(Role::Server, &frame(0x82, &payload));
        for size in [1, 3, 7, 64] {
            let pieces = vec![size; wire.len()];
            let outcome = in_pieces(Role::Server, &Config::default(), &wire, pieces);
            assert_eq!(outcome.events, [Event::Message(payload.clone().into())]);
        }
    }
}

// The halves by themselves, for I/O layers that hold them apart.

#[test]
fn halves_do_what_the_connection_does() {
    let (mut inbound, mut outbound) = Endpoint::new(Role::Server).connection.into_halves();
    let wire = from_peer(Role::Server, &[frame(0x89, "p"), frame(0x82, [5; 1000])].concat());
    let (most, rest) = wire.split_at(wire.len() - 400);
    let mut input = BytesMut::from(most);
    let ping = inbound.poll(&mut input).and_then(|incoming| outbound.handle(incoming));
    assert_eq!(ping, Some(Event::Ping("p".into())));
    assert_eq!(inbound.poll(&mut input), None);
    assert_eq!(inbound.missing(input.len()), 400);
    input.extend_from_slice(rest);
    assert_eq!(inbound.poll(&mut input), Some(Incoming::Message(vec![5; 1000].into())));
    assert_eq!((inbound.missing(0), inbound.is_finished()), (0, false));
    inbound.finish();
    input.extend_from_slice(&wire);
    assert_eq!((inbound.poll(&mut input), input.len()), (None, 0));

    // A turn's messages, framed elsewhere, go behind what is queued; control frames before.
    let mut corked = SendQueue::new();
    for round in 0..2 {
        for frames in [PreparedMessage::new("a"), PreparedMessage::new(vec![1; 10_000])] {
            corked.push_frames(frames.as_frame().clone());
        }
        outbound.send_corked(&mut corked).unwrap();
        assert!(corked.is_empty());
        outbound.send_frames(PreparedMessage::new("b").as_frame().clone()).unwrap();
        outbound.pong(b"q").unwrap();
        assert_eq!(outbound.queued() > 20_000, round == 1);
    }
    let Some(Transmit::Data(queue)) = outbound.poll_transmit() else { panic!() };
    let frames = split(Role::Server, &queue.copy_to_bytes(queue.len()));
    let heads: Vec<_> = frames.iter().map(|frame| frame[0]).collect();
    assert_eq!(heads, [0x8a, 0x8a, 0x8a, 0x81, 0x82, 0x81, 0x81, 0x82, 0x81]);
    assert_eq!(frames[0], frame(0x8a, "p"));
    // While a message goes in chunks, others wait where they are.
    outbound.send_chunk(text("c", false)).unwrap();
    corked.push_frames(PreparedMessage::new("d").as_frame().clone());
    assert_eq!(outbound.send_corked(&mut corked), Err(SendError::MessageUnderWay));
    assert_eq!((corked.len(), outbound.is_mid_message()), (3, true));
    outbound.discard();
    assert!(outbound.poll_transmit().is_none() && outbound.poll_timeout().is_none());
    assert_eq!((outbound.queued(), outbound.state()), (0, State::Open));
}
