//! [`HandshakeError`]: why there is no connection, and what the client is told (RFC 6455 §4.2.2, §4.4).
//!
//! Not its business: sockets and time limits.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::head;

/// Why a handshake failed. On a server, [`status`](Self::status) and [`response`](Self::response)
/// say what the client gets to see; nothing else in this crate maps errors to status codes.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[doc(alias = "InvalidHandshake")]
#[doc(alias = "RejectConnection")]
pub enum HandshakeError {
    // What a server finds in a request.
    /// Not HTTP/1.x, or a head that breaks its grammar.
    #[error("malformed HTTP head: {0}")]
    Malformed(&'static str),
    /// The request line, or a client's status line, is longer than
    /// [`HeadLimits::max_line`](crate::HeadLimits::max_line).
    #[error("first line exceeds {0} bytes")]
    StartLineTooLong(usize),
    /// A header line is longer than [`HeadLimits::max_line`](crate::HeadLimits::max_line).
    #[error("header line exceeds {0} bytes")]
    HeaderLineTooLong(usize),
    /// More headers than [`HeadLimits::max_headers`](crate::HeadLimits::max_headers).
    #[error("more than {0} headers")]
    TooManyHeaders(usize),
    /// A head larger than [`HeadLimits::max_size`](crate::HeadLimits::max_size).
    #[error("HTTP head exceeds {0} bytes")]
    HeadTooLong(usize),
    /// The request's method is not GET (RFC 6455 §4.1).
    #[error("unsupported HTTP method; expected GET")]
    MethodNotGet,
    /// HTTP/1.0 knows no Upgrade (§4.1).
    #[error("unsupported HTTP version; expected HTTP/1.1")]
    VersionNotHttp11,
    /// A body is announced; what follows the head would be taken for frames.
    #[error("a WebSocket request has no body")]
    UnexpectedBody,
    /// No upgrade is asked for: `Connection` or `Upgrade` lack their token (§4.2.1).
    #[error("missing or invalid {0} header")]
    NotAnUpgrade(&'static str),
    /// A header that must be there exactly once is missing, repeated or empty.
    #[error("{0} header: expected exactly one")]
    NotExactlyOne(&'static str),
    /// The key is not base64 of 16 bytes (§4.2.1).
    #[error("invalid Sec-WebSocket-Key header")]
    InvalidKey,
    /// A protocol version other than 13 (§4.4).
    #[error("unsupported Sec-WebSocket-Version; expected 13")]
    UnsupportedVersion,
    /// The origin is not among those allowed (§10.2).
    #[error("origin not allowed")]
    OriginNotAllowed,
    /// A list of subprotocols that is not one of tokens (§4.1).
    #[error("invalid Sec-WebSocket-Protocol header")]
    InvalidSubprotocol,
    /// `Sec-WebSocket-Extensions` breaks its grammar (§9.1), or a server's answer does not fit our
    /// offer (RFC 7692 §7.1).
    #[error("invalid Sec-WebSocket-Extensions header")]
    InvalidExtensions,
    /// The server insists on one of its subprotocols, and none was offered.
    #[error("missing subprotocol; expected one of {0}")]
    MissingSubprotocol(String),
    /// None of the offered subprotocols is one of the server's.
    #[error("invalid subprotocol; expected one of {0}")]
    UnsupportedSubprotocol(String),
    /// The application's own refusal.
    #[error("rejected with status {}", .0.status())]
    Rejecting(Box<Response<Bytes>>),

    // What a client finds in an answer.
    /// The server answered with something else than 101; here is what.
    #[error("server rejected the connection with HTTP status {}", .0.status())]
    Rejected(Box<Response<Bytes>>),
    /// A 101 without the upgrade that was asked for (§4.1).
    #[error("invalid upgrade response: missing or invalid {0} header")]
    InvalidUpgrade(&'static str),
    /// `Sec-WebSocket-Accept` does not prove that the server read our key (§4.1).
    #[error("invalid Sec-WebSocket-Accept header")]
    InvalidAccept,
    /// The server chose an extension that was not offered (§9.1).
    #[error("server selected an extension that was not offered")]
    UnofferedExtension,
    /// The server chose a subprotocol that was not offered, or more than one (§4.1).
    #[error("server selected a subprotocol that was not offered")]
    UnofferedSubprotocol,
    /// The transport ended inside the head.
    #[error("connection closed during the opening handshake")]
    UnexpectedEof,

    // What the caller asked for.
    /// Not a `ws:` or `wss:` URI (§3).
    #[error("invalid WebSocket URI: {0}")]
    InvalidUri(&'static str),
    /// A header that belongs to the handshake itself.
    #[error("header {0} is set by the handshake")]
    ReservedHeader(&'static str),
}

impl HandshakeError {
    /// The status code that a server answers with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::StartLineTooLong(_) => StatusCode::URI_TOO_LONG,
            Self::HeaderLineTooLong(_) | Self::TooManyHeaders(_) | Self::HeadTooLong(_) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::MethodNotGet => StatusCode::METHOD_NOT_ALLOWED,
            Self::VersionNotHttp11 => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NotAnUpgrade(_) | Self::UnsupportedVersion => StatusCode::UPGRADE_REQUIRED,
            Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::Rejecting(response) => response.status(),
            Self::Malformed(_)
            | Self::UnexpectedBody
            | Self::NotExactlyOne(_)
            | Self::InvalidKey
            | Self::InvalidSubprotocol
            | Self::InvalidExtensions
            | Self::MissingSubprotocol(_)
            | Self::UnsupportedSubprotocol(_)
            | Self::UnexpectedEof => StatusCode::BAD_REQUEST,
            // A client's findings and a caller's mistakes: on a server they are its own fault.
            Self::Rejected(_)
            | Self::InvalidUpgrade(_)
            | Self::InvalidAccept
            | Self::UnofferedExtension
            | Self::UnofferedSubprotocol
            | Self::InvalidUri(_)
            | Self::ReservedHeader(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The whole HTTP answer of a server: status, a sentence, and the headers that tell a client how
    /// to do better. The connection is to be closed after it.
    #[must_use]
    #[doc(alias = "respond")]
    pub fn response(&self) -> Response<Bytes> {
        if let Self::Rejecting(response) = self {
            let mut response = response.as_ref().clone();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
        let mut text = format!("{self}.\n");
        if matches!(self, Self::NotAnUpgrade(_)) {
            text.insert_str(0, "This is a WebSocket endpoint, which needs a WebSocket client: ");
        }
        let mut response = head::text_response(self.status(), text);
        let headers = response.headers_mut();
        if self.status() == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110 §15.5.22: 426 names the protocol to upgrade to; §7.8: so does Connection.
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade, close"));
        }
        match self {
            Self::MethodNotGet => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
            }
            // RFC 6455 §4.2.2: name the versions that are understood.
            Self::UnsupportedVersion => {
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        response
    }

    /// A refusal of the application's own, such as 401 or 404.
    #[must_use]
    pub fn reject(status: StatusCode, text: impl Into<String>) -> Self {
        Self::Rejecting(Box::new(head::text_response(status, text.into())))
    }
}
