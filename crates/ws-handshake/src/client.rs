//! The client's side of the opening handshake (RFC 6455 §4.1).
//!
//! Not its business: connecting, randomness (the nonce is an argument), redirects and deadlines.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};

use crate::{
    HandshakeError, HeadLimits, Negotiated, WsUri, accept_token,
    body::Body,
    extension,
    head::{Scanner, parse_response, put_headers},
    header::{contains_token, exactly_one, is_token, list},
    key::encode_key,
    proto::{Deflate, Text},
};

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    limits: HeadLimits,
    headers: HeaderMap,
    subprotocols: Vec<Text>,
    deflate: Option<Deflate>,
}

impl ClientConfig {
    /// How large a response's head may be.
    #[must_use]
    pub fn head_limits(mut self, limits: HeadLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a header to the request, such as `Authorization`, `Cookie` or `Origin`.
    #[must_use]
    #[doc(alias = "additional_headers")]
    #[doc(alias = "extra_headers")]
    pub fn header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        // Keeps credentials out of `Debug` output, and so out of logs.
        value.set_sensitive(CREDENTIALS.contains(&name));
        self.headers.append(name, value);
        self
    }

    /// The subprotocols to offer, best first.
    #[must_use]
    pub fn subprotocols<T: Into<Text>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Offers to compress messages (RFC 7692). Default: off.
    #[must_use]
    #[doc(alias = "compression")]
    pub fn deflate(mut self, settings: Deflate) -> Self {
        self.deflate = Some(settings);
        self
    }
}

/// Sends a request and judges the answer.
#[doc(alias = "ClientProtocol")]
pub struct ClientHandshake {
    request: Bytes,
    accept: String,
    subprotocols: Vec<Text>,
    deflate: Option<Deflate>,
    scanner: Scanner,
    /// The server's refusal, while its body is read.
    refusal: Option<(Response<()>, Body)>,
}

impl ClientHandshake {
    /// Makes the request. The nonce must be unpredictable and used once (§4.1).
    ///
    /// # Errors
    /// [`HandshakeError::ReservedHeader`] and [`HandshakeError::InvalidSubprotocol`] for what the
    /// configuration must not contain.
    pub fn new(
        uri: &WsUri,
        config: &ClientConfig,
        nonce: [u8; 16],
    ) -> Result<Self, HandshakeError> {
        if let Some(name) = RESERVED.iter().find(|name| config.headers.contains_key(*name)) {
            return Err(HandshakeError::ReservedHeader(name.as_str()));
        }
        let duplicate = |(i, name)| config.subprotocols[..i].contains(name);
        let mut names = config.subprotocols.iter();
        if !names.all(|name| is_token(name.as_bytes()))
            || config.subprotocols.iter().enumerate().any(duplicate)
        {
            return Err(HandshakeError::InvalidSubprotocol);
        }

        let key = encode_key(nonce);
        let mut request = BytesMut::with_capacity(256);
        request.put_slice(b"GET ");
        request.put_slice(uri.resource_name().as_bytes());
        request.put_slice(b" HTTP/1.1\r\n");
        let mut line = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                request.put_slice(part.as_bytes());
            }
        };
        line("Host", &uri.host_header());
        line("Upgrade", "websocket");
        line("Connection", "Upgrade");
        line("Sec-WebSocket-Key", &key);
        line("Sec-WebSocket-Version", "13");
        if !config.subprotocols.is_empty() {
            line("Sec-WebSocket-Protocol", &config.subprotocols.join(", "));
        }
        if let Some(settings) = &config.deflate {
            line("Sec-WebSocket-Extensions", &extension::offer(settings));
        }
        if let Some(authorization) = uri.authorization()
            && !config.headers.contains_key(header::AUTHORIZATION)
        {
            line("Authorization", authorization);
        }
        put_headers(&mut request, &config.headers);
        request.put_slice(b"\r\n");
        Ok(Self {
            request: request.freeze(),
            accept: accept_token(key.as_bytes()),
            subprotocols: config.subprotocols.clone(),
            deflate: config.deflate,
            scanner: Scanner::new(config.limits),
            refusal: None,
        })
    }

    /// The bytes to send.
    #[must_use]
    pub fn request(&self) -> &Bytes {
        &self.request
    }

    /// Takes the response off the front of `input` once it is all there; what follows it stays, for
    /// the server may have sent its first frames already.
    ///
    /// # Errors
    /// [`HandshakeError::Rejected`] with status, headers and body if the server declines, others if
    /// it breaks the rules.
    pub fn poll_response(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<(Negotiated, Response<()>)>, HandshakeError> {
        while self.refusal.is_none() {
            let Some(end) = self.scanner.scan(input)? else { return Ok(None) };
            let response = parse_response(&input.split_to(end).freeze())?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return self.judge(&response).map(|agreed| Some((agreed, response)));
            }
            // RFC 9110 §15.2: other 1xx come before the answer and mean nothing here.
            if !response.status().is_informational() {
                let body = Body::new(response.status(), response.headers());
                self.refusal = Some((response, body));
            }
        }
        let complete = self.refusal.as_mut().is_some_and(|(_, body)| body.poll(input));
        if complete { Err(self.handle_eof()) } else { Ok(None) }
    }

    /// Takes note that the transport ended before [`poll_response`](Self::poll_response) was done;
    /// answers with what that means.
    #[must_use]
    pub fn handle_eof(&mut self) -> HandshakeError {
        match self.refusal.take() {
            Some((response, mut body)) => {
                HandshakeError::Rejected(Box::new(response.map(|()| body.take())))
            }
            None => HandshakeError::UnexpectedEof,
        }
    }

    /// §4.1: the checks on a 101, each of which fails the connection.
    fn judge(&self, response: &Response<()>) -> Result<Negotiated, HandshakeError> {
        if response.version() < Version::HTTP_11 {
            return Err(HandshakeError::Malformed("101 in HTTP/1.0"));
        }
        let headers = response.headers();
        // To one protocol, and to this one.
        let mut protocols = list(headers, &header::UPGRADE);
        let upgraded = protocols.next().is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"));
        if !upgraded || protocols.next().is_some() {
            return Err(HandshakeError::InvalidUpgrade("Upgrade"));
        }
        if !contains_token(headers, &header::CONNECTION, "upgrade") {
            return Err(HandshakeError::InvalidUpgrade("Connection"));
        }
        let accept = exactly_one(headers, &header::SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != self.accept.as_bytes()) {
            return Err(HandshakeError::InvalidAccept);
        }
        let deflate = extension::judge(headers, self.deflate.as_ref())?;
        let subprotocol = match exactly_one(headers, &header::SEC_WEBSOCKET_PROTOCOL) {
            None if headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) => {
                return Err(HandshakeError::UnofferedSubprotocol);
            }
            None => None,
            Some(chosen) => Some(
                self.subprotocols
                    .iter()
                    .find(|name| name.as_bytes() == chosen.as_bytes())
                    .ok_or(HandshakeError::UnofferedSubprotocol)?
                    .clone(),
            ),
        };
        Ok(Negotiated { subprotocol, deflate })
    }
}

impl fmt::Debug for ClientHandshake {
    /// Without the request, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandshake")
            .field("subprotocols", &self.subprotocols)
            .finish_non_exhaustive()
    }
}

/// What tells who we are.
const CREDENTIALS: [HeaderName; 3] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// What the handshake itself is made of, and what would make a proxy see a body in our frames.
static RESERVED: [HeaderName; 10] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::HOST,
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_ACCEPT,
];
