//! The closing handshake, RFC 6455 §5.5.1, §7 — every state × every input, for both roles, and the
//! facts that remain when a connection has ended.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use Input::*;
use State::*;
use support::{Endpoint, Pair, assert_fails, close, frame, from_peer, hex, receive, to_hex};
use ws_proto::{
    Chunk, CloseCode, CloseFrame, Closed, Event, PreparedMessage, ProtocolError, Role, SendError,
    State,
};

/// Anything that can happen to a connection.
#[derive(Clone, Copy, Debug)]
enum Input {
    Send,
    SendPrepared,
    SendChunk,
    SendPing,
    SendLongPing,
    SendClose,
    /// Frames from the peer, unmasked, in hex.
    Frames(&'static str),
    Eof,
    /// The keepalive's first deadline, and the second after silence.
    PingDue,
    Silence,
}

impl Input {
    fn apply(self, endpoint: &mut Endpoint) -> Result<(), SendError> {
        let connection = &mut endpoint.connection;
        match self {
            Send => return connection.send("a"),
            SendPrepared => return connection.send_prepared(&PreparedMessage::new("p")),
            SendChunk => return connection.send_chunk(Chunk { data: "c".into(), last: false }),
            SendPing => return connection.ping("p"),
            SendLongPing => return connection.ping(vec![0; 126]),
            SendClose => return connection.close(CloseCode::NORMAL),
            Frames(frames) => endpoint.feed(&from_peer(endpoint.role, &hex(frames))),
            Eof => {
                connection.handle_eof();
                endpoint.feed(&[]);
            }
            PingDue => endpoint.timeout(20),
            Silence => {
                endpoint.timeout(20);
                endpoint.timeout(40);
            }
        }
        Ok(())
    }
}

const REFUSED: Result<(), SendError> = Err(SendError::Closing);

/// State, input, its result; then the state after it, what is sent, and the event.
type Row = (State, Input, Result<(), SendError>, State, &'static str, &'static str);

/// "shutdown" is what only a server owes (§7.1.1).
#[rustfmt::skip]
const MATRIX: &[Row] = &[
    (Open, Send,                  Ok(()), Open, "810161", ""),
    (Open, SendPrepared,          Ok(()), Open, "810170", ""),
    (Open, SendChunk,             Ok(()), Open, "010163", ""),
    (Open, SendPing,              Ok(()), Open, "890170", ""),
    (Open, SendLongPing,          Err(SendError::ControlTooLong(126)), Open, "", ""),
    (Open, SendClose,             Ok(()), CloseSent, "880203e8", ""),
    (Open, Frames("810161"),      Ok(()), Open, "", "text \"a\""),
    (Open, Frames("020161 800162"), Ok(()), Open, "", "binary 6162"),
    (Open, Frames("890170"),      Ok(()), Open, "8a0170", "ping 70"),
    (Open, Frames("8a0170"),      Ok(()), Open, "", "pong 70"),
    (Open, Frames("880203e9"),    Ok(()), Draining, "880203e9 shutdown", "closing 1001 (going away)"),
    (Open, Frames("8800"),        Ok(()), Draining, "8800 shutdown", "closing 1005 (no status received)"),
    (Open, Frames("8801"),        Ok(()), Open, "", ""),
    (Open, Frames("830161"),      Ok(()), Draining, "881403ea696e76616c6964206f70636f646520307833 shutdown", ""),
    (Open, Eof,                   Ok(()), Closed, "", "closed: no close frame received or sent"),
    (Open, PingDue,               Ok(()), Open, "89096b656570616c697665", ""),
    (Open, Silence,               Ok(()), Draining, "89096b656570616c697665 881803f36b656570616c6976652070696e672074696d656f7574 shutdown", ""),

    // Nothing more is sent (§5.5.1), everything is still received.
    (CloseSent, Send,             REFUSED, CloseSent, "", ""),
    (CloseSent, SendPrepared,     REFUSED, CloseSent, "", ""),
    (CloseSent, SendChunk,        REFUSED, CloseSent, "", ""),
    (CloseSent, SendPing,         REFUSED, CloseSent, "", ""),
    (CloseSent, SendLongPing,     REFUSED, CloseSent, "", ""),
    (CloseSent, SendClose,        REFUSED, CloseSent, "", ""),
    (CloseSent, Frames("810161"), Ok(()), CloseSent, "", "text \"a\""),
    (CloseSent, Frames("020161 800162"), Ok(()), CloseSent, "", "binary 6162"),
    (CloseSent, Frames("890170"), Ok(()), CloseSent, "", "ping 70"),
    (CloseSent, Frames("8a0170"), Ok(()), CloseSent, "", "pong 70"),
    (CloseSent, Frames("880203e8"), Ok(()), Draining, "shutdown", "closing 1000 (OK)"),
    (CloseSent, Frames("8800"),   Ok(()), Draining, "shutdown", "closing 1005 (no status received)"),
    (CloseSent, Frames("830161"), Ok(()), Draining, "shutdown", ""),
    (CloseSent, Eof,              Ok(()), Closed, "", "closed: sent 1000 (OK); no close frame received"),
    (CloseSent, PingDue,          Ok(()), CloseSent, "", ""),
    (CloseSent, Silence,          Ok(()), CloseSent, "", ""),

    // Nothing counts but the end of the transport (§1.4, §7.1.7).
    (Draining, Send,              REFUSED, Draining, "", ""),
    (Draining, SendPrepared,      REFUSED, Draining, "", ""),
    (Draining, SendChunk,         REFUSED, Draining, "", ""),
    (Draining, SendPing,          REFUSED, Draining, "", ""),
    (Draining, SendLongPing,      REFUSED, Draining, "", ""),
    (Draining, SendClose,         REFUSED, Draining, "", ""),
    (Draining, Frames("810161"),  Ok(()), Draining, "", ""),
    (Draining, Frames("890170"),  Ok(()), Draining, "", ""),
    (Draining, Frames("8a0170"),  Ok(()), Draining, "", ""),
    (Draining, Frames("880203e8"), Ok(()), Draining, "", ""),
    (Draining, Frames("830161"),  Ok(()), Draining, "", ""),
    (Draining, Eof,               Ok(()), Closed, "", "closed: …"),
    (Draining, PingDue,           Ok(()), Draining, "", ""),
    (Draining, Silence,           Ok(()), Draining, "", ""),

    (Closed, Send,                 REFUSED, Closed, "", ""),
    (Closed, SendPrepared,         REFUSED, Closed, "", ""),
    (Closed, SendChunk,            REFUSED, Closed, "", ""),
    (Closed, SendPing,             REFUSED, Closed, "", ""),
    (Closed, SendLongPing,         REFUSED, Closed, "", ""),
    (Closed, SendClose,            REFUSED, Closed, "", ""),
    (Closed, Frames("810161"),     Ok(()), Closed, "", ""),
    (Closed, Frames("890170"),     Ok(()), Closed, "", ""),
    (Closed, Frames("8a0170"),     Ok(()), Closed, "", ""),
    (Closed, Frames("880203e8"),   Ok(()), Closed, "", ""),
    (Closed, Frames("830161"),     Ok(()), Closed, "", ""),
    (Closed, Eof,                  Ok(()), Closed, "", ""),
    (Closed, Silence,              Ok(()), Closed, "", ""),
];

/// Every way into a state, with what was said on the way forgotten.
fn all_in(role: Role, state: State) -> Vec<Endpoint> {
    let ways: &[&[Input]] = match state {
        Open => &[&[]],
        CloseSent => &[&[SendClose]],
        Draining => &[
            &[Frames("880203e9")],
            &[SendClose, Frames("880203e9")],
            &[Frames("830161")],
            &[SendClose, Frames("830161")],
            &[Silence],
        ],
        Closed => &[
            &[Eof],
            &[SendClose, Eof],
            &[Frames("880203e9"), Eof],
            &[Frames("830161"), Eof],
            &[Silence, Eof],
        ],
    };
    let endpoints = ways.iter().map(|way| {
        let mut endpoint = Endpoint::new(role);
        way.iter().for_each(|input| input.apply(&mut endpoint).unwrap());
        endpoint.sent();
        endpoint.heard();
        assert_eq!(endpoint.state(), state, "{way:?}");
        endpoint
    });
    endpoints.collect()
}

fn does_what_the_matrix_says(role: Role) {
    for (state, input, result, after, sent, event) in MATRIX.iter().copied() {
        for mut endpoint in all_in(role, state) {
            let what = format!("{role:?} {state:?} {input:?}");
            assert_eq!(input.apply(&mut endpoint), result, "{what}");
            assert_eq!(endpoint.state(), after, "{what}");
            let expected = match role {
                Role::Server => sent,
                Role::Client => sent.trim_end_matches("shutdown").trim_end(),
            };
            assert_eq!(endpoint.sent(), expected, "{what}");
            let closed = format!("closed: {}", endpoint.connection.closed());
            let expected = if event == "closed: …" { &closed } else { event };
            assert_eq!(endpoint.heard().join(", "), expected, "{what}");
            // Keepalive ends with the first Close frame: no Ping may follow ours.
            assert_eq!(endpoint.connection.poll_timeout().is_some(), after == Open, "{what}");
        }
    }
}
both!(does_what_the_matrix_says:
    server_does_what_the_matrix_says, client_does_what_the_matrix_says);

/// What happened, the sentence, the code and whether it was clean.
fn tells_how_it_ended(role: Role) {
    let rows: [(&[Input], &str, u16, bool); 12] = [
        (&[], "no close frame received or sent", 1006, false),
        (&[SendClose], "sent 1000 (OK); no close frame received", 1006, false),
        (&[SendClose, Frames("880203e8")], "sent 1000 (OK); then received 1000 (OK)", 1000, true),
        // No second Close: what was wrong with the peer's is told by the cause alone.
        (&[SendClose, Frames("88021388")], "sent 1000 (OK); no close frame received", 1006, false),
        // §7.1.5: the code is the peer's, also when it answers with another or with none.
        (
            &[SendClose, Frames("8800")],
            "sent 1000 (OK); then received 1005 (no status received)",
            1005,
            true,
        ),
        (&[Frames("880203e8")], "received 1000 (OK); then sent 1000 (OK)", 1000, true),
        (
            &[Frames("880503e9627965")],
            "received 1001 (going away) bye; then sent 1001 (going away) bye",
            1001,
            true,
        ),
        (
            &[Frames("8800")],
            "received 1005 (no status received); then sent 1005 (no status received)",
            1005,
            true,
        ),
        (
            &[Frames("88020fa0")],
            "received 4000 (private use); then sent 4000 (private use)",
            4000,
            false,
        ),
        (
            &[Frames("88020bb8")],
            "received 3000 (registered); then sent 3000 (registered)",
            3000,
            false,
        ),
        (
            &[Frames("80 00")],
            "sent 1002 (protocol error) unexpected continuation frame; no close frame received",
            1006,
            false,
        ),
        (
            &[Silence],
            "sent 1011 (internal error) keepalive ping timeout; no close frame received",
            1006,
            false,
        ),
    ];
    for (inputs, sentence, code, clean) in rows {
        let mut endpoint = Endpoint::new(role);
        inputs.iter().for_each(|input| input.apply(&mut endpoint).unwrap());
        endpoint.sent();
        let last = endpoint.eof().pop();
        assert_eq!(last, Some(format!("closed: {sentence}")));
        let closed = endpoint.connection.closed();
        assert_eq!((closed.code(), closed.is_clean()), (code, clean), "{sentence}");
    }
}
both!(tells_how_it_ended: server_tells_how_it_ended, client_tells_how_it_ended);

/// B15, T14: every code from 0 to 5000, and the last one, against the registry and §7.4.
fn judges_every_close_code(role: Role) {
    for code in (0..=5000).chain([u16::MAX]) {
        let legal = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        assert_eq!(CloseCode::new(code).is_some(), legal);
        let outcome = receive(role, &close(code, "why"));
        if legal {
            let frame = CloseFrame::new(CloseCode::new(code).unwrap(), "why");
            assert_eq!(outcome.events, [Event::Closing(frame)]);
            assert!(outcome.sent.starts_with(&to_hex(&close(code, "why"))), "{code} is echoed");
            assert_eq!(outcome.closed.code(), code);
        } else {
            assert_fails(&outcome, role, &[], 1002, &format!("invalid status code {code}"));
        }
    }
}
both!(judges_every_close_code: server_judges_every_close_code, client_judges_every_close_code);

/// T14, B15: §5.5.1 has a body of two bytes or none, and a reason in UTF-8.
fn rejects_malformed_close_payloads(role: Role) {
    for byte in [0x00, 0x03, 0xff] {
        let outcome = receive(role, &frame(0x88, [byte]));
        assert_fails(&outcome, role, &[], 1002, "close frame too short");
    }
    for (reason, position) in [(&b"\xff"[..], 0), (b"ok\xc3", 2), (b"\xed\xa0\x80", 0)] {
        let outcome = receive(role, &frame(0x88, [b"\x03\xe8", reason].concat()));
        let why = format!("close reason: invalid UTF-8 at position {position}");
        assert_fails(&outcome, role, &[], 1007, &why);
    }
}
both!(rejects_malformed_close_payloads:
    server_rejects_malformed_close_payloads, client_rejects_malformed_close_payloads);

/// What we send fits a control frame (§5.5) and is cut between characters; the peer's reason of 123
/// bytes comes back byte by byte.
fn sends_reasons_that_fit(role: Role) {
    for (reason, cut) in [
        (String::new(), 0),
        ("x".repeat(123), 123),
        ("x".repeat(124), 123),
        ("ä".repeat(62), 122),
        ("\u{10ffff}".repeat(1000), 120),
    ] {
        let mut endpoint = Endpoint::new(role);
        let frame = CloseFrame::new(CloseCode::GOING_AWAY, reason.clone());
        endpoint.connection.close(frame).unwrap();
        assert_eq!(endpoint.sent(), to_hex(&close(1001, &reason[..cut])));
    }
    let longest = close(1001, &"ä".repeat(61));
    assert!(receive(role, &longest).sent.starts_with(&to_hex(&longest)));
    let mut empty = Endpoint::new(role);
    empty.connection.close(CloseFrame::EMPTY).unwrap();
    assert_eq!(empty.sent(), "8800");
}
both!(sends_reasons_that_fit: server_sends_reasons_that_fit, client_sends_reasons_that_fit);

/// B31: §1.4, what the peer sent before its Close still counts; what follows does not.
fn delivers_until_the_peers_close(role: Role) {
    let mut endpoint = Endpoint::new(role);
    endpoint.connection.close(CloseCode::NORMAL).unwrap();
    let heard = endpoint.receive("810131 010132 890133 800134 880203e8 810135 890136 8300");
    assert_eq!(heard, ["text \"1\"", "ping 33", "text \"24\"", "closing 1000 (OK)"]);
    let shutdown = if role == Role::Server { " shutdown" } else { "" };
    assert_eq!(endpoint.sent(), "880203e8".to_owned() + shutdown);
    assert!(endpoint.input.is_empty(), "what follows is discarded, not kept");
    // Streaming a message over our own Close works as well.
    let mut endpoint = Endpoint::new(role);
    endpoint.connection.set_streaming(true);
    assert_eq!(endpoint.receive("020161"), ["chunk binary 61"]);
    endpoint.connection.close(CloseCode::NORMAL).unwrap();
    assert_eq!(endpoint.receive("800162"), ["last binary 62"]);
}
both!(delivers_until_the_peers_close:
    server_delivers_until_the_peers_close, client_delivers_until_the_peers_close);

/// What was accepted before `close` goes first, pongs included; §5.5.1 lets nothing follow.
fn flushes_before_its_close(role: Role) {
    let mut endpoint = Endpoint::new(role);
    let connection = &mut endpoint.connection;
    connection.send("a").unwrap();
    connection.send_chunk(Chunk { data: "b".into(), last: false }).unwrap();
    endpoint.input.extend_from_slice(&from_peer(role, &hex("890163")));
    assert_eq!(connection.poll_event(&mut endpoint.input), Some(Event::Ping("c".into())));
    connection.close(CloseCode::NORMAL).unwrap();
    assert_eq!(connection.close(CloseCode::NORMAL), REFUSED);
    assert_eq!(endpoint.sent(), "8a0163 810161 010162 880203e8");
    endpoint.receive("890164 880203e8 890165");
    let shutdown = if role == Role::Server { "shutdown" } else { "" };
    assert_eq!(endpoint.sent(), shutdown, "no second Close, no Pong");
}
both!(flushes_before_its_close: server_flushes_before_its_close, client_flushes_before_its_close);

/// §7.1.7 after §5.5.1: a violation in answer to our Close ends the connection without another.
fn fails_silently_after_its_close(role: Role) {
    let mut endpoint = Endpoint::new(role);
    endpoint.connection.close(CloseCode::NORMAL).unwrap();
    endpoint.sent();
    endpoint.receive("8100 8300 880203e8");
    assert_eq!(endpoint.sent(), if role == Role::Server { "shutdown" } else { "" });
    let closed = endpoint.connection.closed();
    assert_eq!(closed.cause, Some(ProtocolError::ReservedOpcode(3)));
    assert_eq!((closed.received, closed.sent), (None, Some(CloseCode::NORMAL.into())));
}
both!(fails_silently_after_its_close:
    server_fails_silently_after_its_close, client_fails_silently_after_its_close);

/// §5.5.1, B30: both ends begin; neither answers the other's Close with another.
#[test]
fn both_may_close_at_once() {
    let mut pair = Pair::new();
    pair.client.connection.close(CloseCode::GOING_AWAY).unwrap();
    pair.server.connection.close(CloseFrame::new(CloseCode::SERVICE_RESTART, "brb")).unwrap();
    pair.run();
    let (client, server) = (pair.client.connection.closed(), pair.server.connection.closed());
    assert_eq!(
        client.to_string(),
        "sent 1001 (going away); then received 1012 (service restart) brb"
    );
    assert_eq!((client.reason(), client.code()), ("brb", 1012));
    assert_eq!(server, mirrored(&client, false));
    assert_eq!((pair.client.state(), pair.server.state()), (Closed, Closed));
}

/// One begins, the other echoes; the server ends TCP (§7.1.1) whoever began.
fn closes_the_other_end(role: Role) {
    let mut pair = Pair::new();
    let (from, _) = pair.from(role);
    from.connection.send("last words").unwrap();
    from.connection.close(CloseFrame::new(CloseCode::NORMAL, "done")).unwrap();
    pair.run();
    let (from, to) = pair.from(role);
    let sentence = "received 1000 (OK) done; then sent 1000 (OK) done";
    let heard = ["text \"last words\"", "closing 1000 (OK) done", &format!("closed: {sentence}")];
    assert_eq!(to.heard(), heard);
    let facts = to.connection.closed();
    assert_eq!(from.connection.closed(), mirrored(&facts, false));
    assert!(facts.is_clean() && from.connection.closed().is_clean());
    assert_eq!(pair.server.shutdowns, 1);
}
both!(closes_the_other_end: server_closes_the_client, client_closes_the_server);

/// What the other end of a connection knows.
fn mirrored(closed: &Closed, received_first: bool) -> Closed {
    let (received, sent) = (closed.sent.clone(), closed.received.clone());
    Closed { received, sent, received_first, cause: None }
}

/// §7.1.1: a server ends the TCP connection, once, when its last byte is written; a client waits.
fn owes_a_shutdown_once_or_never(role: Role) {
    for frames in ["880203e8", "8300"] {
        let mut endpoint = Endpoint::new(role);
        endpoint.connection.send(vec![0; 100]).unwrap();
        endpoint.input.extend_from_slice(&from_peer(role, &hex(frames)));
        while endpoint.connection.poll_event(&mut endpoint.input).is_some() {}
        assert_eq!(endpoint.write(100), 100);
        assert_eq!(endpoint.shutdowns, 0, "not before everything is written");
        endpoint.write(usize::MAX);
        endpoint.receive("880203e8");
        endpoint.write(usize::MAX);
        assert_eq!(endpoint.shutdowns, usize::from(role == Role::Server));
    }
    // Nothing is owed to a transport that is gone.
    let mut endpoint = Endpoint::new(role);
    endpoint.connection.send("a").unwrap();
    endpoint.connection.close(CloseCode::NORMAL).unwrap();
    endpoint.eof();
    assert_eq!(endpoint.sent(), "");
}
both!(owes_a_shutdown_once_or_never:
    server_owes_one_shutdown_at_the_end, client_never_owes_a_shutdown);

/// B30: whatever was under way, an end without a Close is 1006, and told once.
fn calls_an_end_without_close_1006(role: Role) {
    for begun in ["", "810261", "010161", "8902", "8802 03"] {
        let mut endpoint = Endpoint::new(role);
        endpoint.receive(begun);
        assert_eq!(endpoint.eof(), ["closed: no close frame received or sent"]);
        assert_eq!(endpoint.connection.closed().code(), 1006);
        assert_eq!((endpoint.eof(), endpoint.receive("8100")), (vec![], vec![]));
    }
}
both!(calls_an_end_without_close_1006:
    server_calls_an_end_without_close_1006, client_calls_an_end_without_close_1006);
