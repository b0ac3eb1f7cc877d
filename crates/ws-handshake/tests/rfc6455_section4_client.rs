//! The client's side of the opening handshake, sentence by sentence (RFC 6455 §4.1): asking, then
//! judging the answer.
//!
//! Not its business: sizes (`limits.rs`).

mod wire;

use bytes::Bytes;
use wire::{ACCEPT, NONCE, hear, refusal, refusal_at_eof, response};
use ws_handshake::http::{HeaderMap, HeaderName, HeaderValue};
use ws_handshake::{ClientConfig, ClientHandshake, HandshakeError, WsUri, accept_token};

fn asked(uri: &str, config: &ClientConfig) -> Result<String, HandshakeError> {
    let handshake = ClientHandshake::new(&uri.parse()?, config, NONCE)?;
    Ok(String::from_utf8(handshake.request().to_vec()).expect("these requests are text"))
}

#[test]
fn client_asks_in_these_very_bytes() {
    assert_eq!(
        asked("ws://example.com", &ClientConfig::default()).unwrap(),
        "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let config = ClientConfig::default()
        .subprotocols(["chat", "superchat"])
        .header(HeaderName::from_static("origin"), HeaderValue::from_static("http://example.com"))
        .header(HeaderName::from_static("cookie"), HeaderValue::from_static("a=b"));
    assert_eq!(
        asked("ws://Aladdin:open%20sesame@[::1]:9001/chat?room=1", &config).unwrap(),
        "GET /chat?room=1 HTTP/1.1\r\nHost: [::1]:9001\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
         Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\
         Origin: http://example.com\r\nCookie: a=b\r\n\r\n"
    );
}

#[test]
fn client_prefers_an_explicit_authorization_to_the_uris() {
    let bearer = HeaderValue::from_static("Bearer t");
    let config = ClientConfig::default().header(HeaderName::from_static("authorization"), bearer);
    let request = asked("wss://u:p@h/", &config).unwrap();
    assert!(request.contains("\r\nAuthorization: Bearer t\r\n"), "{request}");
    assert_eq!(request.matches("Authorization").count(), 1, "{request}");
}

/// Logs are read by more people than may know passwords.
#[test]
fn client_shows_no_credentials_when_debugged() {
    let uri: WsUri = "ws://Aladdin:open%20sesame@h/".parse().unwrap();
    let handshake = ClientHandshake::new(&uri, &ClientConfig::default(), NONCE).unwrap();
    for text in [format!("{uri:?}"), uri.to_string(), format!("{handshake:?}")] {
        assert!(!text.contains("QWxhZGRp") && !text.contains("sesame"), "{text}");
    }
}

/// What the handshake is made of, and what would announce a body that never comes (RFC 9112 §6).
#[test]
fn client_refuses_headers_that_belong_to_the_handshake() {
    let ours = "host connection upgrade sec-websocket-key sec-websocket-version \
                sec-websocket-protocol sec-websocket-extensions sec-websocket-accept";
    for name in ours.split_whitespace().chain(["content-length", "transfer-encoding"]) {
        let config = ClientConfig::default()
            .header(HeaderName::from_static("x"), HeaderValue::from_static("y"))
            .header(HeaderName::from_static(name), HeaderValue::from_static("5"));
        match asked("ws://h", &config) {
            Err(HandshakeError::ReservedHeader(reserved)) => assert_eq!(reserved, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// §4.1 (10): tokens, "and MUST all be unique strings". B35.
#[test]
fn client_refuses_to_offer_subprotocols_that_are_no_unique_tokens() {
    for names in ["", "a;", "a b", "a,b", "a\r\nX: y", "gr\u{fc}n", "a;b;a"] {
        let names = names.split(';');
        let error = asked("ws://h", &ClientConfig::default().subprotocols(names.clone()));
        assert!(matches!(error, Err(HandshakeError::InvalidSubprotocol)), "{names:?}");
    }
    let request = asked("ws://h", &ClientConfig::default().subprotocols(["a", "A"])).unwrap();
    assert!(request.contains("Sec-WebSocket-Protocol: a, A\r\n"), "{request}");
}

/// B35: neither a URI nor a header value can hold a line end.
#[test]
fn client_cannot_be_made_to_send_a_line_end() {
    for rest in ["/\r\nX: y", "/a\nb", "/?q=\r\n\r\n", "\r\n.org/", "/ HTTP/1.1", "/\0", "/\t"] {
        let uri = format!("ws://h{rest}");
        assert!(asked(&uri, &ClientConfig::default()).is_err(), "{uri:?}");
    }
    for value in ["a\r\nb", "a\nb", "a\rb", "a\0b"] {
        assert!(HeaderValue::from_str(value).is_err(), "{value:?}");
    }
    // Decoded, user information may hold one; encoded in base64, it does not.
    let request = asked("ws://u:%0D%0AX%3A%20y@h/", &ClientConfig::default()).unwrap();
    assert!(request.contains("\r\nAuthorization: Basic dToNClg6IHk=\r\n\r\n"), "{request}");
}

/// §3: `host [ ":" port ]`. Connecting elsewhere than written is worse than an error. B38.
#[test]
fn client_refuses_a_uri_whose_port_is_none() {
    for uri in ["ws://[::1]x:99/", "ws://[::1]99/", "ws://h:+80/"] {
        assert!(uri.parse::<WsUri>().is_err(), "{uri} became {:?}", uri.parse::<WsUri>());
    }
}

// Judging the answer.

#[test]
fn client_accepts_what_the_server_of_section_1_3_answers() {
    let config = ClientConfig::default().subprotocols(["chat", "superchat"]);
    for (edits, subprotocol) in [
        ("", None),
        ("Upgrade: WebSocket | Connection: UPGRADE", None),
        ("Connection: keep-alive, upgrade | +X: y", None),
        ("HTTP/1.1 101 ", None),
        ("HTTP/1.1 101 \u{fc}bergang", None),
        ("+Sec-WebSocket-Protocol: chat", Some("chat")),
        ("+Sec-WebSocket-Protocol:\tsuperchat ", Some("superchat")),
    ] {
        let opened = hear(&config, &response(edits)).unwrap().unwrap();
        assert_eq!(opened.negotiated.subprotocol.as_deref(), subprotocol, "{edits:?}");
        assert_eq!(opened.response.status(), 101);
        assert!(opened.rest.is_empty());
    }
}

/// B32: the server's first frames may come with the answer; RFC 9112 §6.3: a 101 has no body,
/// whatever its headers say (B37).
#[test]
fn client_leaves_early_frames_in_the_buffer() {
    let frames = b"\x81\x05Hello\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".repeat(1000);
    for edits in ["", "+Content-Length: 3", "+Transfer-Encoding: chunked"] {
        let wire = [response(edits), frames.clone()].concat();
        let opened = hear(&ClientConfig::default(), &wire).unwrap().unwrap();
        assert_eq!(opened.rest, frames, "{edits:?}");
    }
}

/// §4.1: "If the response […] the client MUST fail the WebSocket connection". B37, B34.
#[test]
fn client_fails_an_answer_that_breaks_the_rules() {
    let config = ClientConfig::default().subprotocols(["chat", "superchat"]);
    let another = accept_token(b"AAAAAAAAAAAAAAAAAAAAAA==");
    let (short, case) = (&ACCEPT[..ACCEPT.len() - 1], ACCEPT.to_ascii_lowercase());
    let (long, list) = (format!("{ACCEPT}="), format!("{ACCEPT}, {ACCEPT}"));
    let again = format!("{ACCEPT} | +Sec-WebSocket-Accept: {ACCEPT}");
    let upgrade = "invalid upgrade response: missing or invalid Upgrade header";
    let connection = "invalid upgrade response: missing or invalid Connection header";
    let accept = "invalid Sec-WebSocket-Accept header";
    let extension = "server selected an extension that was not offered";
    let subprotocol = "server selected a subprotocol that was not offered";
    for (sentence, header, values) in [
        (upgrade, "-Upgrade", &[""][..]),
        (upgrade, "Upgrade: ", &["", "h2c", "websocket/13"]),
        (connection, "-Connection", &[""]),
        (connection, "Connection: ", &["", "close", "upgraded"]),
        (accept, "-Sec-WebSocket-Accept", &[""]),
        (accept, "Sec-WebSocket-Accept: ", &["", &another, short, &long, &case, &list, &again]),
        (extension, "+Sec-WebSocket-Extensions: ", &["", "permessage-deflate"]),
        (subprotocol, "+Sec-WebSocket-Protocol: ", &["", "other", "Chat", "chat, superchat"]),
        (subprotocol, "+Sec-WebSocket-Protocol: chat", &[" | +Sec-WebSocket-Protocol: chat"]),
    ] {
        for value in values {
            let error = refusal(&config, &response(&format!("{header}{value}")));
            assert_eq!(error.to_string(), sentence, "{header}{value}");
        }
    }
    // Who offered nothing gets nothing.
    let error = refusal(&ClientConfig::default(), &response("+Sec-WebSocket-Protocol: chat"));
    assert_eq!(error.to_string(), subprotocol);
}

/// §4.2.2 (5): "A Status-Line with a 101 response code as per RFC 2616", which HTTP/1.0 has not.
#[test]
fn client_fails_a_101_of_http_1_0() {
    assert!(hear(&ClientConfig::default(), &response("HTTP/1.0 101 OK")).unwrap().is_err());
}

/// RFC 9110 §15.2: "A client MUST be able to parse one or more 1xx responses received prior to a
/// final response, even if the client does not expect one."
#[test]
fn client_skips_interim_responses() {
    for interim in
        ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]
    {
        let wire = [interim.as_bytes(), &response(""), b"\x81\x00"].concat();
        let heard = hear(&ClientConfig::default(), &wire);
        assert!(matches!(heard, Some(Ok(opened)) if opened.rest == b"\x81\x00"), "{interim}");
    }
}

fn rejected(error: HandshakeError) -> (u16, HeaderMap, Bytes) {
    match error {
        HandshakeError::Rejected(response) => {
            let (parts, body) = response.into_parts();
            (parts.status.as_u16(), parts.headers, body)
        }
        other => panic!("{other}"),
    }
}

/// B37: what the server had to say can be read. RFC 9112 §6.3.
#[test]
fn client_reports_status_headers_and_body_of_a_refusal() {
    let config = ClientConfig::default();
    for (wire, status, said) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"[..], 200, "<html>"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nwho? \n", 401, "who? \n"),
        (b"HTTP/1.0 403 Forbidden\r\nContent-Length: 2\r\n\r\nnonext", 403, "no"),
        (
            b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nno \r\n0a ; a=b\r\nsuch room\n\r\n0\r\nTrailer: x\r\n\r\n",
            404,
            "no such room\n",
        ),
        // RFC 9112 §6.3: Transfer-Encoding overrides Content-Length.
        (
            b"HTTP/1.1 500 Oops\r\nContent-Length: 1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
              2\r\nhm\r\n0\r\n\r\n",
            500,
            "hm",
        ),
        (b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n", 503, ""),
        (b"HTTP/1.1 599\r\nContent-Length: 1\r\n\r\n!", 599, "!"),
    ] {
        let (is, _, body) = rejected(refusal(&config, wire));
        assert_eq!((is, &body[..]), (status, said.as_bytes()), "{}", wire.escape_ascii());
    }

    let wire = b"HTTP/1.1 302 Found\r\nLocation: wss://h/\r\nContent-Length: 0\r\n\r\n";
    let (status, headers, _) = rejected(refusal(&config, wire));
    assert_eq!((status, &headers["location"]), (302, &HeaderValue::from_static("wss://h/")));
}

#[test]
fn client_reads_a_body_without_length_until_the_end() {
    let config = ClientConfig::default();
    for (wire, said) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\nwhat?"[..], "what?"),
        (b"HTTP/1.0 400 Bad Request\r\nContent-Length: x\r\n\r\nwhat?", "what?"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\nwhat?", "what?"),
        (b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nwhat?", "what?"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ""),
    ] {
        let (status, _, body) = rejected(refusal_at_eof(&config, wire));
        assert_eq!((status, &body[..]), (400, said.as_bytes()), "{}", wire.escape_ascii());
    }
}

/// RFC 9112 §6.3 (1): "any response with a 1xx, 204, or 304 status code is always terminated by the
/// first empty line after the header fields". Waiting for its body is waiting for the deadline.
#[test]
fn client_expects_no_body_where_there_is_none() {
    for wire in [
        &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    ] {
        let decided = hear(&ClientConfig::default(), wire);
        assert!(matches!(decided, Some(Err(HandshakeError::Rejected(_)))), "{decided:?}");
    }
}

/// RFC 9112 §7.1.1: extensions of chunks are ignored, be they long.
#[test]
fn client_judges_a_long_chunk_extension_alike_in_any_pieces() {
    let wire = format!(
        "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2;{}\r\nno\r\n0\r\n\r\n",
        "x".repeat(300)
    );
    rejected(refusal(&ClientConfig::default(), wire.as_bytes()));
}

#[test]
fn client_does_not_take_a_broken_stream_for_an_answer() {
    let config = ClientConfig::default();
    let wire = response("");
    for end in [0, 1, 12, wire.len() - 1] {
        let error = refusal_at_eof(&config, &wire[..end]);
        assert!(matches!(error, HandshakeError::UnexpectedEof), "{end}: {error}");
    }
    for wire in [
        &b"SSH-2.0-OpenSSH_9.9\r\n\r\n"[..],
        b"\x15\x03\x03\x00\x02\x02\x46\n",
        b"220 smtp.example.com ESMTP\r\n\r\n",
        b"HTTP/2 101 OK\r\n\r\n",
        b"HTTP/1.1 1O1 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 101 OK\nUpgrade: websocket\n\n",
        b"HTTP/1.1 101 OK\r\nUpgrade:\r\n websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let error = refusal(&config, wire);
        assert!(matches!(error, HandshakeError::Malformed(_)), "{}", wire.escape_ascii());
    }
}
