//! What holds for all bytes, however they are cut (RFC 6455 §4, RFC 9112 §2).
//!
//! Not its business: what the answers are; the other files know.

mod wire;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use wire::{NONCE, hear_pieces, request, serve_pieces};
use ws_handshake::http::{HeaderMap, HeaderName, HeaderValue};
use ws_handshake::{
    ClientConfig, ClientHandshake, HandshakeError, HeadLimits, Origins, ServerConfig,
    ServerHandshake, WsUri, accept_token, encode_response, is_valid_key, parse_request,
};

/// Bytes cut at these places, each taken modulo the length.
fn cut<'a>(wire: &'a [u8], cuts: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    cuts.extend([0, wire.len()]);
    cuts.sort_unstable();
    let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
    pieces.into_iter()
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(any::<usize>(), 0..20)
}

/// What heads are made of, in any order: now and then something like HTTP comes out.
fn soup(fragments: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        12 => prop::sample::select(fragments).prop_map(|text| text.as_bytes().to_vec()),
        3 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r\n\r\n".to_vec()),
        1 => (0..100_usize).prop_map(|length| vec![b'x'; length]),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(fragment, 0..40).prop_map(|fragments| fragments.concat())
}

/// Bytes for a server: rubbish, soup, or a legal request with one byte changed.
fn request_bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        4 => soup(&[
            "GET / HTTP/1.1\r\n", "GET /?a#b HTTP/1.1\r\n", "POST * HTTP/1.0\r\n",
            "Host: a\r\n", "Upgrade: websocket\r\n", "Connection: upgrade\r\n",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "Sec-WebSocket-Version: 13\r\n",
            "Sec-WebSocket-Protocol: a,b\r\n", "Origin: http://a\r\n", "Content-Length: 0\r\n",
            "X:", ": ", " ", "\t", "\n", "\r", "\0", ",", "\u{fc}",
        ]),
        2 => mutated(request("+Sec-WebSocket-Protocol: a | +Origin: http://example.com")),
    ]
    .prop_map(Bytes::from)
}

/// Bytes for a client.
fn response_bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        4 => soup(&[
            "HTTP/1.1 101 OK\r\n", "HTTP/1.1 404 \r\n", "HTTP/1.0 200\r\n", "HTTP/1.1 100 C\r\n",
            "Upgrade: websocket\r\n", "Connection: upgrade\r\n",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            "Sec-WebSocket-Protocol: a\r\n", "Content-Length: 9\r\n", "Content-Length: x\r\n",
            "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n", "0\r\n", "1;x\r\na\r\n", "2", ";",
            "ffffffffffffffff\r\n", "X:", ": ", " ", "\t", "\n", "\r", "\0", "\u{fc}",
        ]),
        2 => mutated(wire::response("+Sec-WebSocket-Protocol: a")),
        2 => mutated(
            b"HTTP/1.1 404 N\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n".to_vec()
        ),
    ]
    .prop_map(Bytes::from)
}

fn mutated(wire: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    (any::<prop::sample::Index>(), any::<u8>()).prop_map(move |(at, byte)| {
        let mut wire = wire.clone();
        let at = at.index(wire.len());
        wire[at] = byte;
        wire
    })
}

/// Limits that short inputs can break, and those that they cannot.
fn limits() -> impl Strategy<Value = HeadLimits> {
    prop_oneof![
        Just(HeadLimits::default()),
        (0..300_usize, 0..100_usize, 0..6_usize).prop_map(|(max_size, max_line, max_headers)| {
            HeadLimits { max_size, max_line, max_headers }
        }),
    ]
}

/// What a token is made of (RFC 9110 §5.6.2).
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}";

fn subprotocols() -> impl Strategy<Value = Vec<String>> {
    // Few letters, so that both sides often mean the same; and any token.
    prop::collection::hash_set(prop_oneof!["[a-cA-C]", TOKEN], 0..6)
        .prop_map(|names| names.into_iter().collect())
}

