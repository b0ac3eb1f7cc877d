//! RFC 7692 §6 and §7.2 (framing of compressed messages, DEFLATE, §7.2.3 with its examples), rule by
//! rule, for both roles; and the Close frame that each violation earns.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;
#[path = "support/deflated.rs"]
mod deflated;

use deflated::{agreed, compress, endpoint, noise, receive, stored, stored_payload};
use support::{Outcome, assert_fails, frame, from_peer, hex};
use ws_proto::{Config, Event, Message, ProtocolError, Role, State};

const TAKEOVER: [bool; 2] = [false, true];
const INVALID: &str = "invalid compressed data";

/// With contexts and without.
#[track_caller]
fn accepts(role: Role, frames: &[u8], events: &[&str]) -> Outcome {
    let [outcome, other] = TAKEOVER.map(|takeover| receive(role, &agreed(takeover), frames));
    assert_eq!(outcome, other);
    assert_eq!(outcome.words(), events);
    assert_eq!((outcome.state, &outcome.closed.cause), (State::Open, &None));
    outcome
}

#[track_caller]
fn rejects(role: Role, frames: &[u8], events: &[&str], code: u16, reason: &str) {
    for takeover in TAKEOVER {
        let outcome = receive(role, &agreed(takeover), frames);
        assert_fails(&outcome, role, events, code, reason);
    }
}

// §7.2.3, the examples.

fn examples_of_the_rfc(role: Role) {
    for frames in [
        // §7.2.3.1: one block, in one frame and in two.
        "c1 07 f248cdc9c90700",
        "41 03 f248cd 80 04 c9c90700",
        // §7.2.3.3: a block without compression.
        "c1 0b 000500faff48656c6c6f00",
        // §7.2.3.4: a block with BFINAL set, and the byte that makes the tail a block again.
        "c1 08 f348cdc9c9070000",
        // §7.2.3.5: two blocks, of which the first ends in a flush.
        "c1 0d f248050000 00ffffcac9c90700",
    ] {
        accepts(role, &hex(frames), &["text \"Hello\""]);
    }
}
both!(examples_of_the_rfc: server_receives_the_examples, client_receives_the_examples);

/// §7.2.3.2: the second "Hello" is a reference to the first.
fn shares_the_window_between_messages(role: Role) {
    let frames = hex("c1 07 f248cdc9c90700 c1 05 f200110000");
    let outcome = receive(role, &agreed(true), &frames);
    assert_eq!(outcome.words(), ["text \"Hello\"", "text \"Hello\""]);
    // §7.1.1: without context takeover there is nothing to refer to.
    let outcome = receive(role, &agreed(false), &frames);
    assert_fails(&outcome, role, &["text \"Hello\""], 1007, INVALID);
    // What is not compressed has no part in the window, and takes nothing from it.
    let frames = hex("c1 07 f248cdc9c90700 81 03 616263 02 01 00 80 00 c1 05 f200110000");
    let outcome = receive(role, &agreed(true), &frames);
    let events = ["text \"Hello\"", "text \"abc\"", "binary 00", "text \"Hello\""];
    assert_eq!(outcome.words(), events);
}
both!(shares_the_window_between_messages:
    server_shares_the_window_between_messages, client_shares_the_window_between_messages);

/// Connections share decompressors, but never what those remember: not that of a connection which is
/// done with a message, is in the middle of one, failed in one, or kept its context to its end.
fn sees_nothing_of_other_connections(role: Role) {
    for (frames, takeover) in [
        ("c1 07 f248cdc9c90700", false),
        ("c1 07 f248cdc9c90700", true),
        ("41 07 f248cdc9c90700", false),
        ("c1 09 f248cdc9c907000000", false),
        ("c1 08 f248cdc9c907 0607", false),
    ] {
        let mut other = endpoint(role, &Config::default(), &agreed(takeover));
        other.feed(&from_peer(role, &hex(frames)));
        drop(other);
        // "Hello" once more, for whom it was said to.
        for takeover in TAKEOVER {
            let mut endpoint = endpoint(role, &Config::default(), &agreed(takeover));
            assert_eq!(endpoint.receive("c2 05 f200110000"), [""; 0], "after {frames}");
            assert_eq!(endpoint.state(), State::Draining);
        }
        accepts(role, &hex("c1 07 f248cdc9c90700"), &["text \"Hello\""]);
    }
}
both!(sees_nothing_of_other_connections:
    server_sees_nothing_of_other_connections, client_sees_nothing_of_other_connections);

