//! Any bytes in any pieces, to a server (RFC 6455 §4.2): no panic, the same outcome however they
//! are cut, and an answer that is whole HTTP either way.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use ws_handshake::{HandshakeError, HeadLimits, ServerConfig, ServerHandshake, encode_response};

fuzz_target!(|data: &[u8]| {
    let [step, limit, wire @ ..] = data else { return };
    let mut config = ServerConfig::default().subprotocols(["b", "a"]);
    // Limits that short inputs can break, every other time.
    if limit % 2 == 1 {
        let limit = usize::from(*limit);
        let limits =
            HeadLimits { max_size: limit * 2, max_line: limit / 2, max_headers: limit / 16 };
        config = config.head_limits(limits);
    }
    let whole = serve(&config, wire, wire.len().max(1));
    for step in [1, usize::from(*step).max(1)] {
        assert_eq!(format!("{:?}", serve(&config, wire, step)), format!("{whole:?}"));
    }
    let answer = match whole {
        Ok((answer, _)) => answer,
        Err(error) => encode_response(&error.response()),
    };
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("the head ends") + 4;
    let length = format!("Content-Length: {}\r\n", answer.len() - head);
    let switching = answer.starts_with(b"HTTP/1.1 101 ") && head == answer.len();
    assert!(switching || answer.windows(length.len()).any(|line| line == length.as_bytes()));
});

/// The answer to a request that comes in pieces, and the bytes behind it.
fn serve(
    config: &ServerConfig,
    wire: &[u8],
    step: usize,
) -> Result<(Bytes, Vec<u8>), HandshakeError> {
    let mut handshake = ServerHandshake::new(config);
    let mut input = BytesMut::new();
    let mut pieces = wire.chunks(step);
    while let Some(piece) = pieces.next() {
        input.extend_from_slice(piece);
        if let Some(request) = handshake.poll_request(&mut input)? {
            let answer = encode_response(&config.accept(&request)?.response);
            return Ok((answer, input.into_iter().chain(pieces.flatten().copied()).collect()));
        }
    }
    Err(HandshakeError::UnexpectedEof)
}
