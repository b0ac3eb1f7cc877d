//! [`PreparedMessage`]s under permessage-deflate (RFC 7692): compressed once for many receivers, whatever
//! these agreed on, and without a trace in anybody's context but the receiver's.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;
#[path = "support/deflated.rs"]
mod deflated;

use deflated::{agree, agreed, assert_same, carried, decompress, noise, sending, sent};
use support::split;
use ws_proto::{
    Chunk, Deflate, Message, Outbound, Outgoing, PreparedMessage, Role, SendQueue, Transmit,
    bytes::Buf,
};

const TAKEOVER: [bool; 2] = [false, true];

/// T23: one message, receivers of all kinds; compressed once for all of them that have room for it in
/// their windows, and once for each window that is smaller.
#[test]
fn one_prepared_message_serves_all_receivers() {
    for (message, most) in [
        (Message::from("small and small and small. ".repeat(15)), 1),
        (Message::from("a bit more than 512 bytes. ".repeat(40)), 2),
        (Message::from("larger than most windows. ".repeat(1000)), 3),
        (Message::from(noise(4000, 1, 0..=255)), 2),
        (Message::from("short"), 0),
    ] {
        let prepared = PreparedMessage::new(message.clone());
        let plain = agreed(false);
        for _ in 0..2 {
            for window_bits in [9, 12, 15] {
                for takeover in TAKEOVER {
                    let agreed = agree(&Deflate::default(), takeover, window_bits);
                    let events = carried(Role::Server, &agreed, |from| {
                        from.connection.send_prepared(&prepared).unwrap();
                    });
                    assert_same(&events, std::slice::from_ref(&message));
                    let frame = prepared.frame_for(Some(&agreed));
                    if frame[0] & 0x40 != 0 {
                        let header = if frame[1] == 126 { 4 } else { 2 };
                        let data = decompress(window_bits, [frame[header..].to_vec()]).unwrap();
                        assert!(data[0] == message.as_bytes());
                    }
                }
            }
            let mut pair = support::Pair::new();
            pair.server.connection.send_prepared(&prepared).unwrap();
            pair.run();
            assert_same(&pair.client.events, std::slice::from_ref(&message));
            assert_eq!(prepared.frame_for(None), prepared.as_frame());
        }
        assert!(prepared.compressions() <= most, "{} times", prepared.compressions());
        assert_eq!(prepared.clone().frame_for(Some(&plain)), prepared.frame_for(Some(&plain)));
    }
}

#[test]
fn a_prepared_message_keeps_the_wish_it_was_made_with() {
    let text = Message::from("a".repeat(1000));
    let prepared = PreparedMessage::new(text.clone().uncompressed());
    assert_eq!(prepared.frame_for(Some(&agreed(true)))[0], 0x81);
    assert_eq!((prepared.compressions(), prepared.outgoing()), (0, text.uncompressed()));
    let prepared = PreparedMessage::new(Message::from("a".repeat(100)).compressed());
    assert_eq!(prepared.frame_for(Some(&agreed(false)))[0], 0xC1);
    for role in [Role::Server, Role::Client] {
        let mut endpoint = sending(role, &agreed(true));
        endpoint.connection.send_prepared(&prepared).unwrap();
        assert_eq!(sent(&mut endpoint)[0].0, 0xC1);
    }
}

/// T23: nobody's context but the receiver's has seen a prepared message, so the sender's starts anew,
/// and is a context again.
fn goes_on_after_prepared_messages(sender: Role) {
    for (takeover, window_bits) in [(true, 15), (true, 9), (false, 15), (false, 9)] {
        let agreed = agree(&Deflate::default().threshold(16), takeover, window_bits);
        let line = |i: usize| Message::from(format!("line {i} of the same old story, once more"));
        let mut messages = Vec::new();
        let events = carried(sender, &agreed, |from| {
            for i in 0..50 {
                let own = line(i % 3);
                from.connection.send(own.clone()).unwrap();
                messages.push(own);
                if i % 4 != 3 {
                    continue;
                }
                // Enough to push what the context knew out of the peer's window.
                let news = Message::from(noise(100 * i, i as u64, b'a'..=b'f'));
                from.connection.send_prepared(&PreparedMessage::new(news.clone())).unwrap();
                messages.push(news);
                for (part, last) in [("li", false), ("ne 1 of the same old story", true)] {
                    let chunk = Chunk { data: part.into(), last };
                    from.connection.send_chunk(chunk).unwrap();
                }
                messages.push("line 1 of the same old story".into());
            }
        });
        assert_same(&events, &messages);
    }
}
both!(goes_on_after_prepared_messages:
    server_goes_on_after_prepared_messages, client_goes_on_after_prepared_messages);

/// A broadcast: frames of several prepared messages at once, past the queue or through it.
#[test]
fn a_context_starts_anew_behind_frames_that_others_compressed() {
    let agreed = agree(&Deflate::default().threshold(16), true, 15);
    let server = sending(Role::Server, &agreed).connection;
    let mut client = sending(Role::Client, &agreed);
    let (_, mut outbound) = server.into_halves();
    let own = Message::from("something that repeats, something that repeats");
    let news = [Message::from("news ".repeat(100)), Message::from("more news ".repeat(100))];
    let prepared = news.clone().map(PreparedMessage::new);
    let frames: Vec<u8> =
        prepared.iter().flat_map(|message| message.frame_for(Some(&agreed)).to_vec()).collect();
    let mut expected = Vec::new();
    for round in 0..3 {
        outbound.send(own.clone()).unwrap();
        if round == 1 {
            client.feed(&owed(&mut outbound));
            client.feed(&frames);
            outbound.handle_bypass();
        } else {
            outbound.send_frames(frames.clone().into()).unwrap();
        }
        outbound.send(own.clone()).unwrap();
        outbound.send(own.clone()).unwrap();
        let [first, second] = news.clone();
        expected.extend([own.clone(), first, second, own.clone(), own.clone()]);
    }
    client.feed(&owed(&mut outbound));
    assert_same(&client.events, &expected);
}

fn owed(outbound: &mut Outbound) -> Vec<u8> {
    let mut wire = Vec::new();
    while let Some(Transmit::Data(queue)) = outbound.poll_transmit() {
        let len = queue.len();
        wire.extend(queue.copy_to_bytes(len));
    }
    wire
}

/// What a server's handler queues in one turn, for receivers with contexts and without.
#[test]
fn corked_messages_are_compressed_by_themselves() {
    let messages = [
        Message::from("corked ".repeat(100)),
        Message::from(noise(1000, 1, 0..=255)),
        Message::from(noise(20_000, 2, b'a'..=b'd')),
        Message::from("short"),
    ];
    for window_bits in [9, 15] {
        let agreed = agree(&Deflate::default(), false, window_bits);
        let (_, mut outbound) = sending(Role::Server, &agreed).connection.into_halves();
        let mut corked = SendQueue::new();
        for message in &messages {
            let Outgoing { message, compression } = message.clone().into();
            corked.push_message(&message, compression, Some(&agreed));
        }
        outbound.send_corked(&mut corked).unwrap();
        let wire = owed(&mut outbound);
        let firsts: Vec<_> = split(Role::Server, &wire).iter().map(|frame| frame[0]).collect();
        assert_eq!(firsts, [0xC1, 0x82, 0xC2, 0x81]);
        let mut client = sending(Role::Client, &agreed);
        client.feed(&wire);
        assert_same(&client.events, &messages);
    }
}