/// §7.2.3.4: "BFINAL" ends a DEFLATE stream, not the message; what follows is another stream.
fn several_streams_in_a_message(role: Role) {
    accepts(role, &hex("c1 0f f348cdc9c90700 f348cdc9c90700 00"), &["text \"HelloHello\""]);
    accepts(role, &hex("c1 0e f348cdc9c90700 f248cdc9c90700"), &["text \"HelloHello\""]);
    // Leniency: without the byte that the example ends in, which some senders forget.
    accepts(role, &hex("c1 07 f348cdc9c90700"), &["text \"Hello\""]);
    // The next message is none the worse for it.
    let frames = hex("c1 08 f348cdc9c9070000 c1 07 f248cdc9c90700 c1 07 f348cdc9c90700");
    accepts(role, &[&frames[..], &frames].concat(), &["text \"Hello\""; 6]);
    // Behind the end of a stream stands another one, and no garbage.
    rejects(role, &hex("c1 08 f348cdc9c90700 07"), &[], 1007, INVALID);
}
both!(several_streams_in_a_message:
    server_takes_several_streams_in_a_message, client_takes_several_streams_in_a_message);

// §6, the "Per-Message Compressed" bit.

/// §6: RSV1 belongs to the first frame of a data message, and to no other; and RFC 6455 §5.2 for RSV1
/// without negotiation.
fn rsv1_out_of_place(role: Role) {
    let reason = "reserved bits 0b100 must be 0";
    for frames in ["41 03 f248cd c0 04 c9c90700", "01 01 61 c0 01 62", "41 01 00 40 00", "c0 00"] {
        rejects(role, &hex(frames), &[], 1002, reason);
    }
    for opcode in [0x8, 0x9, 0xA] {
        for payload in [vec![], compress(b"\x03\xe8")] {
            let control = frame(0xC0 | opcode, payload);
            rejects(role, &control, &[], 1002, reason);
            rejects(role, &[frame(0x41, "\x00"), control].concat(), &[], 1002, reason);
        }
    }
    for first in [0x41, 0xC1, 0x42, 0xC2] {
        assert_fails(&support::receive(role, &frame(first, [0])), role, &[], 1002, reason);
    }
}
both!(rsv1_out_of_place: server_rejects_rsv1_out_of_place, client_rejects_rsv1_out_of_place);

/// The extension gives RSV1 a meaning, and the others none.
fn rsv2_and_rsv3(role: Role) {
    for bits in [1u8, 2, 3, 5, 6, 7] {
        let reason = format!("reserved bits {bits:#05b} must be 0");
        for opcode in [0x0, 0x1, 0x2, 0x8, 0x9, 0xA] {
            for fin in [0, 0x80] {
                rejects(role, &frame(fin | bits << 4 | opcode, [0]), &[], 1002, &reason);
            }
        }
    }
}
both!(rsv2_and_rsv3: server_rejects_rsv2_and_rsv3, client_rejects_rsv2_and_rsv3);

/// RFC 6455 §5.4 holds for compressed messages, too.
fn fragments_out_of_place(role: Role) {
    for second in [0xC1, 0x81, 0x42, 0x02] {
        let frames = [frame(0x41, [0]), frame(second, "")].concat();
        rejects(role, &frames, &[], 1002, "expected a continuation frame");
    }
    let frames = hex("c1 01 00 80 01 00");
    rejects(role, &frames, &["text \"\""], 1002, "unexpected continuation frame");
}
both!(fragments_out_of_place:
    server_rejects_fragments_out_of_place, client_rejects_fragments_out_of_place);

