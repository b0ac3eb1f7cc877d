//! HTTP/1.1 message heads ↔ bytes, within limits (RFC 9112 §2–§5).
//!
//! Not its business: what a head asks for. `httparse` reads the grammar; the scanner in front of it
//! sees each byte once, however small the packets, and enforces what a tolerant parser lets pass.

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
};

use crate::HandshakeError;

/// How large a head may be. Defaults: 16 KiB in all, 8 KiB a line, 128 headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head. Exceeding it is answered with 431.
    pub max_size: usize,
    /// Bytes of one line: 414 for the request line, 431 for a header.
    #[doc(alias = "MAX_LINE_LENGTH")]
    pub max_line: usize,
    /// Headers, at most 128. Exceeding it is answered with 431.
    #[doc(alias = "MAX_NUM_HEADERS")]
    pub max_headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_size: 16 << 10, max_line: 8 << 10, max_headers: MAX_HEADERS }
    }
}

/// Finds the end of a head in bytes that come in pieces.
#[derive(Clone, Debug)]
pub(crate) struct Scanner {
    limits: HeadLimits,
    /// Bytes that have been looked at.
    scanned: usize,
    /// Where the current line begins. `line_start <= scanned`
    line_start: usize,
    /// Lines seen so far, empty ones in front of the head not counted.
    lines: usize,
}

impl Scanner {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { limits, scanned: 0, line_start: 0, lines: 0 }
    }

    /// The length of the head at the front of `input`, its empty last line included, once it is there.
    ///
    /// What is found does not depend on how the bytes were cut: each rule is checked at the byte
    /// that breaks it.
    pub(crate) fn scan(&mut self, input: &[u8]) -> Result<Option<usize>, HandshakeError> {
        let window = &input[..input.len().min(self.limits.max_size)];
        while let Some(offset) = window[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let end = self.scanned + offset;
            self.check_line(&window[self.line_start..end])?;
            let Some(line) = window[self.line_start..end].strip_suffix(b"\r") else {
                return Err(HandshakeError::Malformed("line ends without CR"));
            };
            self.scanned = end + 1;
            self.line_start = end + 1;
            match line.first() {
                // RFC 9112 §2.2: ignore an empty line in front of the request line.
                None if self.lines == 0 => continue,
                None => {
                    let end = self.scanned;
                    *self = Self::new(self.limits);
                    return Ok(Some(end));
                }
                // RFC 9112 §5.2: folding is obsolete.
                Some(b' ' | b'\t') => return Err(HandshakeError::Malformed("folded header line")),
                Some(_) => self.lines += 1,
            }
            let max_headers = self.limits.max_headers.min(MAX_HEADERS);
            if self.lines > 1 + max_headers {
                return Err(HandshakeError::TooManyHeaders(max_headers));
            }
        }
        self.scanned = window.len();
        self.check_line(&window[self.line_start..])?;
        if input.len() > window.len() {
            return Err(HandshakeError::HeadTooLong(self.limits.max_size));
        }
        Ok(None)
    }

    /// Judges a line, or as much of it as has come, without the CR that may end it.
    fn check_line(&self, line: &[u8]) -> Result<(), HandshakeError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() <= self.limits.max_line {
            return Ok(());
        }
        Err(match self.lines {
            0 => HandshakeError::StartLineTooLong(self.limits.max_line),
            _ => HandshakeError::HeaderLineTooLong(self.limits.max_line),
        })
    }
}

