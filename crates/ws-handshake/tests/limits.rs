//! How large a head may be, and what a tolerant HTTP parser lets pass (RFC 9112 §2, §3, §5;
//! RFC 6455 §10.3).
//!
//! Not its business: time. That work is linear shows in that these tests end at all: each feeds a
//! megabyte or so in its smallest pieces.

mod wire;

use wire::{
    hear, hear_pieces, refusal, request, request_with_raw_line, response, serve, serve_pieces,
};
use ws_handshake::http::StatusCode;
use ws_handshake::{ClientConfig, HandshakeError, HeadLimits, ServerConfig};

/// Limits that are none, where a test is about what lies behind them.
const RAISED: HeadLimits = HeadLimits { max_size: 4 << 20, max_line: 4 << 20, max_headers: 128 };

fn raised() -> ServerConfig {
    ServerConfig::default().head_limits(RAISED)
}

/// A legal request with so many headers in all.
fn with_headers(count: usize) -> Vec<u8> {
    request(&vec!["+X: y"; count - 5].join(" | "))
}

/// A legal request whose request line or header line has so many bytes, CR LF not counted.
fn with_request_line(length: usize) -> Vec<u8> {
    request(&format!("GET /{} HTTP/1.1", "x".repeat(length - "GET / HTTP/1.1".len())))
}

fn with_header_line(length: usize) -> Vec<u8> {
    request(&format!("+X: {}", "y".repeat(length - "X: ".len())))
}

/// A legal request of so many bytes, in lines of at most 2 000.
fn with_size(size: usize) -> Vec<u8> {
    let line = |length: usize| format!("+X: {}", "y".repeat(length - "X: \r\n".len()));
    let missing = size - request("").len();
    let mut edits = vec![line(1000); missing / 1000 - 1];
    edits.push(line(1000 + missing % 1000));
    request(&edits.join(" | "))
}

/// How many bytes a server took before it refused, and with which status.
fn refused_after(config: &ServerConfig, wire: &[u8], step: usize) -> (usize, StatusCode) {
    let mut taken = 0;
    let pieces = wire.chunks(step).inspect(|piece| taken += piece.len());
    let error = serve_pieces(config, pieces).map(|_| ()).expect_err("refused");
    (taken, error.status())
}

/// T2.
#[test]
fn server_takes_128_headers_and_answers_more_with_431() {
    let config = ServerConfig::default();
    for count in [100, 127, 128] {
        assert_eq!(serve(&config, &with_headers(count)).unwrap().request.headers().len(), count);
    }
    for count in [129, 2_000, 65_536] {
        let wire = with_headers(count);
        let error = serve(&config, &wire).unwrap_err();
        assert!(matches!(error, HandshakeError::TooManyHeaders(128)), "{count}: {error}");
        // The 129th is one too many, whatever follows.
        let (taken, status) = refused_after(&config, &wire, 1);
        assert_eq!((taken, status.as_u16()), (with_headers(129).len() - 2, 431), "{count}");
    }
    // The parser has room for 128, so a higher limit means no more than that.
    let limits = HeadLimits { max_headers: 1000, ..RAISED };
    let error = serve(&ServerConfig::default().head_limits(limits), &with_headers(129));
    assert!(matches!(error, Err(HandshakeError::TooManyHeaders(_))), "{error:?}");
}

