//! [`Server`]: the opening handshake on a stream that somebody accepted (RFC 6455 §4.2).
//!
//! Not its business: listening, and what happens on the connection.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Config, Deflate, Error, HandshakeError, Origins, Step, Text, WebSocket,
    deadline::after,
    handshake::{
        Accepted, HeadLimits, ServerConfig, ServerHandshake, encode_response,
        http::{HeaderValue, Method, Request, Response, StatusCode, header},
        is_upgrade, parse_request,
    },
};

/// Opens WebSockets on streams, in the server's role. Cloning is cheap.
///
/// ```
/// use ws_conn::{Config, Server};
/// let server = Server::new().subprotocols(["chat"]).config(Config::default().max_message_size(4096));
/// ```
#[derive(Clone, Debug, Default)]
#[doc(alias = "AioServer")]
pub struct Server {
    handshake: Arc<ServerConfig>,
    config: Config,
}

impl Server {
    /// Defaults: same-host origins, no subprotocol, the limits of [`Config`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits and habits of the connections.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Which web pages may connect; see [`Origins`]. Default: those of the same host.
    #[must_use]
    pub fn origins(self, origins: Origins) -> Self {
        self.with(|handshake| handshake.origins(origins))
    }

    /// The subprotocols spoken, best first; see [`ServerConfig::subprotocols`].
    #[must_use]
    pub fn subprotocols<T: Into<Text>>(self, names: impl IntoIterator<Item = T>) -> Self {
        self.with(|handshake| handshake.subprotocols(names))
    }

    /// Chooses the subprotocol by a function; see [`ServerConfig::select_subprotocol`].
    #[must_use]
    pub fn select_subprotocol(
        self,
        select: impl Fn(&[&str]) -> Result<Option<String>, HandshakeError> + Send + Sync + 'static,
    ) -> Self {
        self.with(|handshake| handshake.select_subprotocol(select))
    }

    /// Compresses messages with clients that offer it; see [`Deflate`]. Default: off.
    #[must_use]
    #[doc(alias = "compression")]
    pub fn deflate(self, settings: Deflate) -> Self {
        self.with(|handshake| handshake.deflate(settings))
    }

    /// How large a request's head may be; see [`HeadLimits`].
    #[must_use]
    pub fn head_limits(self, limits: HeadLimits) -> Self {
        self.with(|handshake| handshake.head_limits(limits))
    }

    /// The connections' configuration, as set.
    #[must_use]
    pub fn config_ref(&self) -> &Config {
        &self.config
    }

    /// Waits for a WebSocket request and accepts it, all within [`Config::open_timeout`].
    ///
    /// A bad request is answered with the fitting HTTP status before this fails.
    ///
    /// # Errors
    /// [`Error::Handshake`], [`Error::TimedOut`], [`Error::Connect`].
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<WebSocket<S>, Error> {
        self.receive_request(stream).await?.accept().await
    }

    /// Waits for a request, of whatever kind, and lets you decide.
    ///
    /// # Errors
    /// As [`accept`](Self::accept), for requests that are no HTTP.
    #[doc(alias = "read_request")]
    pub async fn receive_request<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<Upgrade<S>, Error> {
        let deadline = Instant::from_std(after(self.config.open_timeout));
        self.receive_request_by(stream, deadline).await
    }

    /// As [`receive_request`](Self::receive_request), with a deadline for the whole handshake that
    /// began earlier, as with TLS.
    ///
    /// # Errors
    /// As there.
    pub async fn receive_request_by<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        deadline: Instant,
    ) -> Result<Upgrade<S>, Error> {
        let mut input = BytesMut::new();
        let read = self.read_head(&mut stream, &mut input);
        let Ok(head) = timeout_at(deadline, read).await else {
            return Err(Error::TimedOut(Step::Handshake));
        };
        let request = head.and_then(|head| Ok((parse_request(&head)?, head)));
        match request {
            Ok((request, head)) => {
                let server = self.clone();
                Ok(Upgrade { stream, early: input, head, request, server, deadline })
            }
            Err(Error::Handshake(error)) => {
                respond(&mut stream, deadline, &error.response()).await?;
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses whatever the client is about to ask.
    ///
    /// # Errors
    /// [`Error::TimedOut`] and [`Error::Connect`].
    pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        error: &HandshakeError,
    ) -> Result<(), Error> {
        let deadline = Instant::from_std(after(self.config.open_timeout));
        respond(&mut stream, deadline, &error.response()).await
    }

    async fn read_head<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        input: &mut BytesMut,
    ) -> Result<Bytes, Error> {
        let mut handshake = ServerHandshake::new(&self.handshake);
        loop {
            input.reserve(REQUEST_SIZE);
            if stream.read_buf(input).await.map_err(Error::Connect)? == 0 {
                return Err(HandshakeError::UnexpectedEof.into());
            }
            if let Some(head) = handshake.poll_head(input)? {
                // A waiting connection holds no read buffer.
                if input.is_empty() {
                    *input = BytesMut::new();
                }
                return Ok(head);
            }
        }
    }

    fn with(mut self, change: impl FnOnce(ServerConfig) -> ServerConfig) -> Self {
        self.handshake = Arc::new(change(Arc::unwrap_or_clone(self.handshake)));
        self
    }
}

/// A request that waits for an answer.
///
/// ```
/// use ws_conn::{Error, HandshakeError, Server, handshake::http::StatusCode};
/// # async fn example(stream: tokio::net::TcpStream) -> Result<(), Error> {
/// let upgrade = Server::new().receive_request(stream).await?;
/// if upgrade.request().uri().path() != "/chat" {
///     return upgrade.reject(HandshakeError::reject(StatusCode::NOT_FOUND, "try /chat\n")).await;
/// }
/// let ws = upgrade.accept().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a request wants an answer: accept or respond"]
pub struct Upgrade<S> {
    stream: S,
    early: BytesMut,
    head: Bytes,
    request: Request<()>,
    server: Server,
    deadline: Instant,
}

