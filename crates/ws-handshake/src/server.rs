//! The server's side of the opening handshake (RFC 6455 §4.2).
//!
//! Not its business: sockets, deadlines, and which handler serves which path.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};

use crate::{
    HandshakeError, HeadLimits, Negotiated, Origins, SelectSubprotocol, accept_token, extension,
    head::{Scanner, parse_request},
    header::{contains_token, exactly_one},
    is_valid_key,
    origin::is_host,
    proto::{Deflate, Text},
    subprotocol::Selection,
};

/// What a server accepts.
///
/// ```
/// use ws_handshake::{Origins, ServerConfig};
/// let config = ServerConfig::default()
///     .subprotocols(["v2.chat", "v1.chat"])
///     .origins(Origins::list(["https://example.com"]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    limits: HeadLimits,
    origins: Origins,
    selection: Selection,
    deflate: Option<Deflate>,
}

impl ServerConfig {
    /// How large a request's head may be.
    #[must_use]
    pub fn head_limits(mut self, limits: HeadLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Which web pages may connect. Default: those of the same host.
    #[must_use]
    pub fn origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// The subprotocols that the server speaks, best first. A client must offer one of them, or it
    /// is refused with 400. Default: none is negotiated.
    #[must_use]
    pub fn subprotocols<T: Into<Text>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.selection = Selection::server_order(names.into_iter().map(Into::into).collect());
        self
    }

    /// Chooses the subprotocol by a function, which gets the client's offers in the client's order.
    #[must_use]
    #[doc(alias = "choose_subprotocol")]
    pub fn select_subprotocol(
        mut self,
        select: impl Fn(&[&str]) -> Result<Option<String>, HandshakeError> + Send + Sync + 'static,
    ) -> Self {
        let select: std::sync::Arc<SelectSubprotocol> = std::sync::Arc::new(select);
        self.selection = Selection::Custom(select);
        self
    }

    /// Compresses messages with clients that offer it (RFC 7692). Default: off.
    #[must_use]
    #[doc(alias = "compression")]
    pub fn deflate(mut self, settings: Deflate) -> Self {
        self.deflate = Some(settings);
        self
    }

    /// Judges a request, wherever it was parsed, and makes the answer that accepts it.
    ///
    /// # Errors
    /// What is wrong with the request; [`HandshakeError::response`] is the answer then.
    #[doc(alias = "initiate_upgrade_connection")]
    #[doc(alias = "AcceptConnection")]
    #[doc(alias = "process_request")]
    pub fn accept<B>(&self, request: &Request<B>) -> Result<Accepted, HandshakeError> {
        let headers = request.headers();
        if request.method() != Method::GET {
            return Err(HandshakeError::MethodNotGet);
        }
        if request.version() < Version::HTTP_11 {
            return Err(HandshakeError::VersionNotHttp11);
        }
        // Bytes of a body would be taken for frames (request smuggling, with a proxy in front).
        let empty = headers.get_all(header::CONTENT_LENGTH).iter().all(|length| length == "0");
        if headers.contains_key(header::TRANSFER_ENCODING) || !empty {
            return Err(HandshakeError::UnexpectedBody);
        }
        let host = exactly_one(headers, &header::HOST)
            .filter(|host| !host.is_empty())
            .and_then(|host| host.to_str().ok())
            .ok_or(HandshakeError::NotExactlyOne("Host"))?;
        // RFC 9112 §3.2: a malformed Host is answered with 400; §3.2.2: the host of an absolute
        // target counts instead.
        if !is_host(host) {
            return Err(HandshakeError::Malformed("invalid Host header"));
        }
        let host = request.uri().authority().map_or(host, http::uri::Authority::as_str);
        if !contains_token(headers, &header::CONNECTION, "upgrade") {
            return Err(HandshakeError::NotAnUpgrade("Connection"));
        }
        if !contains_token(headers, &header::UPGRADE, "websocket") {
            return Err(HandshakeError::NotAnUpgrade("Upgrade"));
        }
        let version = exactly_one(headers, &header::SEC_WEBSOCKET_VERSION)
            .ok_or(HandshakeError::NotExactlyOne("Sec-WebSocket-Version"))?;
        if version != "13" {
            return Err(HandshakeError::UnsupportedVersion);
        }
        let key = exactly_one(headers, &header::SEC_WEBSOCKET_KEY)
            .ok_or(HandshakeError::NotExactlyOne("Sec-WebSocket-Key"))?;
        if !is_valid_key(key.as_bytes()) {
            return Err(HandshakeError::InvalidKey);
        }
        self.origins.check(headers, host)?;
        let subprotocol = self.selection.select(headers)?;
        let deflate = extension::accept(headers, self.deflate.as_ref())?;
        let (deflate, extensions) = deflate.unzip();
        let negotiated = Negotiated { subprotocol, deflate };
        Ok(Accepted::new(key, negotiated, extensions.as_deref()))
    }

