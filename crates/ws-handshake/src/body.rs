//! [`Body`]: the body of the answer with which a server refuses (RFC 9112 §6).
//!
//! Not its business: more than an explanation. It is cut off at a limit, and chunked coding is
//! undone because error pages often come in it.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};

use crate::header::contains_token;

/// A body that is being read.
#[derive(Debug)]
pub(crate) struct Body {
    framing: Framing,
    collected: BytesMut,
}

#[derive(Debug)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// So many bytes are left of the current chunk, its line end included; 0 in front of a chunk's size.
    Chunked(u64),
    /// Until the connection ends.
    UntilEof,
}

impl Body {
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        // RFC 9112 §6.3: these have none, whatever the headers say.
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = if bodiless {
            Framing::Length(0)
        } else if contains_token(headers, &header::TRANSFER_ENCODING, "chunked") {
            Framing::Chunked(0)
        } else if let Some(length) = length {
            Framing::Length(length)
        } else {
            Framing::UntilEof
        };
        Self { framing, collected: BytesMut::new() }
    }

    /// Takes what came. Answers whether the body is complete, or as complete as it will get.
    pub(crate) fn poll(&mut self, input: &mut BytesMut) -> bool {
        loop {
            match &mut self.framing {
                Framing::UntilEof => {
                    self.collected.unsplit(input.split());
                    return self.is_full();
                }
                Framing::Length(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= take as u64;
                    let done = *left == 0;
                    self.collected.unsplit(input.split_to(take));
                    return done || self.is_full();
                }
                Framing::Chunked(0) => match httparse::parse_chunk_size(input) {
                    Ok(httparse::Status::Complete((_, 0))) | Err(_) => return true,
                    Ok(httparse::Status::Complete((line, _))) if line > MAX_SIZE_LINE => {
                        return true;
                    }
                    Ok(httparse::Status::Complete((line, size))) => {
                        input.advance(line);
                        self.framing = Framing::Chunked(size.saturating_add(LINE_END));
                    }
                    // A size line is short; what is not is no size line.
                    Ok(httparse::Status::Partial) => return input.len() >= MAX_SIZE_LINE,
                },
                Framing::Chunked(left) => {
                    let data = usize::try_from(left.saturating_sub(LINE_END)).unwrap_or(usize::MAX);
                    let take = data.min(input.len());
                    self.collected.unsplit(input.split_to(take));
                    *left -= take as u64;
                    if *left <= LINE_END {
                        let skip = usize::try_from(*left).unwrap_or(0).min(input.len());
                        input.advance(skip);
                        *left -= skip as u64;
                    }
                    if self.is_full() {
                        return true;
                    }
                    if input.is_empty() && !matches!(self.framing, Framing::Chunked(0)) {
                        return false;
                    }
                }
            }
        }
    }

    /// The body so far.
    pub(crate) fn take(&mut self) -> Bytes {
        self.collected.truncate(MAX_BODY);
        self.collected.split().freeze()
    }

    fn is_full(&self) -> bool {
        self.collected.len() >= MAX_BODY
    }
}

/// CR LF behind a chunk.
const LINE_END: u64 = 2;

/// Sixteen hexadecimal digits and some room for extensions.
const MAX_SIZE_LINE: usize = 256;

/// Chosen, because nobody reads a longer explanation and a hostile server might send one.
const MAX_BODY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(
        name: http::HeaderName,
        value: &'static str,
        wire: &[u8],
        step: usize,
    ) -> (bool, Bytes) {
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        let mut body = Body::new(StatusCode::FORBIDDEN, &headers);
        let mut input = BytesMut::new();
        let done = wire.chunks(step).any(|piece| {
            input.extend_from_slice(piece);
            body.poll(&mut input)
        });
        (done, body.take())
    }

    #[test]
    fn length_and_chunks_in_any_pieces() {
        for step in [1, 2, 3, 5, 100] {
            let (done, body) = read(header::CONTENT_LENGTH, "5", b"hello", step);
            assert!(done && body == "hello", "{step}");
            let wire = b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
            let (done, body) = read(header::TRANSFER_ENCODING, "chunked", wire, step);
            assert!(done && body == "hello", "{step}: {body:?}");
        }
        let (done, body) = read(header::SERVER, "x", b"until the end", 4);
        assert!(!done && body == "until the end");
    }

    #[test]
    fn a_hostile_body_is_cut_off() {
        let (done, body) = read(header::SERVER, "x", &[b'x'; 100_000], 1000);
        assert!(done && body.len() == MAX_BODY);
        let (done, body) = read(header::TRANSFER_ENCODING, "chunked", b"ffffffffffffffff\r\nab", 7);
        assert!(!done && body == "ab");
        assert!(read(header::TRANSFER_ENCODING, "chunked", &[b'1'; 300], 300).0);
    }
}
