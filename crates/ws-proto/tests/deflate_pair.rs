//! What we compress (RFC 7692 §6.1, §7.2.1): which messages, with which window and context; and
//! that the other end, ours or another, gets them as they were.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;
#[path = "support/deflated.rs"]
mod deflated;

use deflated::{
    agree, agreed, assert_same, carried, decompress, echoes, joined, noise, sending, sent,
};
use support::{Endpoint, hex};
use ws_proto::{Chunk, Config, Deflate, Event, Message, Outgoing, PreparedMessage, Role};

const TAKEOVER: [bool; 2] = [false, true];

/// The one frame that a message makes: its first byte and its payload.
#[track_caller]
fn sends(endpoint: &mut Endpoint, message: impl Into<Outgoing>) -> (u8, Vec<u8>) {
    endpoint.connection.send(message).unwrap();
    let [frame] = <[_; 1]>::try_from(sent(endpoint)).unwrap();
    frame
}

// What is compressed.

/// §7.2.3.1 and §7.2.3.6, the other way round.
fn sends_the_examples(role: Role) {
    let mut endpoint = sending(role, &agree(&Deflate::default().threshold(0), true, 15));
    assert_eq!(sends(&mut endpoint, "Hello"), (0xC1, hex("f248cdc9c90700")));
    assert_eq!(sends(&mut endpoint, ""), (0xC1, hex("00")));
    assert_eq!(sends(&mut endpoint, vec![]), (0xC2, hex("00")));
}
both!(sends_the_examples: server_sends_the_examples, client_sends_the_examples);

fn heeds_the_threshold(role: Role) {
    for takeover in TAKEOVER {
        for threshold in [64, 256, 1000] {
            let settings = Deflate::default().threshold(threshold);
            let mut endpoint = sending(role, &agree(&settings, takeover, 15));
            let (short, long) = ("a".repeat(threshold - 1), "a".repeat(threshold));
            assert_eq!(sends(&mut endpoint, &*short), (0x81, short.clone().into_bytes()));
            let (first, payload) = sends(&mut endpoint, &*long);
            assert_eq!(first, 0xC1);
            let plain = decompress(15, [payload]).unwrap();
            assert_eq!(plain, [long.clone().into_bytes()]);
            // Exceptions either way.
            let (first, payload) = sends(&mut endpoint, Message::from(long.clone()).uncompressed());
            assert_eq!((first, payload), (0x81, long.into_bytes()));
            assert_eq!(sends(&mut endpoint, Message::from(short).compressed()).0, 0xC1);
        }
    }
}
both!(heeds_the_threshold: server_heeds_the_threshold, client_heeds_the_threshold);

/// §6.1 leaves it to the sender. A context, though, must see what the peer's sees.
fn sends_what_would_grow_as_it_is(role: Role) {
    for data in [noise(300, 1, 0..=255), noise(100_000, 2, 0..=255), b"abc".to_vec()] {
        let message = || Message::from(data.clone()).compressed();
        let mut endpoint = sending(role, &agreed(false));
        assert!(sends(&mut endpoint, message()) == (0x82, data.clone()));
        let mut endpoint = sending(role, &agreed(true));
        let (first, payload) = sends(&mut endpoint, message());
        assert_eq!(first, 0xC2);
        assert!(decompress(15, [payload]).unwrap() == [data.clone()]);
        // Now it repeats.
        let (first, payload) = sends(&mut endpoint, message());
        assert_eq!(first, 0xC2);
        assert!(data.len() != 300 || payload.len() < 100, "{} bytes", payload.len());
    }
}
both!(sends_what_would_grow_as_it_is:
    server_sends_what_would_grow_as_it_is, client_sends_what_would_grow_as_it_is);

/// §6.1: RSV1 on the first fragment alone; the fragments' payloads are that of one message.
fn compresses_chunks(role: Role) {
    for takeover in TAKEOVER {
        let mut endpoint = sending(role, &agreed(takeover));
        let mut payloads = Vec::new();
        for _ in 0..3 {
            for (text, last) in
                [("Hel", false), ("", false), ("lo, Hello, Hello", false), ("", true)]
            {
                let chunk = Chunk { data: text.into(), last };
                endpoint.connection.send_chunk(chunk).unwrap();
            }
            let frames = sent(&mut endpoint);
            let firsts: Vec<_> = frames.iter().map(|frame| frame.0).collect();
            assert_eq!(firsts, [0x41, 0x00, 0x00, 0x80]);
            payloads.push(frames.into_iter().flat_map(|frame| frame.1).collect::<Vec<_>>());
        }
        // Only a context makes the second one smaller than the first.
        assert_eq!(payloads[1].len() < payloads[0].len(), takeover);
        assert_eq!(decompress(15, payloads).unwrap(), [b"Hello, Hello, Hello"; 3]);
    }
}
both!(compresses_chunks: server_compresses_chunks, client_compresses_chunks);

// Windows.