/// Legal headers that mean nothing to the handshake. Values have no white space at their ends.
fn headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let inside = prop_oneof![6 => 0x20..=0x7E_u8, 1 => Just(b'\t'), 2 => 0x80..=0xFF_u8];
    let value = prop::collection::vec(inside, 0..30).prop_map(|v| v.trim_ascii().to_vec());
    let name = prop_oneof!["[xX]-[a-c]", TOKEN.prop_map(|token| format!("x-{token}"))];
    prop::collection::vec((name, value), 0..100)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn server_judges_any_bytes_alike_in_any_pieces(
        wire in request_bytes(), cuts in cuts(), limits in limits(), insists in any::<bool>(),
    ) {
        let mut config = ServerConfig::default().head_limits(limits);
        if insists {
            config = config.subprotocols(["b", "a"]);
        }
        let outcome = format!("{:?}", serve_pieces(&config, [&wire[..]].into_iter()));
        prop_assert_eq!(&format!("{:?}", serve_pieces(&config, wire.chunks(1))), &outcome);
        prop_assert_eq!(&format!("{:?}", serve_pieces(&config, cut(&wire, &cuts))), &outcome);
    }

    #[test]
    fn client_judges_any_bytes_alike_in_any_pieces(
        wire in response_bytes(), cuts in cuts(), limits in limits(),
    ) {
        let config = ClientConfig::default().head_limits(limits).subprotocols(["a"]);
        // An end of the stream in the middle means the same too.
        let outcome = |(decided, mut handshake): (Option<_>, ClientHandshake)| {
            let decided: Result<wire::Opened, _> =
                decided.unwrap_or_else(|| Err(handshake.handle_eof()));
            format!("{decided:?}")
        };
        let whole = outcome(hear_pieces(&config, [&wire[..]].into_iter()));
        prop_assert_eq!(&outcome(hear_pieces(&config, wire.chunks(1))), &whole);
        prop_assert_eq!(&outcome(hear_pieces(&config, cut(&wire, &cuts))), &whole);
    }

    /// Whoever asks again after an answer, right or wrong, gets another one and no panic.
    #[test]
    fn both_roles_can_be_asked_again_after_any_outcome(
        wire in response_bytes(), ask in request_bytes(),
    ) {
        let uri = "ws://example.com/".parse().unwrap();
        let mut client = ClientHandshake::new(&uri, &ClientConfig::default(), NONCE).unwrap();
        let mut server = ServerHandshake::new(&ServerConfig::default());
        let (mut answers, mut asked) = (BytesMut::from(&wire[..]), BytesMut::from(&ask[..]));
        for _ in 0..3 {
            let _ = client.poll_response(&mut answers);
            let _ = server.poll_request(&mut asked);
        }
        let _ = client.handle_eof();
    }

    #[test]
    fn nothing_panics_on_any_text(
        text in ".{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let _ = parse_request(&Bytes::from(bytes.clone()));
        let _ = accept_token(&bytes);
        for uri in [text.clone(), format!("ws://{text}"), format!("wss://h/{text}")] {
            if let Ok(uri) = uri.parse::<WsUri>() {
                prop_assert!(!uri.host().is_empty() && uri.resource_name().starts_with('/'));
                let again: WsUri = uri.to_string().parse().unwrap();
                prop_assert_eq!(again.to_string(), uri.to_string());
            }
        }
        for origins in [Origins::SameHost, Origins::list([&text]), Origins::Any] {
            let _ = origins.allow(Some(&text), &text);
            prop_assert!(origins.allow(None, &text));
        }
    }

    /// B35: whatever the application asks for, it asks for no more than it wrote.
    #[test]
    fn client_requests_have_the_headers_that_were_asked_for(
        path in "/[ -~\r\nü]{0,12}", names in prop::collection::vec("[a-c\r\n: ,]{0,3}", 0..3),
        value in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let Ok(uri) = format!("ws://u:p@example.com{path}").parse() else { return Ok(()) };
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let config = ClientConfig::default()
            .subprotocols(names.clone())
            .header(HeaderName::from_static("x"), value);
        let Ok(handshake) = ClientHandshake::new(&uri, &config, NONCE) else { return Ok(()) };
        let parsed = parse_request(handshake.request()).unwrap();
        prop_assert_eq!(parsed.headers().len(), 7 + usize::from(!names.is_empty()));
        prop_assert_eq!(parsed.uri().path_and_query().unwrap().as_str(), uri.resource_name());
    }

    #[test]
    fn server_reads_what_was_written(
        headers in headers(), path in "/[a-z0-9/;=%?_-]{0,20}",
        rest in prop::collection::vec(any::<u8>(), 0..20), cuts in cuts(),
    ) {
        let mut wire = request(&format!("GET {path} HTTP/1.1"));
        wire.truncate(wire.len() - 2);
        let mut expected = HeaderMap::new();
        for (name, value) in &headers {
            wire.extend([name.as_bytes(), b": \t", value, b" \r\n"].concat());
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            expected.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(&rest);
        let served = serve_pieces(&ServerConfig::default(), cut(&wire, &cuts)).unwrap();
        prop_assert_eq!(served.request.uri(), path.as_str());
        prop_assert_eq!(served.request.headers().len(), 5 + headers.len());
        for name in expected.keys() {
            let (is, ought) = (served.request.headers().get_all(name), expected.get_all(name));
            prop_assert!(is.iter().eq(ought.iter()), "{}", name);
        }
        prop_assert_eq!(served.rest, rest);
    }

    /// §1.9, §4.2.2 (5): they agree on the server's first choice among the client's offers, or on
    /// nothing, and both know it; what each sends early reaches the other.
    #[test]
    fn client_and_server_understand_each_other(
        nonce in any::<[u8; 16]>(), offers in subprotocols(), ours in subprotocols(),
        path in "/[a-z0-9/]{0,20}", early in prop::collection::vec(any::<u8>(), 0..20),
        cuts in cuts(),
    ) {
        let uri: WsUri = format!("ws://example.com:8080{path}").parse().unwrap();
        let origin = HeaderValue::from_static("http://example.com:8080");
        let offering = ClientConfig::default()
            .subprotocols(offers.iter().map(String::as_str))
            .header(HeaderName::from_static("origin"), origin);
        let mut client = ClientHandshake::new(&uri, &offering, nonce).unwrap();
        let mut config = ServerConfig::default();
        if !ours.is_empty() {
            config = config.subprotocols(ours.iter().map(String::as_str));
        }
        let asked = [client.request(), &early[..]].concat();
        let served = serve_pieces(&config, cut(&asked, &cuts));
        let common = ours.iter().find(|name| offers.contains(name)).map(String::as_str);

        let answer = match &served {
            Ok(served) => {
                prop_assert!(ours.is_empty() || common.is_some());
                prop_assert_eq!(served.accepted.negotiated.subprotocol.as_deref(), common);
                prop_assert_eq!(served.request.uri(), path.as_str());
                let key = &served.request.headers()["sec-websocket-key"];
                prop_assert!(is_valid_key(key.as_bytes()));
                prop_assert_eq!(&served.rest, &early);
                encode_response(&served.accepted.response)
            }
            Err(error) => {
                prop_assert!(!ours.is_empty() && common.is_none());
                encode_response(&error.response())
            }
        };
        let mut input = BytesMut::new();
        let mut heard = Ok(None);
        for piece in cut(&[&answer[..], &early].concat(), &cuts) {
            input.extend_from_slice(piece);
            if matches!(heard, Ok(None)) {
                heard = client.poll_response(&mut input);
            }
        }
        match (served, heard) {
            (Ok(served), Ok(Some((negotiated, _)))) => {
                prop_assert_eq!(negotiated, served.accepted.negotiated);
                prop_assert_eq!(&input[..], &early[..]);
            }
            (Err(error), Err(HandshakeError::Rejected(response))) => {
                prop_assert_eq!(response.status(), error.status());
                prop_assert_eq!(response.into_body(), error.response().into_body());
            }
            (served, heard) => prop_assert!(false, "{:?} but {:?}", served, heard),
        }
    }
}
