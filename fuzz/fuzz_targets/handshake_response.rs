//! Any bytes in any pieces, to a client (RFC 6455 §4.1): no panic, and the same outcome however
//! they are cut.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ws_handshake::{
    ClientConfig, ClientHandshake, HandshakeError, HeadLimits, Negotiated, WsUri, http::Response,
};

fuzz_target!(|data: &[u8]| {
    let [step, limit, wire @ ..] = data else { return };
    let mut config = ClientConfig::default().subprotocols(["a", "b"]);
    // Limits that short inputs can break, every other time.
    if limit % 2 == 1 {
        let limit = usize::from(*limit);
        let limits =
            HeadLimits { max_size: limit * 2, max_line: limit / 2, max_headers: limit / 16 };
        config = config.head_limits(limits);
    }
    let whole = format!("{:?}", hear(&config, wire, wire.len().max(1)));
    for step in [1, usize::from(*step).max(1)] {
        assert_eq!(format!("{:?}", hear(&config, wire, step)), whole);
    }
});

/// What a client makes of an answer that comes in pieces, and the bytes behind it.
fn hear(
    config: &ClientConfig,
    wire: &[u8],
    step: usize,
) -> Result<(Negotiated, Response<()>, Vec<u8>), HandshakeError> {
    let uri: WsUri = "ws://example.com/".parse()?;
    // The nonce of RFC 6455 §1.3, for which fuzzers know the answer.
    let mut handshake = ClientHandshake::new(&uri, config, *b"the sample nonce")?;
    let mut input = BytesMut::new();
    let mut pieces = wire.chunks(step);
    while let Some(piece) = pieces.next() {
        input.extend_from_slice(piece);
        if let Some((negotiated, response)) = handshake.poll_response(&mut input)? {
            let rest = input.into_iter().chain(pieces.flatten().copied()).collect();
            return Ok((negotiated, response, rest));
        }
    }
    Err(handshake.handle_eof())
}