/// A decompressor of this kind notices, so the next test can rely on it.
#[test]
fn a_window_that_is_exceeded_does_not_go_unnoticed() {
    let payload = deflated::compress(&echoes());
    assert!(decompress(15, [payload.clone()]).unwrap() == [echoes()]);
    for window_bits in 8..=14 {
        assert!(decompress(window_bits, [payload.clone()]).is_none(), "{window_bits}");
    }
}

/// §7.1.2: "the LZ77 sliding window size" is what was agreed on, or less; for messages larger and
/// smaller than it, in one frame, in chunks and prepared.
fn keeps_to_the_window(role: Role) {
    for (window_bits, level) in (9..=15).zip([1, 2, 3, 4, 6, 9, 1].into_iter().cycle()) {
        for takeover in TAKEOVER {
            let settings = Deflate::default().level(level).threshold(0);
            let mut endpoint = sending(role, &agree(&settings, takeover, window_bits));
            // Later messages would be references to earlier ones, farther back than the window.
            let large = echoes()[..30_000].to_vec();
            let window = echoes()[..1 << window_bits].to_vec();
            let small = echoes()[..500].to_vec();
            let mut expected = Vec::new();
            for _ in 0..2 {
                for message in [&small, &large, &window] {
                    endpoint.connection.send(Message::from(message.clone())).unwrap();
                    let prepared = PreparedMessage::new(message.clone());
                    endpoint.connection.send_prepared(&prepared).unwrap();
                    let (head, tail) = message.split_at(message.len() / 3);
                    for (part, last) in [(head, false), (tail, true)] {
                        let chunk = Chunk { data: part.into(), last };
                        endpoint.connection.send_chunk(chunk).unwrap();
                    }
                    expected.extend([message; 3]);
                }
            }
            let (mut payloads, mut plain) = (vec![], vec![]);
            for (first, payload) in sent(&mut endpoint) {
                match first {
                    // Those that were not worth it, which may happen without a context.
                    0x82 if !takeover || role == Role::Server => plain.push(payload),
                    0xC2 | 0x42 => payloads.push(payload),
                    0x80 => payloads.last_mut().unwrap().extend(payload),
                    other => panic!("{other:#x}"),
                }
            }
            assert!(payloads.len() >= 12, "{} of 18 compressed", payloads.len());
            let count = payloads.len() + plain.len();
            let arrived = if takeover {
                decompress(window_bits, payloads)
            } else {
                // Each by itself, though many connections share a compressor.
                let alone = |payload| decompress(window_bits, [payload]).map(|data| data.concat());
                payloads.into_iter().map(alone).collect()
            };
            let arrived = arrived.unwrap_or_else(|| panic!("beyond {window_bits} bits"));
            assert_eq!(count, expected.len());
            let mut expected = expected.into_iter();
            assert!(arrived.iter().all(|message| expected.any(|sent| sent == message)));
        }
    }
}
both!(keeps_to_the_window: server_keeps_to_the_window, client_keeps_to_the_window);

/// A window of 8 bits is legal, and no descendant of zlib has a compressor for it.
fn sends_plain_under_a_window_of_8_bits(role: Role) {
    for takeover in TAKEOVER {
        let agreed = agree(&Deflate::default().threshold(0), takeover, 8);
        let mut endpoint = sending(role, &agreed);
        let text = "a".repeat(1000);
        assert_eq!(sends(&mut endpoint, &*text).0, 0x81);
        assert_eq!(sends(&mut endpoint, Message::from(&*text).compressed()).0, 0x81);
        let prepared = PreparedMessage::new(Message::from(&*text).compressed());
        endpoint.connection.send_prepared(&prepared).unwrap();
        for last in [false, true] {
            endpoint.connection.send_chunk(Chunk { data: (&*text).into(), last }).unwrap();
        }
        let firsts: Vec<_> = sent(&mut endpoint).iter().map(|frame| frame.0).collect();
        assert_eq!((firsts, prepared.compressions()), (vec![0x81, 0x01, 0x80], 0));
        // The peer may use it.
        let outcome = deflated::receive(role, &agreed, &hex("c1 07 f248cdc9c90700"));
        assert_eq!(outcome.words(), ["text \"Hello\""]);
    }
}
both!(sends_plain_under_a_window_of_8_bits:
    server_sends_plain_under_a_window_of_8_bits, client_sends_plain_under_a_window_of_8_bits);

// Many messages.

/// B19: a context survives whatever goes between, a thousand times.
fn keeps_its_context_over_a_thousand_messages(sender: Role) {
    for takeover in TAKEOVER {
        let mut pair = deflated::pair(&Config::default(), sender, &agreed(takeover));
        let mut messages = Vec::new();
        for i in 0..1000u32 {
            let text =
                Message::from(format!("{{\"number\":{i},\"name\":\"somebody\"}}").repeat(20));
            let message = match i % 8 {
                0 => Message::from(noise(700, i.into(), 0..=255)).compressed(),
                1 => text.uncompressed(),
                2 => Message::from("short").into(),
                3 => Message::from("").compressed(),
                4 => Message::from(noise(700, i.into(), b'a'..=b'p')).into(),
                _ => text.into(),
            };
            let (from, _) = pair.from(sender);
            from.connection.send(message.clone()).unwrap();
            messages.push(message.message);
            if i % 7 == 0 {
                pair.run();
            }
        }
        pair.run();
        assert_same(&pair.from(sender).1.events, &messages);
    }
}
both!(keeps_its_context_over_a_thousand_messages:
    server_keeps_its_context_over_a_thousand_messages,
    client_keeps_its_context_over_a_thousand_messages);

