//! RFC 6455 §5 (framing, §5.7 with its examples) and §8.1 (UTF-8), rule by rule, for both roles; and
//! the Close frame that each violation earns (§7.4.1).
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use bytes::BytesMut;
use support::{
    Endpoint, KEY, Outcome, assert_fails, close, frame, from_peer, hex, in_pieces, receive,
    receive_wire, to_hex,
};
use ws_proto::{
    Chunk, Config, Connection, Event, MaskingKeys, Message, ProtocolError, Role, State, Transmit,
    bytes::Buf,
};

const BOTH: [Role; 2] = [Role::Server, Role::Client];
const DATA: [u8; 2] = [0x1, 0x2];
const CONTROL: [u8; 3] = [0x8, 0x9, 0xA];
const FIN: u8 = 0x80;

#[track_caller]
fn rejects(role: Role, frames: &[u8], reason: &str) {
    assert_fails(&receive(role, frames), role, &[], 1002, reason);
}

#[track_caller]
fn rejects_wire(role: Role, wire: &[u8], code: u16, reason: &str) {
    assert_fails(&receive_wire(role, &Config::default(), wire), role, &[], code, reason);
}

#[track_caller]
fn accepts(role: Role, frames: &[u8], events: &[&str]) -> Outcome {
    let outcome = receive(role, frames);
    assert_eq!(outcome.words(), events);
    assert_eq!((outcome.state, &outcome.closed.cause), (State::Open, &None));
    outcome
}

// §5.7, the examples.

/// The key of the RFC's examples for every frame.
struct ExampleKeys;

impl MaskingKeys for ExampleKeys {
    fn next_key(&mut self) -> [u8; 4] {
        KEY
    }
}

fn example_endpoint(role: Role) -> Connection {
    let now = std::time::Instant::now();
    match role {
        Role::Server => Connection::server(&Config::default(), now),
        Role::Client => Connection::client(&Config::default(), ExampleKeys, now),
    }
}

/// The bytes that the endpoint owes, as they are on the wire.
fn owed(connection: &mut Connection) -> String {
    let Some(Transmit::Data(queue)) = connection.poll_transmit() else { return String::new() };
    to_hex(&queue.copy_to_bytes(queue.len()))
}

#[test]
fn examples_of_the_rfc_are_received() {
    let fills = |len| "5a".repeat(len);
    for (role, wire, expected) in [
        (Role::Client, "81 05 48656c6c6f".to_owned(), Message::text("Hello")),
        (Role::Server, "81 85 37fa213d 7f9f4d5158".to_owned(), Message::text("Hello")),
        (Role::Client, "01 03 48656c 80 02 6c6f".to_owned(), Message::text("Hello")),
        (Role::Client, "82 7e 0100".to_owned() + &fills(256), vec![0x5a; 256].into()),
        (
            Role::Client,
            "82 7f 0000000000010000".to_owned() + &fills(65536),
            vec![0x5a; 65536].into(),
        ),
    ] {
        let outcome = receive_wire(role, &Config::default(), &hex(&wire));
        assert_eq!(outcome.events, [Event::Message(expected)]);
        assert_eq!(outcome.sent, "");
    }
}

#[test]
fn examples_of_the_rfc_are_sent() {
    let mut server = example_endpoint(Role::Server);
    server.send("Hello").unwrap();
    assert_eq!(owed(&mut server), "810548656c6c6f");
    server.send_chunk(Chunk { data: "Hel".into(), last: false }).unwrap();
    server.send_chunk(Chunk { data: "lo".into(), last: true }).unwrap();
    assert_eq!(owed(&mut server), "010348656c80026c6f");
    server.ping("Hello").unwrap();
    assert_eq!(owed(&mut server), "890548656c6c6f");
    for (len, header) in [(256, "827e0100"), (65536, "827f0000000000010000")] {
        server.send(vec![0x5a; len]).unwrap();
        assert_eq!(owed(&mut server), header.to_owned() + &"5a".repeat(len));
    }

    let mut client = example_endpoint(Role::Client);
    client.send("Hello").unwrap();
    assert_eq!(owed(&mut client), "818537fa213d7f9f4d5158");
}

