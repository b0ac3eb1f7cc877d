//! The server's side of the opening handshake, sentence by sentence (RFC 6455 §4.2): reading the
//! request, the origin of §10.2, the subprotocols of §1.9, answering.
//!
//! Not its business: sizes (`limits.rs`) and status lines (`status_map.rs`).

mod wire;

use bytes::BytesMut;
use wire::{ACCEPT, KEY, answer, request, request_with_raw_line, serve};
use ws_handshake::http::request::Builder;
use ws_handshake::http::{Request, StatusCode, Version};
use ws_handshake::{HandshakeError, Origins, ServerConfig, ServerHandshake, is_upgrade};

/// Asserts that a legal request is accepted with each of these edits, which all begin alike.
fn assert_accepted(config: &ServerConfig, start: &str, rests: &[&str]) {
    for rest in rests {
        let served = serve(config, &request(&format!("{start}{rest}")));
        assert!(served.is_ok(), "{start}{rest}: {:?}", served.err());
    }
}

/// Asserts that a legal request is refused with this sentence after each of these edits.
fn assert_refused(config: &ServerConfig, sentence: &str, start: &str, rests: &[&str]) {
    for rest in rests {
        match serve(config, &request(&format!("{start}{rest}"))) {
            Err(error) => assert_eq!(error.to_string(), sentence, "{start}{rest}"),
            Ok(_) => panic!("{start}{rest} was accepted"),
        }
    }
}

// Reading the request, §4.2.1.

/// §4.2.1 (1): "An HTTP/1.1 or higher GET request". B33.
#[test]
fn server_wants_a_get_of_http_1_1() {
    let config = ServerConfig::default();
    let method = "unsupported HTTP method; expected GET";
    assert_refused(&config, method, "", &["POST / HTTP/1.1", "HEAD / HTTP/1.1", "get / HTTP/1.1"]);
    let version = "unsupported HTTP version; expected HTTP/1.1";
    assert_refused(&config, version, "", &["GET /chat HTTP/1.0"]);
    for line in ["GET /chat HTTP/2.0", "GET /chat HTTP/1.2", "GET /chat", "GET  /chat HTTP/1.1"] {
        let error = serve(&config, &request(line)).unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{line}");
    }
}

/// RFC 9112 §9.3, §11.2: what is a body to a proxy would be frames to us. B33.
#[test]
fn server_refuses_a_request_with_a_body() {
    let config = ServerConfig::default();
    assert_accepted(&config, "+Content-Length: 0", &["", " | +Content-Length: 0"]);
    let sentence = "a WebSocket request has no body";
    let lengths =
        ["5", "0 | +Content-Length: 5", "5 | +CONTENT-LENGTH: 0", "0, 5", "-1", "0x0", ""];
    assert_refused(&config, sentence, "+content-length: ", &lengths);
    let codings = ["chunked", "identity", "xchunked", "", "chunked | +Content-Length: 0"];
    assert_refused(&config, sentence, "+Transfer-Encoding: ", &codings);
    // RFC 9112 §5.1: "No whitespace is allowed between the field name and colon."
    let sentence = "malformed HTTP head: invalid header name";
    assert_refused(&config, sentence, "+Content-Length", &[" : 5", "\t: 5", "", "\u{b}: 5"]);
}

/// §4.2.1 (2); RFC 9112 §3.2: 400 without Host and with more than one. B33, T2.
#[test]
fn server_wants_exactly_one_host() {
    let config = ServerConfig::default();
    assert_accepted(&config, "Host: ", &["EXAMPLE.com:8080", "[::1]:80", "127.0.0.1", "x"]);
    let sentence = "Host header: expected exactly one";
    assert_refused(&config, sentence, "-Host", &["", " | +Host: "]);
    assert_refused(&config, sentence, "Host: ", &["", "\t ", "gr\u{fc}n", " | +Host: x"]);
    assert_refused(&config, sentence, "+host: ", &["example.com", "other.com"]);
}