/// Reads a whole request head, which came from [`ServerHandshake::poll_head`](crate::ServerHandshake::poll_head)
/// and so is within the limits. Header values share its bytes.
///
/// # Errors
/// [`HandshakeError::Malformed`] if the grammar is broken, or the target is none that a server can serve.
#[doc(alias = "read_request")]
pub fn parse_request(head: &Bytes) -> Result<Request<()>, HandshakeError> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut slots);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HandshakeError::Malformed("incomplete")),
        Err(error) => return Err(malformed(error)),
    }
    let mut request = Request::new(());
    let method = parsed.method.unwrap_or_default();
    *request.method_mut() = Method::from_bytes(method.as_bytes())
        .map_err(|_| HandshakeError::Malformed("invalid method"))?;
    *request.version_mut() = version(parsed.version);
    let path = parsed.path.unwrap_or_default();
    if path.len() > MAX_TARGET {
        return Err(HandshakeError::StartLineTooLong(MAX_TARGET));
    }
    // RFC 9112 §3.2: no form of target has a fragment; `Uri` drops it silently.
    if path.contains('#') {
        return Err(HandshakeError::Malformed("invalid request target"));
    }
    let uri = Uri::from_maybe_shared(head.slice_ref(path.as_bytes()))
        .map_err(|_| HandshakeError::Malformed("invalid request target"))?;
    // Origin form or absolute form (RFC 9112 §3.2); the others belong to CONNECT and OPTIONS.
    // An absolute form names the scheme of this connection, which a proxy may have ended TLS for.
    let scheme_fits = uri.scheme_str().is_none_or(|scheme| SCHEMES.contains(&scheme));
    if !uri.path().starts_with('/') || !scheme_fits {
        return Err(HandshakeError::Malformed("invalid request target"));
    }
    *request.uri_mut() = uri;
    *request.headers_mut() = headers(head, parsed.headers)?;
    Ok(request)
}

/// Reads a whole response head.
pub(crate) fn parse_response(head: &Bytes) -> Result<Response<()>, HandshakeError> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut slots);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HandshakeError::Malformed("incomplete")),
        Err(error) => return Err(malformed(error)),
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(parsed.code.unwrap_or_default())
        .map_err(|_| HandshakeError::Malformed("invalid status code"))?;
    *response.version_mut() = version(parsed.version);
    *response.headers_mut() = headers(head, parsed.headers)?;
    Ok(response)
}

/// A response's bytes: status line, headers, body. A body gets its `Content-Length`; whoever wants
/// the connection closed says so in the headers.
#[must_use]
#[doc(alias = "build_response")]
pub fn encode_response(response: &Response<Bytes>) -> Bytes {
    let mut out = BytesMut::with_capacity(256 + response.body().len());
    let status = response.status();
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    put_headers(&mut out, response.headers());
    // RFC 9110 §8.6: none with 1xx, 204 and 304.
    let bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless && !response.headers().contains_key(header::CONTENT_LENGTH) {
        out.put_slice(format!("Content-Length: {}\r\n", response.body().len()).as_bytes());
    }
    out.put_slice(b"\r\n");
    if !bodiless {
        out.put_slice(response.body());
    }
    out.freeze()
}

/// A plain-text response after which the connection closes.
pub(crate) fn text_response(status: StatusCode, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Writes header lines, names in the usual capitals for the eyes of people and naive programs.
pub(crate) fn put_headers(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        let mut rest = name.as_str();
        if let Some(ours) = rest.strip_prefix("sec-websocket") {
            out.put_slice(b"Sec-WebSocket");
            rest = ours;
        }
        let mut at_start = rest.len() == name.as_str().len();
        for byte in rest.bytes() {
            out.put_u8(if at_start { byte.to_ascii_uppercase() } else { byte });
            at_start = byte == b'-';
        }
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
}

fn headers(head: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, HandshakeError> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    for entry in parsed {
        let name = HeaderName::from_bytes(entry.name.as_bytes())
            .map_err(|_| HandshakeError::Malformed("invalid header name"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(entry.value))
            .map_err(|_| HandshakeError::Malformed("invalid header value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 }
}

fn malformed(error: httparse::Error) -> HandshakeError {
    HandshakeError::Malformed(match error {
        httparse::Error::HeaderName => "invalid header name",
        httparse::Error::HeaderValue => "invalid header value",
        httparse::Error::NewLine => "invalid line end",
        httparse::Error::Status => "invalid status",
        httparse::Error::Token => "invalid token",
        httparse::Error::TooManyHeaders => "too many headers",
        httparse::Error::Version => "invalid HTTP version",
    })
}

/// As Python's `websockets`; a browser sends about fifteen.
const MAX_HEADERS: usize = 128;

/// What a WebSocket may be asked for with (RFC 6455 §3, and as browsers' proxies write it).
const SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// What `Uri` takes.
const MAX_TARGET: usize = 65_534;
