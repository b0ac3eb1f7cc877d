//! The client's side of the opening handshake (RFC 6455 §4.1).
//!
//! Not its business: connecting, randomness (the nonce is an argument), redirects and deadlines.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    HandshakeError, HeadLimits, Negotiated, WsUri, accept_token,
    body::Body,
    head::{Scanner, parse_response, put_headers},
    header::{contains_token, exactly_one, is_token},
    key::encode_key,
    proto::Text,
};

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    limits: HeadLimits,
    headers: HeaderMap,
    subprotocols: Vec<Text>,
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
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// The subprotocols to offer, best first.
    #[must_use]
    pub fn subprotocols<T: Into<Text>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }
}

/// Sends a request and judges the answer.
#[derive(Debug)]
#[doc(alias = "ClientProtocol")]
pub struct ClientHandshake {
    request: Bytes,
    accept: String,
    subprotocols: Vec<Text>,
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
        if let Some(name) = config.headers.keys().find(|name| RESERVED.contains(name)) {
            return Err(HandshakeError::ReservedHeader(name.clone()));
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
        if self.refusal.is_none() {
            let Some(end) = self.scanner.scan(input)? else { return Ok(None) };
            let response = parse_response(&input.split_to(end).freeze())?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return self.judge(response.headers()).map(|agreed| Some((agreed, response)));
            }
            let body = Body::new(response.headers());
            self.refusal = Some((response, body));
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
    fn judge(&self, headers: &HeaderMap) -> Result<Negotiated, HandshakeError> {
        if !contains_token(headers, &header::UPGRADE, "websocket") {
            return Err(HandshakeError::InvalidUpgrade("Upgrade"));
        }
        if !contains_token(headers, &header::CONNECTION, "upgrade") {
            return Err(HandshakeError::InvalidUpgrade("Connection"));
        }
        let accept = exactly_one(headers, &header::SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != self.accept.as_bytes()) {
            return Err(HandshakeError::InvalidAccept);
        }
        // None was offered, so none may be chosen.
        if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
            return Err(HandshakeError::UnofferedExtension);
        }
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
        Ok(Negotiated { subprotocol })
    }
}

/// What the handshake itself is made of.
const RESERVED: [HeaderName; 8] = [
    header::HOST,
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_ACCEPT,
];