/// RFC 9112 §3.2: 400 also for "a Host header field with an invalid field value", which is
/// `uri-host [ ":" port ]`.
#[test]
fn server_refuses_a_host_that_is_none() {
    for host in ["exam ple.com", "u@example.com", "example.com/x", "http://example.com", "a\"b"] {
        let served = serve(&ServerConfig::default(), &request(&format!("Host: {host}")));
        let status = served.map(|_| ()).unwrap_err().status();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{host}");
    }
}

/// §4.2.1 (3, 4): lists of tokens, "treated as an ASCII case-insensitive value". B33.
#[test]
fn server_reads_connection_and_upgrade_as_lists_in_any_case() {
    let config = ServerConfig::default();
    let lists = ["keep-alive, Upgrade", "Upgrade, keep-alive", "UPGRADE", "\t,, x ,\tUpgrade\t, ,"];
    assert_accepted(&config, "Connection: ", &lists);
    assert_accepted(&config, "Connection:", &["upgrade", "keep-alive | +Connection: Upgrade"]);
    assert_accepted(&config, "Connection: Upgrade | +connection: ", &["", "close", "keep-alive"]);
    let lists = ["WEBSOCKET", "WebSocket \t", "h2c, websocket", "h2c | +UPGRADE: websocket"];
    assert_accepted(&config, "Upgrade: ", &lists);

    let sentence = "missing or invalid Connection header";
    assert_refused(&config, sentence, "-Connection", &[""]);
    let others = ["", "keep-alive", "Upgraded", "x Upgrade", "keep-alive; Upgrade", "\"Upgrade\""];
    assert_refused(&config, sentence, "Connection: ", &others);
    let sentence = "missing or invalid Upgrade header";
    assert_refused(&config, sentence, "-Upgrade", &[""]);
    let others = ["", "h2c", "websocket/13", "web socket", "websockets"];
    assert_refused(&config, sentence, "Upgrade: ", &others);
}

/// §4.2.1 (5): "a base64-encoded value that, when decoded, is 16 bytes in length". B33.
#[test]
fn server_wants_exactly_one_key_of_sixteen_bytes() {
    let config = ServerConfig::default();
    let keys = ["AAAAAAAAAAAAAAAAAAAAAA==", "\t /////////////////////w== "];
    assert_accepted(&config, "Sec-WebSocket-Key: ", &keys);
    let sentence = "Sec-WebSocket-Key header: expected exactly one";
    assert_refused(&config, sentence, "-Sec-WebSocket-Key", &[""]);
    assert_refused(&config, sentence, "+sec-websocket-key: ", &["", KEY, keys[0]]);
    let (long, list) = (format!("{KEY}AAAA"), format!("{KEY}, {KEY}"));
    let (short, space) = ("dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25 ZQ==");
    let (unpadded, alphabet) = ("dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZ_==");
    let bad = ["", short, &long, &list, space, unpadded, alphabet, "dGhlIHNhbXBsZSBub25jZTE="];
    let sentence = "invalid Sec-WebSocket-Key header";
    assert_refused(&config, sentence, "Sec-WebSocket-Key: ", &bad);
}

/// §4.2.1 (6), §4.4. B33.
#[test]
fn server_wants_version_13() {
    let config = ServerConfig::default();
    let sentence = "unsupported Sec-WebSocket-Version; expected 13";
    assert_refused(&config, sentence, "Sec-WebSocket-Version: ", &["8", "013", "13, 8", "14", ""]);
    let sentence = "Sec-WebSocket-Version header: expected exactly one";
    assert_refused(&config, sentence, "-Sec-WebSocket-Version", &[""]);
    assert_refused(&config, sentence, "+Sec-WebSocket-Version: ", &["13", "8", ""]);
}

/// §4.2.1: "unknown header fields MUST be ignored"; an offer of extensions needs no answer (§9.1).
#[test]
fn server_ignores_what_it_does_not_know() {
    let served = serve(
        &ServerConfig::default(),
        &request(
            "+Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits \
             | +Sec-WebSocket-Extensions: x-ext | +Sec-WebSocket-Protocol: chat \
             | +Expect: 100-continue | +X-Empty:",
        ),
    )
    .unwrap();
    assert_eq!(served.accepted.response.headers().len(), 3);
    assert_eq!(served.accepted.negotiated.subprotocol, None);
    assert_eq!(served.request.headers()["x-empty"], "");
}