#[test]
fn example_ping_is_answered_with_the_example_pong() {
    let mut client = example_endpoint(Role::Client);
    let mut input = BytesMut::from(&hex("8905 48656c6c6f")[..]);
    assert_eq!(client.poll_event(&mut input), Some(Event::Ping("Hello".into())));
    let pong = owed(&mut client);
    assert_eq!(pong, "8a8537fa213d7f9f4d5158");
    let outcome = receive_wire(Role::Server, &Config::default(), &hex(&pong));
    assert_eq!(outcome.events, [Event::Pong("Hello".into())]);
}

// §5.1, masking.

/// B15: an unmasked frame from a client, a masked one from a server; each defined opcode.
fn rejects_wrong_masking(role: Role) {
    let (wrong, reason) = match role {
        Role::Server => (Role::Client, "incorrect masking: unmasked frame from client"),
        Role::Client => (Role::Server, "incorrect masking: masked frame from server"),
    };
    for opcode in DATA.into_iter().chain(CONTROL) {
        for payload in [&b""[..], b"\x03\xe8"] {
            rejects_wire(role, &from_peer(wrong, &frame(FIN | opcode, payload)), 1002, reason);
        }
    }
}
both!(rejects_wrong_masking: server_rejects_unmasked_frame, client_rejects_masked_frame);

#[test]
fn server_takes_the_zero_key() {
    let outcome = receive_wire(Role::Server, &Config::default(), &hex("8182 00000000 6869"));
    assert_eq!(outcome.words(), ["text \"hi\""]);
}

// §5.2, the header.

/// "If an unknown opcode is received, the receiving endpoint MUST fail the connection."
fn rejects_reserved_opcodes(role: Role) {
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        for fin in [0, FIN] {
            rejects(role, &frame(fin | opcode, ""), &format!("invalid opcode {opcode:#x}"));
        }
    }
}
both!(rejects_reserved_opcodes: server_rejects_reserved_opcodes, client_rejects_reserved_opcodes);

/// The other six opcodes, with FIN and, where that is legal, without.
fn accepts_defined_opcodes(role: Role) {
    for (frames, events) in [
        ("81 00", &["text \"\""][..]),
        ("82 00", &["binary "]),
        ("01 00", &[]),
        ("02 00 00 00 80 00", &["binary "]),
        ("89 00", &["ping "]),
        ("8a 00", &["pong "]),
    ] {
        accepts(role, &hex(frames), events);
    }
    assert_eq!(receive(role, &hex("88 00")).words(), ["closing 1005 (no status received)"]);
}
both!(accepts_defined_opcodes: server_accepts_defined_opcodes, client_accepts_defined_opcodes);

/// B14: RSV1, RSV2, RSV3 "MUST be 0 unless an extension is negotiated", on each opcode, and on a
/// continuation that would be legal otherwise.
fn rejects_reserved_bits(role: Role) {
    for bits in 1..=7u8 {
        let reason = format!("reserved bits {bits:#05b} must be 0");
        for opcode in DATA.into_iter().chain(CONTROL).chain([0]) {
            for fin in [0, FIN] {
                rejects(role, &frame(fin | bits << 4 | opcode, ""), &reason);
            }
        }
        rejects(role, &[frame(0x01, "a"), frame(FIN | bits << 4, "b")].concat(), &reason);
    }
}
both!(rejects_reserved_bits: server_rejects_reserved_bits, client_rejects_reserved_bits);

/// B15: "the minimal number of bytes MUST be used to encode the length". T11: the 64-bit form for 5.
fn rejects_non_minimal_lengths(role: Role) {
    for length in [0u64, 1, 5, 124, 125] {
        let mut long = hex("82 7e");
        long.extend((length as u16).to_be_bytes());
        rejects(role, &long, &format!("length {length} is not minimally encoded"));
    }
    for length in [0u64, 5, 125, 126, 0xFFFE, 0xFFFF] {
        let mut long = hex("82 7f");
        long.extend(length.to_be_bytes());
        rejects(role, &long, &format!("length {length} is not minimally encoded"));
    }
}
both!(rejects_non_minimal_lengths:
    server_rejects_non_minimal_lengths, client_rejects_non_minimal_lengths);