/// B20: a message that does not compress is not cut short where a buffer ends.
fn sends_large_noise_whole(sender: Role) {
    let message = Message::from(noise(1 << 20, 9, 0..=255));
    for takeover in TAKEOVER {
        let events = carried(sender, &agreed(takeover), |from| {
            from.connection.send(message.clone().compressed()).unwrap();
            from.connection.send(message.clone()).unwrap();
        });
        assert_same(&events, &[message.clone(), message.clone()]);
    }
}
both!(sends_large_noise_whole: server_sends_large_noise_whole, client_sends_large_noise_whole);

/// Compressed sizes around that of our scratch space, one by one: nothing is lost or made twice
/// where a flush just fits, or just does not.
fn sends_messages_of_about_64_kib_whole(sender: Role) {
    let data = noise(70_000, 5, 0..=127);
    // Literals below 144 have 8 bits in a fixed block, so payloads grow byte by byte.
    let sizes = (65_536 - 20)..(65_536 + 10);
    let peer = if sender == Role::Server { Role::Client } else { Role::Server };
    let mut seen = Vec::new();
    for takeover in TAKEOVER {
        for size in sizes.clone() {
            let message = Message::from(&data[..size]);
            let mut endpoint = sending(sender, &agreed(takeover));
            for chunks in [false, true] {
                if chunks {
                    let chunk = Chunk { data: message.clone(), last: true };
                    endpoint.connection.send_chunk(chunk).unwrap();
                } else {
                    endpoint.connection.send(message.clone()).unwrap();
                }
            }
            endpoint.write(usize::MAX);
            let mut peer = sending(peer, &agreed(takeover));
            peer.feed(&endpoint.wire);
            assert_same(&peer.events, &[message.clone(), message]);
            let frames = sent(&mut endpoint);
            seen.extend(frames.iter().filter(|frame| frame.0 == 0xC2).map(|frame| frame.1.len()));
        }
    }
    let fits = 65_536 - deflated::TAIL.len();
    assert!(seen.contains(&(fits - 1)) && seen.iter().any(|len| *len > fits), "{seen:?}");
}
both!(sends_messages_of_about_64_kib_whole:
    server_sends_messages_of_about_64_kib_whole, client_sends_messages_of_about_64_kib_whole);

/// What one end hands out in chunks is what the other end sent, whole or in chunks.
fn streams_compressed_messages(sender: Role) {
    for takeover in TAKEOVER {
        let text = Message::from("aé€𝄞, and so on; ".repeat(5000));
        let zeros = Message::from(vec![0; 900_000]);
        let mut pair = deflated::pair(&Config::default(), sender, &agreed(takeover));
        let (from, to) = pair.from(sender);
        to.connection.set_streaming(true);
        for message in [&text, &zeros, &text] {
            from.connection.send(message.clone()).unwrap();
        }
        for (i, part) in "é€𝄞".repeat(100).chars().map(String::from).enumerate() {
            from.connection.send_chunk(Chunk { data: part.into(), last: i == 299 }).unwrap();
        }
        while pair.carry(sender, 1000) {}
        let events = std::mem::take(&mut pair.from(sender).1.events);
        let chunks: Vec<_> = events.iter().filter(|e| matches!(e, Event::Chunk(_))).collect();
        assert_eq!(chunks.len(), events.len());
        for event in chunks {
            let Event::Chunk(chunk) = event else { unreachable!() };
            assert!(chunk.data.len() <= (16 << 10) + (1100 << 10), "{}", chunk.data.len());
        }
        let last = Message::from("é€𝄞".repeat(100));
        assert_same(&joined(events), &[text.clone(), zeros, text, last]);
    }
}
both!(streams_compressed_messages:
    client_streams_compressed_messages, server_streams_compressed_messages);

/// The allowance for a payload that is larger than its message grows with the fragments, each of
/// which ends in a flush of its own.
fn takes_a_message_at_the_limit_in_tiny_chunks(sender: Role) {
    let letters = noise(10_000, 5, b'a'..=b'z');
    let config = Config::default().max_message_size(letters.len() as u64);
    for takeover in TAKEOVER {
        let mut pair = deflated::pair(&config, sender, &agreed(takeover));
        for (i, part) in letters.chunks(10).enumerate() {
            let chunk = Chunk { data: part.into(), last: i == 999 };
            pair.from(sender).0.connection.send_chunk(chunk).unwrap();
        }
        while pair.carry(sender, 1000) {}
        let events = std::mem::take(&mut pair.from(sender).1.events);
        assert_eq!(events, [Event::Message(letters.clone().into())]);
    }
}
both!(takes_a_message_at_the_limit_in_tiny_chunks:
    client_takes_a_message_at_the_limit_in_tiny_chunks,
    server_takes_a_message_at_the_limit_in_tiny_chunks);