/// RFC 9112 §2.2: empty lines in front of the request are a bug of old clients, and ignored.
#[test]
fn server_ignores_empty_lines_in_front() {
    let wire = [b"\r\n\r\n".as_slice(), &request("")].concat();
    assert_eq!(serve(&ServerConfig::default(), &wire).unwrap().request.uri(), "/chat");
}

#[test]
fn server_waits_for_the_empty_line() {
    let wire = request("");
    for end in [0, 1, 20, wire.len() - 2, wire.len() - 1] {
        let error = serve(&ServerConfig::default(), &wire[..end]).unwrap_err();
        assert!(matches!(error, HandshakeError::UnexpectedEof), "{end}: {error}");
    }
}

// Answering, §4.2.2.

/// §4.2.2 (5), with the accept value of §1.3.
#[test]
fn server_accepts_in_these_very_bytes() {
    let config = ServerConfig::default().subprotocols(["superchat"]);
    let wire = request("+Origin: http://example.com | +Sec-WebSocket-Protocol: chat, superchat");
    assert_eq!(
        String::from_utf8(answer(&config, &wire)).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Protocol: superchat\r\n\r\n"
    );
}

/// B32, T7: a client may send frames at once; they stay in the buffer and count for no limit.
#[test]
fn server_leaves_early_frames_in_the_buffer() {
    let frames = b"\x81\x85\x00\x00\x00\x00Hello\r\n\r\nGET / HTTP/1.1\r\n".repeat(1000);
    let wire = [request(""), frames.clone()].concat();
    assert!(wire.len() > 16 << 10);
    assert_eq!(serve(&ServerConfig::default(), &wire).unwrap().rest, frames);
}

#[test]
fn server_asked_again_after_the_request_reads_the_next_one() {
    let mut handshake = ServerHandshake::new(&ServerConfig::default());
    let mut input = BytesMut::new();
    for _ in 0..2 {
        input.extend_from_slice(&request(""));
        assert!(handshake.poll_request(&mut input).unwrap().is_some());
        assert!(handshake.poll_request(&mut input).unwrap().is_none());
    }
}

/// A framework or another HTTP server may have parsed the request.
#[test]
fn server_accepts_a_request_that_somebody_else_parsed() {
    fn builder() -> Builder {
        Request::get("/chat")
            .header("host", "example.com")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", KEY)
    }
    let config = ServerConfig::default();
    let nothing = builder().body(()).unwrap();
    let body = builder().body(vec!["of some", "framework"]).unwrap();
    assert!(is_upgrade(&nothing) && is_upgrade(&body));
    for accepted in [config.accept(&nothing), config.accept(&body)] {
        assert_eq!(accepted.unwrap().response.headers()["sec-websocket-accept"], ACCEPT);
    }

    let old = builder().version(Version::HTTP_10).body(()).unwrap();
    assert!(matches!(config.accept(&old), Err(HandshakeError::VersionNotHttp11)));
    let body = builder().header("content-length", 5).body(()).unwrap();
    assert!(matches!(config.accept(&body), Err(HandshakeError::UnexpectedBody)));
    let foreign = builder().header("origin", "https://evil.example").body(()).unwrap();
    assert!(matches!(config.accept(&foreign), Err(HandshakeError::OriginNotAllowed)));
    let bare = Request::new(());
    assert!(!is_upgrade(&bare) && config.accept(&bare).is_err());
}

// The origin, §10.2.