/// Each form of the length, from its smallest value to its largest or a little beyond.
fn accepts_and_sends_minimal_lengths(role: Role) {
    for len in [0, 1, 125, 126, 127, 0xFFFE, 0xFFFF, 0x1_0000, 0x1_0001] {
        let payload = vec![0xA5; len];
        let outcome = receive(role, &frame(0x82, &payload));
        assert_eq!(outcome.events, [Event::Message(payload.clone().into())]);
        let mut endpoint = Endpoint::new(role);
        endpoint.connection.send(payload.clone()).unwrap();
        assert_eq!(endpoint.sent(), to_hex(&frame(0x82, payload)));
    }
}
both!(accepts_and_sends_minimal_lengths:
    server_accepts_and_sends_minimal_lengths, client_accepts_and_sends_minimal_lengths);

/// "The most significant bit MUST be 0."
fn rejects_lengths_of_64_bits(role: Role) {
    for length in [1 << 63, u64::MAX] {
        let mut huge = hex("82 7f");
        huge.extend(length.to_be_bytes());
        rejects(role, &huge, &format!("length {length} has its most significant bit set"));
    }
}
both!(rejects_lengths_of_64_bits:
    server_rejects_lengths_of_64_bits, client_rejects_lengths_of_64_bits);

// §5.4, fragmentation.

fn rejects_unexpected_continuation(role: Role) {
    for fin in [0, FIN] {
        rejects(role, &frame(fin, "a"), "unexpected continuation frame");
    }
    // B17: and once more when the message that could be continued is complete.
    let after = [frame(0x01, "a"), frame(FIN, "b"), frame(FIN, "c")].concat();
    let outcome = receive(role, &after);
    assert_fails(&outcome, role, &["text \"ab\""], 1002, "unexpected continuation frame");
}
both!(rejects_unexpected_continuation:
    server_rejects_continuation_without_start, client_rejects_continuation_without_start);

fn rejects_interleaved_messages(role: Role) {
    for first in DATA {
        for second in DATA {
            for fin in [0, FIN] {
                let frames = [frame(first, "a"), frame(fin | second, "b")].concat();
                rejects(role, &frames, "expected a continuation frame");
            }
        }
    }
}
both!(rejects_interleaved_messages:
    server_rejects_a_new_message_inside_a_fragmented_one,
    client_rejects_a_new_message_inside_a_fragmented_one);

/// "Control frames MAY be injected in the middle of a fragmented message."
fn accepts_control_between_fragments(role: Role) {
    let frames = "01 01 61  89 01 31  00 01 62  8a 00  89 00  80 01 63";
    let outcome = accepts(role, &hex(frames), &["ping 31", "pong ", "ping ", "text \"abc\""]);
    assert_eq!(outcome.sent, "8a0131 8a00");
    let closing = receive(role, &[hex("02 01 61"), close(1000, "")].concat());
    assert_eq!(closing.words(), ["closing 1000 (OK)"]);
}
both!(accepts_control_between_fragments:
    server_accepts_control_frames_between_fragments,
    client_accepts_control_frames_between_fragments);

fn accepts_empty_messages_and_fragments(role: Role) {
    accepts(role, &hex("81 00 82 00"), &["text \"\"", "binary "]);
    accepts(role, &hex("01 00 80 00  02 00 00 00 80 00"), &["text \"\"", "binary "]);
    accepts(role, &hex("01 00 00 01 61 00 00 80 00"), &["text \"a\""]);
    accepts(role, &hex("02 01 61 00 00 80 01 62"), &["binary 6162"]);
}
both!(accepts_empty_messages_and_fragments:
    server_accepts_empty_messages_and_fragments, client_accepts_empty_messages_and_fragments);