impl<S> Upgrade<S> {
    /// The same request on another stream: wrapped, or taken out for a while.
    pub fn map<T>(self, f: impl FnOnce(S) -> T) -> Upgrade<T> {
        let Self { stream, early, head, request, server, deadline } = self;
        Upgrade { stream: f(stream), early, head, request, server, deadline }
    }

    /// Goes by other settings from here on: those of the request's path.
    pub fn with_server(mut self, server: &Server) -> Self {
        self.server = server.clone();
        self
    }

    /// What the client asks for.
    #[must_use]
    pub fn request(&self) -> &Request<()> {
        &self.request
    }

    /// What the client asks for, to attach [data](Request::extensions_mut) to it, or for another one to
    /// take its place.
    pub fn request_mut(&mut self) -> &mut Request<()> {
        &mut self.request
    }

    /// Judges the request as a WebSocket's, without an answer yet: that is for [`open`](Self::open) or
    /// [`respond`](Self::respond).
    ///
    /// # Errors
    /// Why it is none, or may not be; [`HandshakeError::response`] is the fitting answer.
    pub fn judge(&self) -> Result<Accepted, HandshakeError> {
        self.judge_by(&self.server)
    }

    /// As [`judge`](Self::judge), by other settings: those of its path. [`with_server`](Self::with_server)
    /// makes the connection go by them, too.
    ///
    /// # Errors
    /// As there.
    pub fn judge_by(&self, server: &Server) -> Result<Accepted, HandshakeError> {
        server.handshake.accept(&self.request)
    }

    /// The request's head as it came, for those who want to keep it: much smaller than what it
    /// parses to.
    #[must_use]
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// Whether a WebSocket is asked for at all.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        is_upgrade(&self.request)
    }

    /// The stream underneath, to look at addresses and the like.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Upgrade<S> {
    /// Judges the request, answers it, and opens the connection.
    ///
    /// # Errors
    /// As [`Server::accept`].
    #[doc(alias = "AcceptConnection")]
    pub async fn accept(mut self) -> Result<WebSocket<S>, Error> {
        match self.judge() {
            Ok(accepted) => self.open(accepted).await,
            Err(error) => {
                respond(&mut self.stream, self.deadline, &error.response()).await?;
                Err(error.into())
            }
        }
    }

    /// Answers a request that was [judged](Self::judge), perhaps with headers of your own, and opens the
    /// connection.
    ///
    /// # Errors
    /// [`Error::TimedOut`] and [`Error::Connect`].
    pub async fn open(mut self, accepted: Accepted) -> Result<WebSocket<S>, Error> {
        let bytes = encode_response(&accepted.response);
        write(&mut self.stream, self.deadline, &bytes).await?;
        let ws = WebSocket::server_on(self.stream, self.early, &self.server.config);
        Ok(ws.with_negotiated(accepted.negotiated))
    }

    /// Refuses the request, and says so to the caller, too.
    ///
    /// # Errors
    /// Always: `error`, or what kept it from being sent.
    #[doc(alias = "RejectConnection")]
    pub async fn reject<T>(mut self, error: HandshakeError) -> Result<T, Error> {
        respond(&mut self.stream, self.deadline, &error.response()).await?;
        Err(error.into())
    }

    /// Answers with plain HTTP, such as a page or a health check, and ends the connection.
    ///
    /// # Errors
    /// [`Error::TimedOut`] and [`Error::Connect`].
    pub async fn respond(mut self, mut response: Response<Bytes>) -> Result<(), Error> {
        let status = response.status();
        let headers = response.headers_mut();
        // RFC 9110 §7.8: who sends Upgrade, as with 426, says so here, too.
        let upgrades = headers.contains_key(header::UPGRADE);
        let connection = if upgrades { "Upgrade, close" } else { "close" };
        headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
        // RFC 9110 §9.3.2: the same head, no body; §8.6: with 204 and 304 the head tells no length.
        if self.request.method() == Method::HEAD {
            let body = std::mem::take(response.body_mut());
            if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
                response.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
            }
        }
        respond(&mut self.stream, self.deadline, &response).await
    }
}

/// Writes a whole response, ends the sending, and waits a moment for the peer to end its own: closing
/// on unread bytes would make TCP reset the connection and lose the answer on its way.
async fn respond<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    deadline: Instant,
    response: &Response<Bytes>,
) -> Result<(), Error> {
    write(stream, deadline, &encode_response(response)).await?;
    let linger = async {
        stream.shutdown().await?;
        let mut sink = vec![0; 4 << 10];
        let mut read = 0;
        while read < LINGER_BYTES {
            match stream.read(&mut sink).await? {
                0 => break,
                count => read += count,
            }
        }
        std::io::Result::Ok(())
    };
    // The answer is out; how the peer takes it is not our concern.
    let _ = timeout(LINGER_TIME, linger).await;
    Ok(())
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    deadline: Instant,
    bytes: &[u8],
) -> Result<(), Error> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    match timeout_at(deadline, write).await {
        Ok(result) => result.map_err(Error::Connect),
        Err(_) => Err(Error::TimedOut(Step::Handshake)),
    }
}

/// A browser's request has 500 to 800 bytes; longer ones grow the buffer.
const REQUEST_SIZE: usize = 1 << 10;

/// Chosen: enough for what is in flight of the largest refused head, too little to be a burden.
const LINGER_BYTES: usize = 4 << 20;
const LINGER_TIME: Duration = Duration::from_secs(1);