/// T1: the default protects who configured nothing.
#[test]
fn server_refuses_other_origins_with_403_and_never_101() {
    let config = ServerConfig::default();
    assert_accepted(&config, "", &["", "+Origin: HTTPS://EXAMPLE.COM"]);
    assert_accepted(&config, "+Origin: http", &["://example.com", "s://example.com"]);
    assert_accepted(&config, "Host: example.com:81 | +Origin: ", &["http://example.com:81"]);
    assert_accepted(&config, "Host: [::1]:81 | +Origin: ", &["http://[::1]:81"]);
    let elsewhere =
        ["http://[::2]:81", "http://[::1]:82", "http://[::1]", "http://::1:81", "[::1]:81"];
    assert_refused(&config, "origin not allowed", "Host: [::1]:81 | +Origin: ", &elsewhere);
    let refused = [
        "null",
        "",
        "example.com",
        "https://other.com",
        "https://evil-example.com",
        "https://example.com.evil.org",
        "https://example.com@evil.org",
        "https://evil.org/example.com",
        "https://evil.org#example.com",
        "http://example.com:8080",
        "http://ex\u{e4}mple.com",
        "http://example.com | +Origin: http://example.com",
        "http://example.com | +Origin: https://evil.org",
        "http://example.com, https://evil.org",
        "http://example.com https://evil.org",
    ];
    assert_refused(&config, "origin not allowed", "+Origin: ", &refused);
    for origin in refused {
        let answer = answer(&config, &request(&format!("+Origin: {origin}")));
        assert!(answer.starts_with(b"HTTP/1.1 403 Forbidden\r\n"), "{origin}");
        assert!(answer.ends_with(b"\r\n\r\norigin not allowed.\n"), "{origin}");
    }
    assert_accepted(&config.origins(Origins::Any), "+Origin: ", &refused);
}

/// T1: a wildcard stands for subdomains and nothing else (CVE-2022-42975).
#[test]
fn server_allows_the_listed_origins_only() {
    let origins = ["https://*.other.com", "http://localhost:*", "https://[::1]:8443"];
    let config = ServerConfig::default().origins(Origins::list(origins));
    assert_accepted(&config, "", &["", "+Origin: http://localhost:3000"]);
    assert_accepted(&config, "+Origin: https://", &["any.other.com", "A.B.Other.Com:443"]);
    assert_accepted(&config, "+Origin: https://[::1]:", &["8443"]);
    let refused = ["example.com", "other.com", "any-other.com", "xother.com", "[::1]"];
    assert_refused(&config, "origin not allowed", "+Origin: https://", &refused);
    let refused = ["80@any.other.com", "8443", "443 | +Origin: https://any.other.com"];
    assert_refused(&config, "origin not allowed", "+Origin: https://any.other.com:", &refused);
    assert_refused(&config, "origin not allowed", "+Origin: ", &["null", "http://any.other.com"]);
}

/// What an entry gets wrong must not widen it.
#[test]
fn server_matches_nothing_with_an_entry_that_makes_no_sense() {
    for rest in [":99999", ":", ":x", ":-1", "/", "/x", " ", "?x", "#x"] {
        let origins = Origins::list([format!("https://example.com{rest}")]);
        assert!(!origins.allow(Some("https://example.com"), "example.com"), "{rest:?}");
    }
    for entry in ["https://u@evil.org", "*", "", "*.", "https://", "https://*.", "://evil.org."] {
        for origin in ["https://evil.org", "https://evil.org.", "null"] {
            assert!(!Origins::list([entry]).allow(Some(origin), "evil.org"), "{entry}: {origin}");
        }
    }
}

// Subprotocols, §1.9 and §4.2.2 (5).

fn chosen(config: &ServerConfig, edits: &str) -> Result<Option<String>, String> {
    match serve(config, &request(edits)) {
        Ok(served) => Ok(served.accepted.negotiated.subprotocol.map(Into::into)),
        Err(error) => Err(error.to_string()),
    }
}