/// One message whatever the number of frames, also when fragments are large enough to be taken by
/// reference.
fn joins_fragments(role: Role) {
    for sizes in [&[1, 5000, 1][..], &[5000, 1, 5000], &[0, 70_000, 0, 70_000], &[3; 40]] {
        let payload: Vec<u8> = (0..sizes.iter().sum()).map(|i: usize| (i % 251) as u8).collect();
        let (mut frames, mut rest) = (Vec::new(), &payload[..]);
        for (i, size) in sizes.iter().enumerate() {
            let (fragment, tail) = rest.split_at(*size);
            let fin = if i + 1 == sizes.len() { FIN } else { 0 };
            frames.extend(frame(fin | if i == 0 { 0x2 } else { 0x0 }, fragment));
            rest = tail;
        }
        assert_eq!(receive(role, &frames).events, [Event::Message(payload.into())]);
    }
}
both!(joins_fragments: server_joins_fragments, client_joins_fragments);

// §5.5, control frames.

fn rejects_fragmented_control(role: Role) {
    for (opcode, name) in CONTROL.into_iter().zip(["close", "ping", "pong"]) {
        let reason = format!("fragmented control frame ({name})");
        rejects(role, &frame(opcode, ""), &reason);
        rejects(role, &[frame(0x01, "a"), frame(opcode, "")].concat(), &reason);
    }
}
both!(rejects_fragmented_control:
    server_rejects_fragmented_control_frames, client_rejects_fragmented_control_frames);

fn limits_control_payloads(role: Role) {
    let full = [b'x'; 125];
    let outcome = accepts(role, &frame(0x89, full), &[&format!("ping {}", to_hex(&full))]);
    assert_eq!(outcome.sent, to_hex(&frame(0x8a, full)));
    accepts(role, &frame(0x8a, full), &[&format!("pong {}", to_hex(&full))]);
    let reason = "x".repeat(123);
    let outcome = receive(role, &close(1000, &reason));
    assert_eq!(outcome.words(), [format!("closing 1000 (OK) {reason}")]);
    for (opcode, name) in CONTROL.into_iter().zip(["close", "ping", "pong"]) {
        let reason = format!("control frame too long ({name})");
        rejects(role, &frame(FIN | opcode, [b'x'; 126]), &reason);
        rejects(role, &frame(FIN | opcode, [b'x'; 65536]), &reason);
        // Known from the second byte on.
        rejects_wire(role, &from_peer(role, &[FIN | opcode, 126, 0, 0])[..2], 1002, &reason);
    }
}
both!(limits_control_payloads:
    server_accepts_control_frames_of_125_bytes_and_rejects_126,
    client_accepts_control_frames_of_125_bytes_and_rejects_126);

// §8.1, UTF-8. B11–B13.

/// Every length of code point at both ends of its range; NUL, the byte order mark and noncharacters
/// are text as any other.
const TEXT: &str =
    "\0a\u{7f}\u{80}\u{7ff}\u{800}\u{feff}\u{d7ff}\u{e000}\u{fffe}\u{10000}\u{10ffff}z";

fn accepts_code_points_cut_anywhere(role: Role) {
    let text = TEXT.as_bytes();
    for cut in 0..=text.len() {
        for second in cut..=text.len() {
            let (a, b, c) = (&text[..cut], &text[cut..second], &text[second..]);
            let frames = [frame(0x01, a), frame(0x00, b), frame(0x80, c)].concat();
            accepts(role, &frames, &[&format!("text {TEXT:?}")]);
        }
        // Over reads, behind enough text for the vectorised validation.
        let long = "ä".repeat(200) + TEXT;
        let wire = from_peer(role, &frame(0x81, &long));
        let at = wire.len() - text.len() + cut;
        let outcome = in_pieces(role, &Config::default(), &wire, [at]);
        assert_eq!(outcome.events, [Event::Message(long.into())]);
    }
}
both!(accepts_code_points_cut_anywhere:
    server_accepts_code_points_cut_anywhere, client_accepts_code_points_cut_anywhere);

/// What is not UTF-8, behind two good bytes.
const NOT_UTF8: [&[u8]; 12] = [
    b"\x80",             // a continuation byte alone
    b"\xff",             // no byte of UTF-8
    b"\xc0\xaf",         // overlong
    b"\xe0\x80\xaf",     // overlong
    b"\xf0\x80\x80\xaf", // overlong
    b"\xc1\xbf",         // overlong
    b"\xed\xa0\x80",     // a surrogate
    b"\xed\xbf\xbf",     // a surrogate
    b"\xf4\x90\x80\x80", // beyond U+10FFFF
    b"\xf8\x88\x80\x80", // five bytes
    b"\xc3\x28",         // a code point that is cut by another
    b"\xf0\x9f\x98x",    // a code point that is cut by another
];

