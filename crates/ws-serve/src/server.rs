//! [`Server`]: an address, its settings, and a handler for what connects.
//!
//! Not its business: the accept loop (`accept.rs`) and threads (`worker.rs`).

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{
    Config, Deflate, Handler, Lag, Origins, Shutdown, SlowConsumer, Text, Topics,
    accept::{self, Settings},
    conn::{self, HandshakeError, handshake::HeadLimits},
    http::{Request, Response},
    worker,
};

/// A server that is bound to an address and not yet serving. All settings have safe defaults.
///
/// ```no_run
/// use ws_serve::{Config, Server, Socket};
///
/// # async fn example() -> std::io::Result<()> {
/// Server::bind("127.0.0.1:9001")?
///     .config(Config::default().max_message_size(64 << 10))
///     .subprotocols(["v1.chat"])
///     .workers(4)
///     .serve(|mut socket: Socket| async move {
///         while let Some(message) = socket.receive().await? {
///             socket.send(message).await?;
///         }
///         Ok::<(), ws_serve::Error>(())
///     })
///     .await
/// # }
/// ```
#[doc(alias = "Sock")]
#[must_use = "a server does nothing until it serves"]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    workers: usize,
    settings: Settings,
}

/// Serves an address on the current runtime with all the defaults, for ever.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve<H: Handler>(address: impl ToSocketAddrs, handler: H) -> io::Result<()> {
    Server::bind(address)?.serve(handler).await
}

impl Server {
    /// Binds an address; port 0 picks a free one. From here on clients can connect, and wait until
    /// it [`serve`](Self::serve)s.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound; with several addresses, if none can.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let mut result = Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to bind"));
        for address in address.to_socket_addrs()? {
            result = worker::listen(address);
            if result.is_ok() {
                break;
            }
        }
        let listener = result?;
        let address = listener.local_addr()?;
        let settings = Settings {
            conn: conn::Server::new(),
            on_request: None,
            max_queue: DEFAULT_MAX_QUEUE,
            slow_consumer: SlowConsumer::default(),
            on_lag: None,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            topics: Topics::default(),
            shutdown: Shutdown::default(),
        };
        Ok(Self { listener, address, workers: 0, settings })
    }

    /// Limits and habits of the connections.
    pub fn config(self, config: Config) -> Self {
        self.with_conn(|server| server.config(config))
    }

    /// Which web pages may connect; see [`Origins`]. Default: those of the same host.
    pub fn origins(self, origins: Origins) -> Self {
        self.with_conn(|server| server.origins(origins))
    }

    /// The subprotocols spoken, best first; a client must offer one of them.
    pub fn subprotocols<T: Into<Text>>(self, names: impl IntoIterator<Item = T>) -> Self {
        self.with_conn(|server| server.subprotocols(names))
    }

    /// Chooses the subprotocol by a function of the client's offers.
    pub fn select_subprotocol(
        self,
        select: impl Fn(&[&str]) -> Result<Option<String>, HandshakeError> + Send + Sync + 'static,
    ) -> Self {
        self.with_conn(|server| server.select_subprotocol(select))
    }

    /// Compresses messages with clients that offer it; see [`Deflate`]. Default: off.
    #[doc(alias = "compression")]
    pub fn deflate(self, settings: Deflate) -> Self {
        self.with_conn(|server| server.deflate(settings))
    }

    /// How large a request's head may be. Default: 16 KiB, 8 KiB a line, 128 headers.
    pub fn head_limits(self, limits: HeadLimits) -> Self {
        self.with_conn(|server| server.head_limits(limits))
    }

    /// Looks at each request first and may answer it with plain HTTP: a page, a health check, a
    /// refusal. With `None` the request goes on to become a WebSocket.
    #[doc(alias = "process_request")]
    pub fn on_request(
        mut self,
        answer: impl Fn(&Request<()>) -> Option<Response<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_request = Some(Arc::new(answer));
        self
    }

    /// How many bytes may wait for one connection from those who do not wait: broadcasts, topics,
    /// [`Sender::try_send`](crate::Sender::try_send). A message that waits in a topic's queue counts 40
    /// bytes more than its frame. One message is taken even if it is larger, when nothing else waits.
    /// Default: 1 MiB.
    #[doc(alias = "write_limit")]
    #[doc(alias = "maxBackpressure")]
    pub fn max_queue(mut self, bytes: usize) -> Self {
        self.settings.max_queue = bytes;
        self
    }

    /// What happens to members of topics that do not keep up, unless the
    /// [topic says otherwise](crate::Topic::set_slow_consumer). Default: they are disconnected, with 1013.
    #[doc(alias = "closeOnBackpressureLimit")]
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.settings.slow_consumer = policy;
        self
    }

    /// Calls back when a connection starts to lag behind what is published, and when it has caught up.
    /// It may do anything but wait, as by taking a lock that others hold long: it runs where messages
    /// are sent.
    #[doc(alias = "drain")]
    pub fn on_lag(mut self, call: impl Fn(Lag) + Send + Sync + 'static) -> Self {
        self.settings.on_lag = Some(Arc::new(call));
        self
    }

    /// How long a shutdown waits for connections to close. Default: 30 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// Serves on so many threads of its own instead of the current runtime, which is faster: tasks
    /// never move between threads. 0, the default, stays on the current runtime; so does 1 if that
    /// runtime is single-threaded.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// The address that is bound.
    #[must_use]
    #[doc(alias = "sockets")]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The server's topics, for publishing from outside its handlers.
    #[must_use]
    pub fn topics(&self) -> Topics {
        self.settings.topics.clone()
    }

    /// The handle that ends the server gracefully.
    #[must_use]
    pub fn shutdown_handle(&self) -> Shutdown {
        self.settings.shutdown.clone()
    }

    /// Serves until a [`Shutdown`] is complete. Dropping the future ends the server at once.
    ///
    /// # Errors
    /// Only what keeps it from starting; nothing that a client does ends it.
    #[doc(alias = "serve_forever")]
    pub async fn serve<H: Handler>(self, handler: H) -> io::Result<()> {
        let Self { listener, workers, settings, .. } = self;
        // A single-threaded runtime is a worker already, and a process with one thread makes cheaper
        // system calls (measured: a tenth of a small echo).
        let flavor = Handle::current().runtime_flavor();
        if workers == 0 || (workers == 1 && flavor == RuntimeFlavor::CurrentThread) {
            return accept::run(listener, settings, handler).await;
        }
        let listeners = worker::share(listener, workers)?;
        worker::run(listeners, move |listener| {
            accept::run(listener, settings.clone(), handler.clone())
        })
        .await
    }

    fn with_conn(mut self, change: impl FnOnce(conn::Server) -> conn::Server) -> Self {
        self.settings.conn = change(self.settings.conn);
        self
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// As the message limit: one large message, or a second of small ones.
const DEFAULT_MAX_QUEUE: usize = 1 << 20;

/// What process managers commonly grant between "please" and "now".
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
