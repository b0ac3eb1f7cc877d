//! Bytes in, bytes out: drives both roles over recorded bytes, whole and one byte at a time
//! (RFC 6455 §4).
//!
//! Not its business: what is right; the tests say so.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fmt::Debug;

use bytes::BytesMut;
use ws_handshake::http::{Request, Response};
use ws_handshake::{
    Accepted, ClientConfig, ClientHandshake, HandshakeError, Negotiated, ServerConfig,
    ServerHandshake, encode_response,
};

/// The key of RFC 6455 §1.3, what answers it, and what it is made of.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
pub(crate) const NONCE: [u8; 16] = *b"the sample nonce";

/// A legal request with edits, ` | ` between them: `Name: value` replaces the header of that name,
/// `+Name: value` adds a line, `-Name` removes one, and what is no header replaces the request line.
pub(crate) fn request(edits: &str) -> Vec<u8> {
    let key = format!("Sec-WebSocket-Key: {KEY}");
    edited(
        &[
            "GET /chat HTTP/1.1",
            "Host: example.com",
            "Upgrade: websocket",
            "Connection: Upgrade",
            &key,
            "Sec-WebSocket-Version: 13",
        ],
        edits,
    )
}

/// The legal answer to [`NONCE`], edited in the same way.
pub(crate) fn response(edits: &str) -> Vec<u8> {
    let accept = format!("Sec-WebSocket-Accept: {ACCEPT}");
    edited(
        &["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", &accept],
        edits,
    )
}

fn edited(lines: &[&str], edits: &str) -> Vec<u8> {
    let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let find = |lines: &[String], name: &str| {
        lines.iter().position(|line| line.split(':').next() == Some(name))
    };
    for edit in edits.split(" | ").filter(|edit| !edit.is_empty()) {
        if let Some(line) = edit.strip_prefix('+') {
            lines.push(line.to_owned());
        } else if let Some(name) = edit.strip_prefix('-') {
            let at = find(&lines, name).expect("there is such a line to remove");
            lines.remove(at);
        } else {
            let name = edit.split(':').next().expect("split always yields");
            let at = find(&lines, name).unwrap_or(0);
            assert!(at > 0 || edit.contains(' '), "{edit} replaces nothing");
            edit.clone_into(&mut lines[at]);
        }
    }
    let mut wire = lines.join("\r\n");
    wire.push_str("\r\n\r\n");
    wire.into_bytes()
}

/// The legal request followed by a header line of raw bytes.
pub(crate) fn request_with_raw_line(line: &[u8]) -> Vec<u8> {
    let mut wire = request("");
    wire.truncate(wire.len() - 2);
    [&wire, line, b"\r\n\r\n"].concat()
}

/// What a server made of a request that it accepts.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) request: Request<()>,
    pub(crate) accepted: Accepted,
    /// What is left for the frames' decoder.
    pub(crate) rest: Vec<u8>,
}

/// Plays a server to whom these bytes come, whole and one by one.
pub(crate) fn serve(config: &ServerConfig, wire: &[u8]) -> Result<Served, HandshakeError> {
    alike_in_any_pieces(wire, |step| serve_pieces(config, wire.chunks(step)))
}

/// Plays a server to whom these pieces come, and then the end of the stream.
pub(crate) fn serve_pieces<'a>(
    config: &ServerConfig,
    mut pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Served, HandshakeError> {
    let mut handshake = ServerHandshake::new(config);
    let mut input = BytesMut::new();
    while let Some(piece) = pieces.next() {
        input.extend_from_slice(piece);
        if let Some(request) = handshake.poll_request(&mut input)? {
            let accepted = config.accept(&request)?;
            let rest = input.into_iter().chain(pieces.flatten().copied()).collect();
            return Ok(Served { request, accepted, rest });
        }
    }
    Err(HandshakeError::UnexpectedEof)
}

/// The bytes that a server answers with, whichever way it decides.
pub(crate) fn answer(config: &ServerConfig, wire: &[u8]) -> Vec<u8> {
    encode_response(&match serve(config, wire) {
        Ok(served) => served.accepted.response,
        Err(error) => error.response(),
    })
    .to_vec()
}

/// What a client made of an answer that opens the connection.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) negotiated: Negotiated,
    pub(crate) response: Response<()>,
    /// What is left for the frames' decoder.
    pub(crate) rest: Vec<u8>,
}

/// Plays a client to whom these bytes come, whole and one by one. `None`: it waits for more.
pub(crate) fn hear(config: &ClientConfig, wire: &[u8]) -> Option<Result<Opened, HandshakeError>> {
    alike_in_any_pieces(wire, |step| hear_pieces(config, wire.chunks(step)).0)
}

/// The same for an answer that fails the handshake before the stream ends.
pub(crate) fn refusal(config: &ClientConfig, wire: &[u8]) -> HandshakeError {
    match hear(config, wire) {
        Some(Err(error)) => error,
        other => panic!("{other:?} to {}", wire.escape_ascii()),
    }
}

/// The same for an answer that needs the end of the stream to mean something.
pub(crate) fn refusal_at_eof(config: &ClientConfig, wire: &[u8]) -> HandshakeError {
    alike_in_any_pieces(wire, |step| match hear_pieces(config, wire.chunks(step)) {
        (None, mut handshake) => handshake.handle_eof(),
        (decided, _) => panic!("{decided:?} before the end of {}", wire.escape_ascii()),
    })
}

/// Plays a client to whom these pieces come; hands it back, for it may wait for more.
pub(crate) fn hear_pieces<'a>(
    config: &ClientConfig,
    mut pieces: impl Iterator<Item = &'a [u8]>,
) -> (Option<Result<Opened, HandshakeError>>, ClientHandshake) {
    let uri = "ws://example.com/chat".parse().expect("the URI is valid");
    let mut handshake = ClientHandshake::new(&uri, config, NONCE).expect("the config is valid");
    let mut input = BytesMut::new();
    while let Some(piece) = pieces.next() {
        input.extend_from_slice(piece);
        match handshake.poll_response(&mut input) {
            Ok(None) => {}
            Ok(Some((negotiated, response))) => {
                let rest = input.into_iter().chain(pieces.flatten().copied()).collect();
                return (Some(Ok(Opened { negotiated, response, rest })), handshake);
            }
            Err(error) => return (Some(Err(error)), handshake),
        }
    }
    (None, handshake)
}

/// How the bytes are cut must make no difference.
fn alike_in_any_pieces<T: Debug>(wire: &[u8], play: impl Fn(usize) -> T) -> T {
    let whole = play(wire.len().max(1));
    let (one, all) = (format!("{:?}", play(1)), format!("{whole:?}"));
    let start = wire[..wire.len().min(200)].escape_ascii();
    assert_eq!(one, all, "left: one byte at a time, right: at once; {start}");
    whole
}