fn rejects_text_that_is_not_utf8(role: Role) {
    const REASON: &str = "invalid UTF-8 at position 2";
    for bad in NOT_UTF8 {
        let payload = [b"ok", bad].concat();
        rejects_wire(role, &from_peer(role, &frame(0x81, &payload)), 1007, REASON);
        for cut in 0..=payload.len() {
            let (a, b) = payload.split_at(cut);
            let frames = [frame(0x01, a), frame(0x89, ""), frame(0x80, b)].concat();
            let outcome = receive(role, &frames);
            assert_eq!(outcome.closed.cause.unwrap().to_string(), REASON);
            assert!(outcome.sent.contains(&to_hex(&close(1007, REASON))));
        }
    }
}
both!(rejects_text_that_is_not_utf8:
    server_rejects_text_that_is_not_utf8, client_rejects_text_that_is_not_utf8);

fn rejects_text_that_ends_in_half_a_code_point(role: Role) {
    for half in [&b"ok\xc3"[..], b"ok\xe2\x82", b"ok\xf0\x9f\x98"] {
        for frames in [
            frame(0x81, half),
            [frame(0x01, half), frame(0x80, "")].concat(),
            [frame(0x01, half), frame(0x00, ""), frame(0x80, "")].concat(),
        ] {
            let wire = from_peer(role, &frames);
            rejects_wire(role, &wire, 1007, "invalid UTF-8 at position 2");
        }
    }
}
both!(rejects_text_that_ends_in_half_a_code_point:
    server_rejects_text_that_ends_in_half_a_code_point,
    client_rejects_text_that_ends_in_half_a_code_point);

/// B12: the byte that cannot be right is the last that came of a frame of 1 MiB.
fn fails_fast_inside_an_unfinished_frame(role: Role) {
    for first in [0x01, 0x81] {
        let mut begun = vec![first, 127];
        begun.extend((1u64 << 20).to_be_bytes());
        begun.extend(b"fine so far \xed");
        assert_eq!(receive(role, &begun).state, State::Open);
        begun.push(0xa0);
        let wire = from_peer(role, &begun);
        rejects_wire(role, &wire, 1007, "invalid UTF-8 at position 12");
    }
}
both!(fails_fast_inside_an_unfinished_frame:
    server_fails_fast_inside_an_unfinished_frame, client_fails_fast_inside_an_unfinished_frame);

/// Only text is text, and one message knows nothing of the others.
fn keeps_no_stale_utf8_state(role: Role) {
    let frames = [
        frame(0x01, b"\xc3"),
        frame(0x89, b"\xff"),
        frame(0x8a, b"\xa9"),
        frame(0x80, b"\xa9"),
        frame(0x82, b"\xc3"),
        frame(0x02, b"\xe2\x82"),
        frame(0x80, ""),
        frame(0x81, "ok"),
    ]
    .concat();
    let events = ["ping ff", "pong a9", "text \"é\"", "binary c3", "binary e282", "text \"ok\""];
    accepts(role, &frames, &events);
    // Positions count from the start of the message, not of the connection.
    let outcome = receive(role, &[frame(0x81, "first"), frame(0x81, b"abc\xff")].concat());
    assert_fails(&outcome, role, &["text \"first\""], 1007, "invalid UTF-8 at position 3");
}
both!(keeps_no_stale_utf8_state:
    server_keeps_no_stale_utf8_state, client_keeps_no_stale_utf8_state);

// §7.4.1, what a violation earns.