/// T2. The line end does not count, in whatever pieces it comes.
#[test]
fn server_takes_lines_of_8192_bytes_and_no_longer_ones() {
    let config = ServerConfig::default();
    for wire in [with_request_line(8192), with_header_line(8192)] {
        assert!(serve(&config, &wire).is_ok());
    }
    let error = serve(&config, &with_request_line(8193)).unwrap_err();
    assert!(matches!(error, HandshakeError::StartLineTooLong(8192)), "{error}");
    assert_eq!(error.status(), StatusCode::URI_TOO_LONG);
    let error = serve(&config, &with_header_line(8193)).unwrap_err();
    assert!(matches!(error, HandshakeError::HeaderLineTooLong(8192)), "{error}");
    assert_eq!(error.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

/// T2.
#[test]
fn server_takes_heads_of_16_kib_and_answers_more_with_431() {
    let config = ServerConfig::default();
    let fits = with_size(16 << 10);
    assert!(fits.len() == 16_384 && serve(&config, &fits).is_ok());
    let error = serve(&config, &with_size((16 << 10) + 1)).unwrap_err();
    assert!(matches!(error, HandshakeError::HeadTooLong(16_384)), "{error}");
    // Empty lines in front count too.
    let (taken, status) = refused_after(&config, &b"\r\n".repeat(1 << 20), 1);
    assert_eq!((taken, status.as_u16()), ((16 << 10) + 1, 431));
}

/// T2: a parser that tolerates what the next one does not is how requests are smuggled.
#[test]
fn server_refuses_what_is_read_in_two_ways_with_400() {
    let config = ServerConfig::default();
    let bare_lf = String::from_utf8(request("")).unwrap().replace("\r\n", "\n").into_bytes();
    let one_bare_lf = request("+X: y\nTransfer-Encoding: chunked");
    let ends = [request("").strip_suffix(b"\r\n").unwrap(), b"\n"].concat();
    for (wire, sentence) in [
        (bare_lf, "malformed HTTP head: line ends without CR"),
        (one_bare_lf, "malformed HTTP head: line ends without CR"),
        (ends, "malformed HTTP head: line ends without CR"),
        (b"\n\n".to_vec(), "malformed HTTP head: line ends without CR"),
        (request("+X: y\rZ: z"), "malformed HTTP head: invalid header value"),
        (request("+X: y\r"), "malformed HTTP head: invalid header value"),
        (request("+\r"), "malformed HTTP head: invalid line end"),
        (request("GET /\rX HTTP/1.1"), "malformed HTTP head: invalid token"),
        // RFC 9112 §5.2.
        (request("+X: y | + folded"), "malformed HTTP head: folded header line"),
        (request("+X: | +\tfolded"), "malformed HTTP head: folded header line"),
        (request(" GET / HTTP/1.1"), "malformed HTTP head: folded header line"),
        (request("+X: \0"), "malformed HTTP head: invalid header value"),
        (request("+X\0: y"), "malformed HTTP head: invalid header name"),
        (request("+X: \x7f"), "malformed HTTP head: invalid header value"),
        (request("+: y"), "malformed HTTP head: invalid header name"),
        (request("+\u{fc}: y"), "malformed HTTP head: invalid header name"),
        (request("GET /\0 HTTP/1.1"), "malformed HTTP head: invalid token"),
        (request("GE\0T / HTTP/1.1"), "malformed HTTP head: invalid token"),
        (request("+Host: example.com"), "Host header: expected exactly one"),
        (
            request("+Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
            "Sec-WebSocket-Key header: expected exactly one",
        ),
    ] {
        let error = serve(&config, &wire).unwrap_err();
        assert_eq!(error.to_string(), sentence, "{}", wire.escape_ascii());
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }
}

/// B1 (RUSTSEC-2023-0065): nobody makes us read, or keep, more than the limits.
#[test]
fn server_refuses_an_endless_header_within_its_limits() {
    let config = ServerConfig::default();
    let line = b"X: ".len() + (1 << 20);
    let header = with_header_line(line);
    let start = request("").len() - 2;
    for step in [1, 100, 4096, header.len()] {
        let (taken, status) = refused_after(&config, &header, step);
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{step}");
        assert!(step == header.len() || taken <= start + 8193 + step, "{step}: {taken}");
        let (taken, status) = refused_after(&config, &with_request_line(line), step);
        assert_eq!(status, StatusCode::URI_TOO_LONG, "{step}");
        assert!(step == header.len() || taken <= 8193 + step, "{step}: {taken}");
    }
}

/// B1: with limits raised to 4 MiB, looking at every byte again for every packet would look at
/// half a terabyte in the first case, at 5 GB in the second.
#[test]
fn server_looks_at_each_byte_once_in_any_pieces() {
    let wire = with_header_line(1 << 20);
    for step in [1, wire.len() / 10_000] {
        let served = serve_pieces(&raised(), wire.chunks(step)).unwrap();
        assert_eq!(served.request.headers()["x"].len(), (1 << 20) - "X: ".len());
    }
}

/// T3 (CVE-2021-32640): the limit on lines holds, and behind it parsing is linear.
#[test]
fn server_reads_a_subprotocol_header_of_64_kib_in_one_pass() {
    let spaces = " ".repeat(64 << 10);
    let commas = ",".repeat(64 << 10);
    let both = " ,".repeat(32 << 10);
    for filler in [&spaces, &commas, &both] {
        let wire = request(&format!("+Sec-WebSocket-Protocol: a{filler},b"));
        let error = serve(&ServerConfig::default(), &wire).unwrap_err();
        assert!(matches!(error, HandshakeError::HeaderLineTooLong(8192)), "{error}");

        let counting = raised().select_subprotocol(|offers| {
            assert_eq!(offers, ["a", "b"]);
            Ok(Some("b".to_owned()))
        });
        let served = serve(&counting, &wire).unwrap();
        assert_eq!(served.accepted.negotiated.subprotocol.as_deref(), Some("b"));
    }
    let wire = request(&format!("+Sec-WebSocket-Protocol: {}b", "a,".repeat(32 << 10)));
    let counting = raised().select_subprotocol(|offers| {
        assert_eq!(offers.len(), (32 << 10) + 1);
        Ok(None)
    });
    assert!(serve(&counting, &wire).is_ok());
    assert!(serve(&raised().subprotocols(["b"]), &wire).is_ok());
}

/// B36; RFC 9112 §3.2: origin form and absolute form; the rest is for CONNECT and OPTIONS.
#[test]
fn server_refuses_targets_that_are_no_resource() {
    let longest = format!("/{}", "x".repeat(65_533));
    for (target, path, query) in [
        ("/", "/", None),
        ("/a/../b//c;d=e", "/a/../b//c;d=e", None),
        ("//example.org/x", "//example.org/x", None),
        ("/chat?room=1&x=%20?/", "/chat", Some("room=1&x=%20?/")),
        ("/gr\u{fc}n", "/gr\u{fc}n", None),
        ("http://example.com/chat?x", "/chat", Some("x")),
        ("http://example.com", "/", None),
        ("ws://example.com?x", "/", Some("x")),
        (&longest, &longest, None),
    ] {
        let served = serve(&raised(), &request(&format!("GET {target} HTTP/1.1"))).unwrap();
        let uri = served.request.uri();
        assert_eq!((uri.path(), uri.query()), (path, query), "{target}");
    }
    for target in [
        "*",
        "x",
        "example.com",
        "example.com:80",
        "chat/room",
        "?x",
        "#x",
        "http://",
        "http:///x",
        "http:/x",
        "ftp://example.com/x",
        // `httparse` lets these pass, `http::Uri` does not.
        "/<script>",
        "/`",
        "/?<",
        "http://h:x:y/",
        "http://[::1/",
    ] {
        let error = serve(&raised(), &request(&format!("GET {target} HTTP/1.1"))).unwrap_err();
        let start = &target[..target.len().min(20)];
        assert_eq!(error.to_string(), "malformed HTTP head: invalid request target", "{start}");
    }
    // What is longer than a `Uri` can be is too long by any limit.
    for target in [&"x".repeat(65 << 10), &format!("/{}", "x".repeat(65_534))] {
        let error = serve(&raised(), &request(&format!("GET {target} HTTP/1.1"))).unwrap_err();
        assert_eq!(
            (error.status().as_u16(), error.to_string().as_str()),
            (414, "first line exceeds 65534 bytes")
        );
    }
    let mut wire = request("GET /\u{fc} HTTP/1.1");
    wire.remove(b"GET /".len());
    let error = serve(&raised(), &wire).unwrap_err();
    assert_eq!(error.to_string(), "malformed HTTP head: invalid token", "half a code point");
}

/// B36; RFC 9110 §5.5: obs-text is opaque data.
#[test]
fn server_hands_on_header_values_that_are_no_text() {
    let wire = request_with_raw_line(b"Cookie: a=\xff\xfe\x80 \t b ");
    let served = serve(&ServerConfig::default(), &wire).unwrap();
    assert_eq!(served.request.headers()["cookie"].as_bytes(), b"a=\xff\xfe\x80 \t b");
    let wire = [&response("-Upgrade")[..], b""].concat();
    let wire = [&wire[..wire.len() - 2], b"Upgrade: websocket\r\nX: \xff\r\n\r\n"].concat();
    let opened = hear(&ClientConfig::default(), &wire).unwrap().unwrap();
    assert_eq!(opened.response.headers()["x"].as_bytes(), b"\xff");
}

#[test]
fn server_honours_limits_of_its_own() {
    let wire = request("GET /0123456789abcdef0123456789 HTTP/1.1");
    let longest = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".len();
    let fit = HeadLimits { max_size: wire.len(), max_line: longest, max_headers: 5 };
    let serve = |limits| serve(&ServerConfig::default().head_limits(limits), &wire);
    assert!(serve(fit).is_ok());
    let error = serve(HeadLimits { max_size: fit.max_size - 1, ..fit });
    assert!(matches!(error, Err(HandshakeError::HeadTooLong(_))), "{error:?}");
    let error = serve(HeadLimits { max_line: longest - 1, ..fit });
    assert!(matches!(error, Err(HandshakeError::HeaderLineTooLong(_))), "{error:?}");
    let error = serve(HeadLimits { max_line: 30, ..fit });
    assert!(matches!(error, Err(HandshakeError::StartLineTooLong(30))), "{error:?}");
    let error = serve(HeadLimits { max_headers: 4, ..fit });
    assert!(matches!(error, Err(HandshakeError::TooManyHeaders(4))), "{error:?}");
    let error = serve(HeadLimits { max_size: 0, max_line: 0, max_headers: 0 });
    assert!(error.is_err(), "{error:?}");
}

#[test]
fn client_honours_the_same_limits() {
    let fits = response("+X: 0123456789abcdef0123456789abcdef0123456789abcdef");
    let fit = HeadLimits { max_size: fits.len(), max_line: 51, max_headers: 4 };
    let config = |limits| ClientConfig::default().head_limits(limits);
    assert!(hear(&config(fit), &fits).unwrap().is_ok());
    let error = refusal(&config(HeadLimits { max_size: fit.max_size - 1, ..fit }), &fits);
    assert!(matches!(error, HandshakeError::HeadTooLong(_)), "{error}");
    let error = refusal(&config(HeadLimits { max_line: 50, ..fit }), &fits);
    assert!(matches!(error, HandshakeError::HeaderLineTooLong(50)), "{error}");
    let error = refusal(&config(HeadLimits { max_headers: 3, ..fit }), &fits);
    assert!(matches!(error, HandshakeError::TooManyHeaders(3)), "{error}");
    // A status line is no request line, but it ends as one does.
    assert!(hear(&config(HeadLimits { max_line: 20, ..fit }), &fits).unwrap().is_err());
}

/// Of two broken limits the one that breaks first counts, however the bytes are cut.
#[test]
fn limits_break_alike_in_any_pieces() {
    let limits = HeadLimits { max_size: 60, max_line: 40, max_headers: 2 };
    let config = ServerConfig::default().head_limits(limits);
    let long = "x".repeat(50);
    for wire in [
        format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nX: {}\r\nX: {long}\r\n\r\n", &long[..20]),
        format!("GET / HTTP/1.1\r\nX: {long}\n\r\n"),
        format!("GET / HTTP/1.1\r\n {long}\r\n\r\n"),
        format!("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET /{long}\n"),
    ] {
        // `serve` compares the outcomes.
        assert!(serve(&config, wire.as_bytes()).is_err(), "{wire}");
    }
}

/// What a server says in its refusal is kept up to 64 KiB, and not read any further.
#[test]
fn client_keeps_64_kib_of_a_body_and_no_more() {
    let body = "x".repeat(1 << 20);
    let chunk = format!("{:x}\r\n{body}\r\n", body.len());
    for wire in [
        format!("HTTP/1.1 404 Not Found\r\n\r\n{body}"),
        format!("HTTP/1.1 404 Not Found\r\nContent-Length: 18446744073709551615\r\n\r\n{body}"),
        format!("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!(
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            "1\r\nx\r\n".repeat(70_000)
        ),
    ] {
        let mut taken = 0;
        let pieces = wire.as_bytes().chunks(1).inspect(|piece| taken += piece.len());
        let (decided, _) = hear_pieces(&ClientConfig::default(), pieces);
        let Some(Err(HandshakeError::Rejected(whole))) = decided else { panic!("{decided:?}") };
        assert_eq!(whole.body().len(), 64 << 10);
        assert!(taken <= 7 * (64 << 10), "{taken}");
        let HandshakeError::Rejected(whole) = refusal(&ClientConfig::default(), wire.as_bytes())
        else {
            panic!("{wire:.20} was no refusal")
        };
        assert_eq!(whole.body().len(), 64 << 10);
    }
}
