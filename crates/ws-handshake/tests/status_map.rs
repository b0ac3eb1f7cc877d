//! From a request's bytes to the exact answer: every row of `HandshakeError::status`
//! (RFC 6455 §4.2.2, §4.4; RFC 9110 §15).
//!
//! Not its business: why a request is refused, which is `rfc6455_section4.rs`, and where exactly
//! the limits are, which is `limits.rs`.

mod wire;

use bytes::Bytes;
use wire::{answer, request, serve};
use ws_handshake::http::{HeaderName, HeaderValue, Response, StatusCode};
use ws_handshake::{HandshakeError, ServerConfig, encode_response};

/// An answer taken apart: status line, header lines with lower-case names, body.
fn take_apart(answer: &[u8]) -> (String, Vec<String>, String) {
    let answer = std::str::from_utf8(answer).expect("our answers are text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("the head ends");
    let mut lines = head.split("\r\n");
    let status = lines.next().expect("split always yields").to_owned();
    let lower_name = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a header line has a colon");
        format!("{}: {value}", name.to_ascii_lowercase())
    };
    (status, lines.map(lower_name).collect(), body.to_owned())
}

/// Lower case but for what is spelled in capitals wherever it stands; no full stop.
fn assert_style(sentence: &str) {
    let first = sentence.split(' ').next().expect("split always yields");
    let capitals = first.starts_with("Sec-WebSocket-") || ["HTTP", "Host"].contains(&first);
    assert!(capitals || first.bytes().all(|byte| byte.is_ascii_lowercase()), "{sentence}");
    assert!(!sentence.ends_with('.'), "{sentence}");
}

#[test]
fn server_says_with_the_status_what_was_wrong() {
    let long = "x".repeat(9000);
    let long_target = format!("GET /{long} HTTP/1.1");
    let long_header = format!("+X: {long}");
    let many = ["+X: y"; 200].join(" | ");
    let large = vec![format!("+X: {}", "x".repeat(200)); 100].join(" | ");
    let (allow, upgrade) = (&["allow: GET"][..], &["upgrade: websocket"][..]);
    let version = &["upgrade: websocket", "sec-websocket-version: 13"][..];
    let offer = "+Sec-WebSocket-Protocol:";
    let (no_tokens, unknown) = (format!("{offer} a b"), format!("{offer} v3.chat"));

    let config = ServerConfig::default().subprotocols(["v2.chat", "v1.chat"]);
    for (edits, status, telling, sentence) in [
        ("HELO relay.invalid", 400, &[][..], "malformed HTTP head: invalid token"),
        ("GET /chat HTTP/2.5", 400, &[], "malformed HTTP head: invalid HTTP version"),
        ("+Bad Name: x", 400, &[], "malformed HTTP head: invalid header name"),
        ("+X: a\0b", 400, &[], "malformed HTTP head: invalid header value"),
        ("GET * HTTP/1.1", 400, &[], "malformed HTTP head: invalid request target"),
        (&long_target, 414, &[], "first line exceeds 8192 bytes"),
        (&long_header, 431, &[], "header line exceeds 8192 bytes"),
        (&many, 431, &[], "more than 128 headers"),
        (&large, 431, &[], "HTTP head exceeds 16384 bytes"),
        ("POST /chat HTTP/1.1", 405, allow, "unsupported HTTP method; expected GET"),
        ("GET /chat HTTP/1.0", 505, &[], "unsupported HTTP version; expected HTTP/1.1"),
        ("+Content-Length: 5", 400, &[], "a WebSocket request has no body"),
        ("+Transfer-Encoding: chunked", 400, &[], "a WebSocket request has no body"),
        ("-Connection", 426, upgrade, "missing or invalid Connection header"),
        ("Upgrade: h2c", 426, upgrade, "missing or invalid Upgrade header"),
        ("-Host", 400, &[], "Host header: expected exactly one"),
        ("-Sec-WebSocket-Key", 400, &[], "Sec-WebSocket-Key header: expected exactly one"),
        ("-Sec-WebSocket-Version", 400, &[], "Sec-WebSocket-Version header: expected exactly one"),
        ("Sec-WebSocket-Key: c2hvcnQ=", 400, &[], "invalid Sec-WebSocket-Key header"),
        (
            "Sec-WebSocket-Version: 8",
            426,
            version,
            "unsupported Sec-WebSocket-Version; expected 13",
        ),
        ("+Origin: https://evil.example", 403, &[], "origin not allowed"),
        (&no_tokens, 400, &[], "invalid Sec-WebSocket-Protocol header"),
        ("", 400, &[], "missing subprotocol; expected one of v2.chat, v1.chat"),
        (&unknown, 400, &[], "invalid subprotocol; expected one of v2.chat, v1.chat"),
    ] {
        let wire = request(edits);
        let error = serve(&config, &wire).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.status().as_u16()), (sentence, status));
        assert_style(sentence);

        let (line, mut headers, body) = take_apart(&answer(&config, &wire));
        let reason = error.status().canonical_reason().unwrap();
        assert_eq!(line, format!("HTTP/1.1 {status} {reason}"), "{sentence}");
        assert!(body.ends_with(&format!("{sentence}.\n")), "{body}");
        // Every answer is readable, complete, and the last on its connection.
        let length = format!("content-length: {}", body.len());
        let content = ["content-type: text/plain; charset=utf-8", &length];
        headers.retain(|line| {
            let closes = line.starts_with("connection: ") && line.ends_with("close");
            !closes && !content.contains(&line.as_str())
        });
        assert_eq!(headers, telling, "{sentence}");
    }
}