/// One row for each [`ProtocolError`]: its name, frames that provoke it, code and reason of the Close.
const VIOLATIONS: [(&str, &str, u16, &str); 15] = [
    ("ReservedBits", "c1 00", 1002, "reserved bits 0b100 must be 0"),
    ("ReservedOpcode", "83 00", 1002, "invalid opcode 0x3"),
    ("FragmentedControlFrame", "09 00", 1002, "fragmented control frame (ping)"),
    ("ControlFrameTooLong", "8a 7e 0080", 1002, "control frame too long (pong)"),
    ("NonMinimalLength", "82 7e 007d", 1002, "length 125 is not minimally encoded"),
    (
        "LengthOverflow",
        "82 7f 8000000000000000",
        1002,
        "length 9223372036854775808 has its most significant bit set",
    ),
    ("UnexpectedContinuation", "80 00", 1002, "unexpected continuation frame"),
    ("ExpectedContinuation", "01 00 81 00", 1002, "expected a continuation frame"),
    ("CloseFrameTooShort", "88 01 03", 1002, "close frame too short"),
    ("InvalidCloseCode", "88 02 03ed", 1002, "invalid status code 1005"),
    ("InvalidCloseReason", "88 04 03e8 61ff", 1007, "close reason: invalid UTF-8 at position 1"),
    ("InvalidUtf8", "81 02 61ff", 1007, "invalid UTF-8 at position 1"),
    ("FrameTooBig", "82 07", 1009, "frame with 7 bytes exceeds limit of 6 bytes"),
    (
        "MessageTooBig",
        "02 06 616161616161 00 05",
        1009,
        "message with 11 bytes exceeds limit of 10 bytes",
    ),
    (
        "TooManyFragments",
        "02 00 00 00 00 00 00 00",
        1009,
        "message in 4 fragments exceeds limit of 3",
    ),
];

fn tells_the_peer_what_was_wrong(role: Role) {
    let config = Config::default().max_frame_size(6).max_message_size(10).max_fragments(3);
    for (name, frames, code, reason) in VIOLATIONS {
        let outcome = receive_wire(role, &config, &from_peer(role, &hex(frames)));
        assert_fails(&outcome, role, &[], code, reason);
        assert_eq!(variant(&outcome.closed.cause.unwrap()), name);
    }
    // The two that depend on the role, the one that is no frame's fault, and the one that needs
    // compression, which is in rfc7692.rs.
    let (wire, name, reason) = match role {
        Role::Server => {
            ("8100", "UnmaskedFrameFromClient", "incorrect masking: unmasked frame from client")
        }
        Role::Client => {
            ("8180", "MaskedFrameFromServer", "incorrect masking: masked frame from server")
        }
    };
    let outcome = receive_wire(role, &config, &hex(wire));
    assert_fails(&outcome, role, &[], 1002, reason);
    assert_eq!(variant(&outcome.closed.cause.unwrap()), name);

    let mut silent = Endpoint::new(role);
    silent.timeout(20);
    silent.sent();
    silent.timeout(40);
    assert!(silent.sent().starts_with(&to_hex(&close(1011, "keepalive ping timeout"))));
    assert_eq!(silent.connection.closed().cause, Some(ProtocolError::KeepaliveTimeout));

    let declared = include_str!("../src/error.rs").split("pub enum SendError").next().unwrap();
    assert_eq!(declared.matches("#[error(").count(), VIOLATIONS.len() + 4, "a row is missing");
}
both!(tells_the_peer_what_was_wrong:
    server_tells_the_peer_what_was_wrong, client_tells_the_peer_what_was_wrong);

fn variant(error: &ProtocolError) -> String {
    let name = format!("{error:?}");
    name.split(['(', ' ']).next().unwrap().to_owned()
}

/// The whole first byte, judged against the sentences of §5.2 and §5.5.
#[test]
fn every_first_byte_is_judged_as_the_rfc_says() {
    for role in BOTH {
        for first in 0..=255u8 {
            let (fin, bits, opcode) = (first & FIN != 0, first >> 4 & 7, first & 15);
            let defined = matches!(opcode, 0..=2 | 8..=10);
            let legal = defined && bits == 0 && (fin || opcode < 8) && opcode != 0;
            let cause = receive(role, &frame(first, "")).closed.cause;
            assert_eq!(cause.is_none(), legal, "{role:?} {first:#04x}: {cause:?}");
        }
    }
}
