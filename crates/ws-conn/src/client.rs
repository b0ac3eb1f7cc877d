//! [`Client`]: from a URL to an open connection (RFC 6455 §4.1).
//!
//! Not its business: TLS, redirects, proxies and reconnecting.

use std::io;

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Config, Deflate, Error, Step, Text, WebSocket,
    handshake::{
        ClientConfig, ClientHandshake, HandshakeError, WsUri,
        http::{HeaderName, HeaderValue, Response},
    },
};

/// Opens a WebSocket to a URL.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ws_conn::{Client, handshake::http::header};
/// let mut ws = Client::new("ws://example.com/chat")?
///     .subprotocols(["v2.chat"])
///     .header(header::AUTHORIZATION, "Bearer 123".parse()?)
///     .connect()
///     .await?;
/// ws.send("hello").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "connect")]
#[doc(alias = "AioClient")]
#[doc(alias = "ClientConnection")]
pub struct Client {
    uri: WsUri,
    handshake: ClientConfig,
    config: Config,
}

impl Client {
    /// A client for this URL.
    ///
    /// # Errors
    /// [`HandshakeError::InvalidUri`] if it is not a `ws:` or `wss:` URL.
    pub fn new(url: &str) -> Result<Self, HandshakeError> {
        let uri = url.parse()?;
        Ok(Self { uri, handshake: ClientConfig::default(), config: Config::default() })
    }

    /// Limits and habits of the connection.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Adds a header to the request.
    #[must_use]
    #[doc(alias = "additional_headers")]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.handshake = self.handshake.header(name, value);
        self
    }

    /// The subprotocols to offer, best first.
    #[must_use]
    pub fn subprotocols<T: Into<Text>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.handshake = self.handshake.subprotocols(names);
        self
    }

    /// Offers to compress messages; see [`Deflate`]. Default: off.
    #[must_use]
    #[doc(alias = "compression")]
    pub fn deflate(mut self, settings: Deflate) -> Self {
        self.handshake = self.handshake.deflate(settings);
        self
    }

    /// Resolves the host, tries all its addresses, and opens the connection, all within
    /// [`Config::open_timeout`].
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::TimedOut`], [`Error::TlsUnavailable`] for `wss:` URLs, which are
    /// never tried in the clear, and those of [`connect_over`](Self::connect_over).
    pub async fn connect(&self) -> Result<WebSocket<TcpStream>, Error> {
        if self.uri.is_secure() {
            return Err(Error::TlsUnavailable);
        }
        let mut step = Step::Connecting;
        let open = async {
            // Tries each address in turn and reports the last failure.
            let stream = TcpStream::connect((self.uri.host(), self.uri.port()))
                .await
                .map_err(Error::Connect)?;
            // Small messages must not wait for the acknowledgement of the one before.
            stream.set_nodelay(true).map_err(Error::Connect)?;
            step = Step::Handshake;
            self.shake_hands(stream).await
        };
        let opened = timeout(self.config.open_timeout, open).await;
        opened.unwrap_or(Err(Error::TimedOut(step))).map(|(ws, _)| ws)
    }

    /// Opens the connection on a stream of your own: over TLS, a proxy, a Unix socket, memory.
    /// Answers with the server's response, too.
    ///
    /// # Errors
    /// [`Error::Handshake`] if the server refuses or breaks the rules, [`Error::TimedOut`],
    /// [`Error::Connect`].
    pub async fn connect_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(WebSocket<S>, Response<()>), Error> {
        let opened = timeout(self.config.open_timeout, self.shake_hands(stream)).await;
        opened.unwrap_or(Err(Error::TimedOut(Step::Handshake)))
    }

    async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
    ) -> Result<(WebSocket<S>, Response<()>), Error> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| Error::Connect(error.into()))?;
        let mut handshake = ClientHandshake::new(&self.uri, &self.handshake, nonce)?;
        let send = async {
            stream.write_all(handshake.request()).await?;
            stream.flush().await
        };
        // A server that refuses early may have closed its reading side; its answer counts.
        let sent: io::Result<()> = send.await;
        let mut input = BytesMut::new();
        loop {
            input.reserve(RESPONSE_SIZE);
            let count = match stream.read_buf(&mut input).await {
                Ok(count) => count,
                Err(error) => return Err(Error::Connect(sent.err().unwrap_or(error))),
            };
            if count == 0 {
                return Err(handshake.handle_eof().into());
            }
            if let Some((negotiated, response)) = handshake.poll_response(&mut input)? {
                let ws = WebSocket::client_on(stream, input, &self.config)?;
                return Ok((ws.with_negotiated(negotiated), response));
            }
        }
    }
}

/// Most responses have 130 to 300 bytes; longer ones grow the buffer.
const RESPONSE_SIZE: usize = 1 << 10;