    pub(crate) fn limits(&self) -> HeadLimits {
        self.limits
    }
}

/// A request that was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The 101 response; send it, with headers of your own if you like, and the connection is open.
    pub response: Response<Bytes>,
    /// What was agreed on.
    pub negotiated: Negotiated,
}

impl Accepted {
    fn new(key: &HeaderValue, negotiated: Negotiated, extensions: Option<&str>) -> Self {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let mut put = |name, value: &[u8]| {
            let value =
                HeaderValue::from_bytes(value).expect("base64 and tokens are header values");
            headers.insert(name, value);
        };
        put(header::SEC_WEBSOCKET_ACCEPT, accept_token(key.as_bytes()).as_bytes());
        if let Some(subprotocol) = &negotiated.subprotocol {
            put(header::SEC_WEBSOCKET_PROTOCOL, subprotocol.as_bytes());
        }
        if let Some(extensions) = extensions {
            put(header::SEC_WEBSOCKET_EXTENSIONS, extensions.as_bytes());
        }
        Self { response, negotiated }
    }
}

/// Whether a request asks for a WebSocket at all; what does not may be answered by a web server.
///
/// ```
/// let request = http::Request::get("/index.html").body(())?;
/// assert!(!ws_handshake::is_upgrade(&request));
/// # Ok::<(), http::Error>(())
/// ```
#[must_use]
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    contains_token(request.headers(), &header::UPGRADE, "websocket")
}

/// Waits for a request, bytes in any pieces.
#[derive(Clone, Debug)]
#[doc(alias = "H11Handshake")]
#[doc(alias = "ServerProtocol")]
pub struct ServerHandshake {
    scanner: Scanner,
}

impl ServerHandshake {
    /// Waits for the first request of a connection.
    #[must_use]
    pub fn new(config: &ServerConfig) -> Self {
        Self { scanner: Scanner::new(config.limits()) }
    }

    /// Takes the head of a request off the front of `input` once it is all there, unparsed, into
    /// memory of its own; for those who want to keep it, as it is much smaller than what
    /// [`parse_request`] makes of it.
    ///
    /// # Errors
    /// Limits and line ends.
    pub fn poll_head(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, HandshakeError> {
        let end = self.scanner.scan(input)?;
        Ok(end.map(|end| {
            let head = Bytes::copy_from_slice(&input[..end]);
            input.advance(end);
            head
        }))
    }

    /// Takes a request off the front of `input` once it is all there. What follows it stays: a
    /// client may send its first frames without waiting for us.
    ///
    /// # Errors
    /// Anything about the head as such. Whether it makes sense as a WebSocket request is for
    /// [`ServerConfig::accept`] to say.
    #[doc(alias = "read_request")]
    pub fn poll_request(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<Request<()>>, HandshakeError> {
        match self.poll_head(input)? {
            Some(head) => parse_request(&head).map(Some),
            None => Ok(None),
        }
    }
}