#[test]
fn server_refuses_in_these_very_bytes() {
    let answer = answer(&ServerConfig::default(), &request("+Origin: null"));
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Connection: close\r\nContent-Length: 20\r\n\r\norigin not allowed.\n"
    );
}

/// For the person who opened the address in a browser.
#[test]
fn server_explains_to_a_browser_what_it_is() {
    let (_, _, body) = take_apart(&answer(&ServerConfig::default(), &request("-Upgrade")));
    assert_eq!(
        body,
        "This is a WebSocket endpoint, which needs a WebSocket client: \
         missing or invalid Upgrade header.\n"
    );
}

/// RFC 9110 §7.8: "A sender of Upgrade MUST also send an 'Upgrade' connection option".
#[test]
fn server_names_upgrade_as_a_connection_option_in_426() {
    for edits in ["-Upgrade", "Sec-WebSocket-Version: 8"] {
        let (_, headers, _) = take_apart(&answer(&ServerConfig::default(), &request(edits)));
        let connection = headers.iter().find(|line| line.starts_with("connection:")).unwrap();
        assert!(connection.to_ascii_lowercase().contains("upgrade"), "{connection}");
    }
}

#[test]
fn server_refuses_in_the_words_of_the_application() {
    let config = ServerConfig::default()
        .select_subprotocol(|_| Err(HandshakeError::reject(StatusCode::NOT_FOUND, "no such room")));
    let (status, headers, body) = take_apart(&answer(&config, &request("")));
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 404 Not Found", "no such room"));
    assert!(headers.contains(&"connection: close".to_owned()), "{headers:?}");
    assert!(headers.contains(&"content-length: 12".to_owned()), "{headers:?}");

    let mut own = Response::new(Bytes::from_static(b"{}"));
    *own.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    for (name, value) in [("retry-after", "5"), ("link", "</a>"), ("link", "</b>")] {
        own.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let error = HandshakeError::Rejecting(Box::new(own));
    assert_eq!(
        encode_response(&error.response()),
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nLink: </a>\r\nLink: </b>\r\n\
         Connection: close\r\n\
         Content-Length: 2\r\n\r\n{}"
    );
}

/// RFC 9110 §8.6: no Content-Length with 1xx and 204; elsewhere one, and only one.
#[test]
fn server_announces_the_length_of_bodies_where_there_can_be_one() {
    let encoded = |status: u16, length: Option<&'static str>, body: &'static str| {
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(length) = length {
            let name = HeaderName::from_static("content-length");
            response.headers_mut().insert(name, HeaderValue::from_static(length));
        }
        encode_response(&response)
    };
    assert_eq!(encoded(101, None, ""), "HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert_eq!(encoded(204, None, "lost"), "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(encoded(200, None, ""), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(encoded(200, Some("2"), "ab"), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab");
    // RFC 9112 §4: the space stays where there is no reason phrase.
    assert_eq!(encoded(599, None, "x"), "HTTP/1.1 599 \r\nContent-Length: 1\r\n\r\nx");
}

/// What no request leads to: a client's findings and a caller's mistakes, for which a server would
/// have to blame itself. With the rows above, these are all variants.
#[test]
fn server_answers_500_to_errors_that_are_no_clients_fault() {
    let answered = |status: u16| {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Box::new(response)
    };
    let upgrade = HandshakeError::InvalidUpgrade("Upgrade");
    let reserved = HandshakeError::ReservedHeader("host");
    for (error, status, sentence) in [
        (HandshakeError::Rejecting(answered(409)), 409, "rejected with status 409 Conflict"),
        (HandshakeError::UnexpectedEof, 400, "connection closed during the opening handshake"),
        (
            HandshakeError::Rejected(answered(409)),
            500,
            "server rejected the connection with HTTP status 409 Conflict",
        ),
        (upgrade, 500, "invalid upgrade response: missing or invalid Upgrade header"),
        (HandshakeError::InvalidAccept, 500, "invalid Sec-WebSocket-Accept header"),
        (
            HandshakeError::UnofferedExtension,
            500,
            "server selected an extension that was not offered",
        ),
        (
            HandshakeError::UnofferedSubprotocol,
            500,
            "server selected a subprotocol that was not offered",
        ),
        (HandshakeError::InvalidUri("has no host"), 500, "invalid WebSocket URI: has no host"),
        (reserved, 500, "header host is set by the handshake"),
    ] {
        assert_eq!((error.status().as_u16(), error.to_string().as_str()), (status, sentence));
        assert_eq!(error.response().status(), status, "{error:?}");
        assert_style(sentence);
    }
}