// §7.2.2, decompression.

#[test]
fn invalid_deflate_earns_1007() {
    assert_eq!(ProtocolError::InvalidDeflate.close_code().value(), 1007);
    assert_eq!(ProtocolError::InvalidDeflate.to_string(), INVALID);
}

fn no_deflate_at_all(role: Role) {
    for payload in [
        "07",             // BTYPE 11, which RFC 1951 §3.2.3 reserves
        "06",             // the same without BFINAL
        "000500faf0",     // LEN and NLEN that do not match
        "f200110000",     // a distance beyond the first byte
        "04c0ffffffffff", // a dynamic block with impossible codes
        "ffffffff",
        "e3ff",
    ] {
        for first in [0xC1, 0xC2] {
            rejects(role, &frame(first, hex(payload)), &[], 1007, INVALID);
        }
    }
    // Judged as soon as it is there, long before the end of a frame that is not small.
    let mut endpoint = endpoint(role, &Config::default(), &agreed(false));
    endpoint.feed(&from_peer(role, &hex("c1 7e 2000 07")));
    assert_eq!(endpoint.state(), State::Draining);
}
both!(no_deflate_at_all: server_rejects_what_is_no_deflate, client_rejects_what_is_no_deflate);

/// One payload for each type of block (RFC 1951 §3.2.3), and what it says.
fn payloads() -> [(Vec<u8>, Vec<u8>); 3] {
    let text = "The quick brown fox jumps over the lazy dog; the dog is not amused. ".repeat(2);
    let letters = noise(600, 1, b'a'..=b'h');
    let payloads = [
        (stored_payload(text.as_bytes()), text.clone().into_bytes()),
        (compress(text.as_bytes()), text.into_bytes()),
        (compress(&letters), letters),
    ];
    assert_eq!(payloads.each_ref().map(|(payload, _)| payload[0] >> 1 & 3), [0, 1, 2]);
    payloads
}

/// Truncated anywhere, the payload is no message: the tail that the receiver appends is not where it
/// belongs.
fn truncated(role: Role) {
    for (i, (payload, data)) in payloads().into_iter().enumerate() {
        accepts(role, &frame(0xC2, &payload), &[&format!("binary {}", support::to_hex(&data))]);
        for cut in 0..payload.len() {
            // No payload is an empty message, as is the first byte of a stored block: §7.2.3.6.
            let empty = cut == 0 || (i == 0 && cut == 1);
            for first in [0xC1, 0xC2] {
                let frames = frame(first, &payload[..cut]);
                if empty {
                    let event = if first == 0xC1 { "text \"\"" } else { "binary " };
                    accepts(role, &frames, &[event]);
                } else {
                    rejects(role, &frames, &[], 1007, INVALID);
                }
            }
        }
    }
}
both!(truncated: server_rejects_truncated_messages, client_rejects_truncated_messages);

/// §7.2.1: the tail is left out; with it, the payload ends in the middle of a block.
fn tail_left_on(role: Role) {
    for (mut payload, _) in payloads() {
        payload.extend(deflated::TAIL);
        rejects(role, &frame(0xC2, payload), &[], 1007, INVALID);
    }
    rejects(role, &hex("c1 0b f248cdc9c907000000ffff"), &[], 1007, INVALID);
    // A flush between, and then an end as it should be: §7.2.3.5 allows it.
    accepts(role, &hex("c1 0c f248cdc9c907000000ffff00"), &["text \"Hello\""]);
}
both!(tail_left_on: server_rejects_a_tail_left_on, client_rejects_a_tail_left_on);

