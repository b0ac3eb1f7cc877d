//! The opening handshake (RFC 6455 §4) from both sides, bytes to bytes.
//!
//! A server reads a request, accepts it and encodes the 101; a client makes its request, and judges
//! the answer. It does not measure sockets, TLS or randomness (the nonce is always the same), nor
//! refusals.

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ws_handshake::{
    ClientConfig, ClientHandshake, ServerConfig, ServerHandshake, WsUri, encode_response,
};

fn server(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake/server");
    group.throughput(Throughput::Elements(1));
    let config = ServerConfig::default();
    for (name, request) in [("minimal", MINIMAL), ("browser", BROWSER)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || BytesMut::from(request),
                |input| answer(&config, input),
                BatchSize::SmallInput,
            );
        });
    }
}

fn client(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake/client");
    group.throughput(Throughput::Elements(1));
    let uri: WsUri = "ws://example.com/chat?room=1".parse().expect("a valid URI");
    let config = ClientConfig::default();
    let request = || ClientHandshake::new(&uri, &config, NONCE).expect("nothing reserved is set");
    group.bench_function("request", |bencher| bencher.iter(request));

    let response = answer(&ServerConfig::default(), &mut BytesMut::from(&request().request()[..]));
    group.bench_function("judge", |bencher| {
        bencher.iter_batched_ref(
            || (request(), BytesMut::from(&response[..])),
            |(handshake, input)| {
                handshake.poll_response(input).expect("a valid answer").expect("a whole one")
            },
            BatchSize::SmallInput,
        );
    });
}

/// What a server says to the request in `input`.
fn answer(config: &ServerConfig, input: &mut BytesMut) -> Bytes {
    let request = ServerHandshake::new(config).poll_request(input);
    let request = request.expect("a valid request").expect("a whole one");
    encode_response(&config.accept(&request).expect("a legal request").response)
}

/// Sixteen bytes, unpredictable in real life.
const NONCE: [u8; 16] = *b"the sample nonce";

/// What §4.1 demands and no more.
const MINIMAL: &str = "GET / HTTP/1.1\r\n\
    Host: example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\
    \r\n";

/// In the manner of Chromium, with a cookie.
const BROWSER: &str = "GET /chat?room=1 HTTP/1.1\r\n\
    Host: example.com\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8,fr;q=0.7\r\n\
    Cookie: session=0f8fad5bd9cb469fa16570867728950e; theme=dark; consent=necessary\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    \r\n";

criterion_group!(benches, server, client);
criterion_main!(benches);