/// B34.
#[test]
fn server_chooses_the_subprotocol_in_its_own_order() {
    let config = ServerConfig::default().subprotocols(["v2", "v1"]);
    for (offers, subprotocol) in [
        ("v1, v2", "v2"),
        ("v1", "v1"),
        ("v3,v1", "v1"),
        ("v1 | +sec-websocket-protocol: v3, v2", "v2"),
        (",, \tv1 ,, ", "v1"),
        ("v1, v1", "v1"),
    ] {
        let edits = format!("+Sec-WebSocket-Protocol: {offers}");
        assert_eq!(chosen(&config, &edits), Ok(Some(subprotocol.to_owned())), "{edits}");
        let answer = String::from_utf8(answer(&config, &request(&edits))).unwrap();
        assert!(answer.ends_with(&format!("rotocol: {subprotocol}\r\n\r\n")), "{answer}");
    }
    // Case matters: V1 is not v1.
    let sentence = "invalid subprotocol; expected one of v2, v1";
    assert_refused(&config, sentence, "+Sec-WebSocket-Protocol: ", &["V1", "v3, v11", "v"]);
    let sentence = "missing subprotocol; expected one of v2, v1";
    assert_refused(&config, sentence, "", &["", "+Sec-WebSocket-Protocol: , ,"]);
    assert_eq!(chosen(&ServerConfig::default(), "+Sec-WebSocket-Protocol: v1"), Ok(None));
}

/// §4.1 (10): "MUST be non-empty strings with characters in the range U+0021 to U+007E not including
/// separator characters". B34.
#[test]
fn server_refuses_subprotocols_that_are_no_tokens() {
    for config in [ServerConfig::default(), ServerConfig::default().subprotocols(["v1"])] {
        let offers = ["v1, a b", "v1, gr\u{fc}n", "v1; q=1", "\"v1\"", "v1/2", "v1\u{a0}"];
        let sentence = "invalid Sec-WebSocket-Protocol header";
        assert_refused(&config, sentence, "+Sec-WebSocket-Protocol: ", &offers);
        let wire = request_with_raw_line(b"Sec-WebSocket-Protocol: v1, \xff\xfe");
        assert!(matches!(serve(&config, &wire), Err(HandshakeError::InvalidSubprotocol)));
    }
}

#[test]
fn server_lets_a_function_choose() {
    let config = ServerConfig::default().select_subprotocol(|offers| match offers {
        [] => Ok(None),
        ["secret", ..] => Err(HandshakeError::reject(StatusCode::UNAUTHORIZED, "who are you?")),
        [.., last] => Ok(Some((*last).to_owned())),
    });
    assert_eq!(chosen(&config, ""), Ok(None));
    assert_eq!(chosen(&config, "+Sec-WebSocket-Protocol: b, a, c"), Ok(Some("c".to_owned())));
    assert!(chosen(&config, "+Sec-WebSocket-Protocol: secret").unwrap_err().contains("401"));
    assert!(format!("{config:?}").contains("Custom"));
}

/// §4.2.2 (5): the value "MUST be one of the values from the client's handshake"; B34, B35.
#[test]
fn server_never_sends_a_subprotocol_that_was_not_offered() {
    for name in ["c", "A", "", "a, b", "a\r\nSet-Cookie: x=y"] {
        let config = ServerConfig::default().select_subprotocol(|_| Ok(Some(name.to_owned())));
        for edits in ["+Sec-WebSocket-Protocol: a, b", ""] {
            let answer = answer(&config, &request(edits)).escape_ascii().to_string();
            assert!(!answer.starts_with("HTTP/1.1 101 "), "{name:?}: {answer}");
            assert!(!answer.contains("Set-Cookie"), "{answer}");
        }
    }
}

/// B35: texts of the application reach a body, whose length is announced, and never a header.
#[test]
fn server_puts_texts_of_the_application_into_bodies_only() {
    let hostile = "x\r\nSet-Cookie: a=b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let refusing = ServerConfig::default()
        .select_subprotocol(move |_| Err(HandshakeError::reject(StatusCode::FORBIDDEN, hostile)));
    let insisting = ServerConfig::default().subprotocols([hostile]);
    for config in [refusing, insisting] {
        let answer = String::from_utf8(answer(&config, &request(""))).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.lines().count(), 4, "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    }
}