/// Whatever becomes of the bytes on their way: a message of the kind that was sent, or the end.
fn corrupt(role: Role) {
    let config = Config::default().max_message_size(8 << 10);
    for (payload, _) in payloads() {
        for at in 0..payload.len() {
            for value in [payload[at] ^ 0x01, payload[at] ^ 0x10, !payload[at], 0x00, 0x07, 0xff] {
                let mut payload = payload.clone();
                payload[at] = value;
                for first in [0xC1, 0xC2] {
                    let endpoint = endpoint(role, &config, &agreed(at % 2 == 0));
                    let wire = from_peer(role, &frame(first, &payload));
                    let outcome = deflated::in_pieces(endpoint, &wire, []);
                    match (&outcome.events[..], outcome.closed.cause) {
                        ([Event::Message(message)], None) => {
                            assert_eq!(message.is_text(), first == 0xC1);
                        }
                        ([], Some(cause)) => {
                            let code = cause.close_code().value();
                            assert!(matches!(code, 1007 | 1009), "{cause}");
                        }
                        other => panic!("byte {at} to {value:#x}: {other:?}"),
                    }
                }
            }
        }
    }
}
both!(corrupt: server_survives_corrupt_messages, client_survives_corrupt_messages);

// RFC 6455 §8.1 for what comes out.

/// RFC 7692 §6.2: the message is what was decompressed, so that is what has to be UTF-8.
fn invalid_text(role: Role) {
    for data in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80"] {
        for payload in [stored_payload(data), compress(data)] {
            let text = frame(0xC1, &payload);
            rejects(role, &text, &[], 1007, "invalid UTF-8 at position 0");
            let binary = format!("binary {}", support::to_hex(data));
            accepts(role, &frame(0xC2, &payload), &[&binary]);
        }
    }
    // A payload need not be UTF-8, and these are not.
    accepts(role, &frame(0xC1, compress(b"Hello")), &["text \"Hello\""]);
    // An unfinished code point at the end.
    let frames = frame(0xC1, compress("Hellö".as_bytes().split_last().unwrap().1));
    rejects(role, &frames, &[], 1007, "invalid UTF-8 at position 4");
    // The position is that in the message, whatever the blocks and fragments.
    let frames = [frame(0x41, stored("abc")), frame(0x80, stored_payload(b"d\xffe"))].concat();
    rejects(role, &frames, &[], 1007, "invalid UTF-8 at position 4");
}
both!(invalid_text: server_rejects_invalid_text, client_rejects_invalid_text);

/// A code point may be cut by anything.
fn cut_code_points(role: Role) {
    let text = "aé€𝄞z";
    let expected = [&*format!("text {text:?}")];
    let blocks: Vec<_> = text.bytes().map(|byte| stored([byte])).collect();
    accepts(role, &frame(0xC1, [&blocks.concat()[..], &[0]].concat()), &expected);
    let mut frames = frame(0x41, "");
    frames.extend(blocks.iter().flat_map(|block| frame(0x00, block)));
    frames.extend(frame(0x80, [0]));
    accepts(role, &frames, &expected);
    // Each byte of a payload in a fragment of its own, with one without any behind it.
    let mut frames = frame(0x41, "");
    frames.extend(
        compress(text.as_bytes())
            .iter()
            .flat_map(|byte| [frame(0x00, [*byte]), frame(0x00, "")].concat()),
    );
    frames.extend(frame(0x80, ""));
    accepts(role, &frames, &expected);
}
both!(cut_code_points: server_joins_cut_code_points, client_joins_cut_code_points);

/// Around 4 KiB of payload, where messages stop being decompressed in one go; followed by another
/// message, and with much behind few bytes.
fn takes_payloads_of_any_size(role: Role) {
    for len in 4080..=4100 {
        let data: Vec<_> = (0..len).map(|i| (i % 251) as u8).collect();
        let expected = [format!("binary {}", support::to_hex(&data)), "text \"Hello\"".into()];
        let payload = stored_payload(&data);
        let frames = [frame(0xC2, payload), hex("c1 07 f248cdc9c90700")].concat();
        let outcome = receive(role, &agreed(false), &frames);
        assert_eq!(outcome.words(), expected);
    }
    for size in [64 << 10, (64 << 10) + 1, 1 << 20] {
        let data = vec![b'x'; size];
        let frames = [frame(0xC1, compress(&data)), hex("c1 07 f248cdc9c90700")].concat();
        let outcome = receive(role, &agreed(true), &frames);
        let sizes: Vec<_> = outcome.words().iter().map(String::len).collect();
        assert_eq!(sizes, [size + 7, 12]);
    }
}
both!(takes_payloads_of_any_size:
    server_takes_payloads_of_any_size, client_takes_payloads_of_any_size);

/// As for text that is not compressed: at the first byte that cannot be right.
fn fails_fast(role: Role) {
    let mut endpoint = endpoint(role, &Config::default(), &agreed(false));
    let text = [stored("fine so far"), stored(b"\xed\xa0")].concat();
    let wire = from_peer(role, &[&hex("41 7e 0400")[..], &text].concat());
    let (last, before) = wire.split_last().unwrap();
    endpoint.feed(before);
    assert_eq!(endpoint.state(), State::Open);
    endpoint.feed(&[*last]);
    assert_eq!(endpoint.state(), State::Draining);
    let cause = endpoint.connection.closed().cause.unwrap();
    assert_eq!(cause.to_string(), "invalid UTF-8 at position 11");
}
both!(fails_fast: server_fails_fast, client_fails_fast);

/// The first violation in the order of the bytes is the one that is told, however they are cut: by the
/// time that the second arrives, the connection may have failed for the first.
fn tells_the_first_of_two_violations(role: Role) {
    let broken = [&stored(b"abc\xff")[..], &[0x07]].concat();
    rejects(role, &frame(0xC1, broken), &[], 1007, "invalid UTF-8 at position 3");
}
both!(tells_the_first_of_two_violations:
    server_tells_the_first_of_two_violations, client_tells_the_first_of_two_violations);

/// The same for a message that is too big as well.
fn tells_invalid_text_before_its_size(role: Role) {
    let config = Config::default().max_message_size(100);
    let frames = frame(0xC1, compress(&[&b"abc\xff"[..], &[b'x'; 1000]].concat()));
    let outcome = deflated::receive_within(role, &config, &agreed(false), &frames);
    assert_fails(&outcome, role, &[], 1007, "invalid UTF-8 at position 3");
}
both!(tells_invalid_text_before_its_size:
    server_tells_invalid_text_before_its_size, client_tells_invalid_text_before_its_size);

// In chunks.

/// A chunk is what one call finds; a message of which nobody has seen a chunk can still be whole.
fn hands_out_chunks(role: Role) {
    let mut endpoint = endpoint(role, &Config::default(), &agreed(false));
    endpoint.connection.set_streaming(true);
    assert_eq!(endpoint.receive("41 05 f248cdc9c9"), ["chunk text \"Hell\""]);
    assert_eq!(endpoint.receive("89 01 70"), ["ping 70"]);
    assert_eq!(endpoint.receive("00 00 80 02 0700"), ["last text \"o\""]);
    assert_eq!(endpoint.receive("c1 00 c2 01 00"), ["last text \"\"", "last binary "]);
    // Begun, and not begun to be handed out.
    assert_eq!(endpoint.receive("41 00 00 01 f2"), [""; 0]);
    endpoint.connection.set_streaming(false);
    assert_eq!(endpoint.receive("80 06 48cdc9c90700"), ["text \"Hello\""]);
    endpoint.connection.set_streaming(true);
    // Too late for this one, and in time for the next.
    assert_eq!(endpoint.receive("41 05 f248cdc9c9"), ["chunk text \"Hell\""]);
    endpoint.connection.set_streaming(false);
    assert_eq!(endpoint.receive("80 02 0700"), ["last text \"o\""]);
    assert_eq!(endpoint.receive("c1 07 f248cdc9c90700"), ["text \"Hello\""]);
}
both!(hands_out_chunks: server_hands_out_chunks, client_hands_out_chunks);

/// Chunks of text are text, though their bytes are cut anywhere; and what is wrong ends the connection
/// here as well.
fn checks_chunks(role: Role) {
    for (payload, reason) in [
        (stored_payload("é€𝄞".as_bytes()), None),
        (stored_payload(b"fine\xff"), Some("invalid UTF-8 at position 4")),
        (
            stored_payload("€".as_bytes().split_last().unwrap().1),
            Some("invalid UTF-8 at position 0"),
        ),
        (stored("é"), Some(INVALID)),
        (hex("07"), Some(INVALID)),
    ] {
        let wire = from_peer(role, &frame(0xC1, payload));
        let mut endpoint = endpoint(role, &Config::default(), &agreed(false));
        endpoint.connection.set_streaming(true);
        let outcome = deflated::in_pieces(endpoint, &wire, vec![1; wire.len()]);
        assert_eq!(outcome.closed.cause.map(|cause| cause.to_string()).as_deref(), reason);
        let whole = reason.is_none().then(|| Event::Message("é€𝄞".into()));
        assert_eq!(deflated::joined(outcome.events), Vec::from_iter(whole));
    }
}
both!(checks_chunks: server_checks_chunks, client_checks_chunks);

// Nothing, and what stands between.

/// §7.2.3.6: an empty message is `0x00`. No payload at all says as much.
fn empty_messages(role: Role) {
    for frames in ["c1 01 00", "c1 00", "41 00 80 00", "41 00 00 00 80 01 00", "41 01 00 80 00"] {
        accepts(role, &hex(&frames.repeat(3)), &["text \"\""; 3]);
    }
    for payload in ["0300", "00 0000ffff 00", "0200", "01 0000ffff 00"] {
        accepts(role, &frame(0xC2, hex(payload)), &["binary "]);
    }
}
both!(empty_messages: server_takes_empty_messages, client_takes_empty_messages);

fn empty_fragments(role: Role) {
    let frames = hex("41 00 00 03 f248cd 00 00 00 00 00 04 c9c90700 80 00");
    accepts(role, &frames, &["text \"Hello\""]);
    // No fragments are as good as many.
    let mut frames = frame(0x41, "");
    frames.extend(hex("f248cdc9c90700").iter().flat_map(|byte| frame(0x00, [*byte])));
    frames.extend(frame(0x80, ""));
    accepts(role, &frames, &["text \"Hello\""]);
}
both!(empty_fragments: server_takes_empty_fragments, client_takes_empty_fragments);

/// §6.1 leaves control frames as they are, also between the fragments of a compressed message.
fn control_frames_between(role: Role) {
    let frames = hex("41 03 f248cd 89 01 70 00 00 8a 01 71 80 04 c9c90700 89 00");
    let events = ["ping 70", "pong 71", "text \"Hello\"", "ping "];
    let outcome = accepts(role, &frames, &events);
    assert!(matches!(&*outcome.sent, "8a0170 8a00"), "{}", outcome.sent);
    let outcome = receive(role, &agreed(true), &hex("41 03 f248cd 88 02 03e8 80 04 c9c90700"));
    assert_eq!(outcome.words(), ["closing 1000 (OK)"]);
}
both!(control_frames_between:
    server_answers_control_frames_between, client_answers_control_frames_between);

/// RSV1 is a choice for each message (§6.1).
fn uncompressed_messages(role: Role) {
    let frames = hex("81 05 48656c6c6f c1 07 f248cdc9c90700 01 02 4865 80 03 6c6c6f 82 00");
    accepts(role, &frames, &["text \"Hello\"", "text \"Hello\"", "text \"Hello\"", "binary "]);
    // What looks compressed and does not say so is what it is.
    let plain = Message::from(hex("f248cdc9c90700"));
    let outcome = receive(role, &agreed(true), &frame(0x82, plain.as_bytes()));
    assert_eq!(outcome.events, [Event::Message(plain)]);
}
both!(uncompressed_messages: server_takes_uncompressed_messages, client_takes_uncompressed_messages);
