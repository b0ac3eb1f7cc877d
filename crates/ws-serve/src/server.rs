//! [`Server`]: addresses, routes, and what is set for them.
//!
//! Not its business: the accept loop (`accept.rs`), threads (`worker.rs`), and what the settings mean to
//! those who go by them (`settings.rs`).

use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{
    Config, Deflate, Gate, Handler, IntoRoute, Lag, Limits, Monitor, Origins, Page, Rate, Route,
    Router, Shutdown, SlowConsumer, Text, Topics, TrustedProxies, accept,
    conn::{self, HandshakeError, handshake::HeadLimits},
    http::{Extensions, Request, Response},
    lifetime::Lifetime,
    listener::Listener,
    meter::Rates,
    route::Defaults,
    router::invalid,
    settings::{Asked, Hook, Hooks, Pace, Probe, Settings},
    worker,
};

/// A server that is not yet serving. All settings have safe defaults, and their order does not matter.
///
/// ```no_run
/// use ws_serve::{Config, Error, Server, Socket};
///
/// async fn chat(mut socket: Socket, room: String) -> Result<(), Error> {
///     socket.join(&room);
///     while let Some(message) = socket.receive().await? {
///         socket.publish(&room, message);
///     }
///     Ok(())
/// }
///
/// # async fn example() -> std::io::Result<()> {
/// Server::new()
///     .route("/chat/{room}", chat)
///     .config(Config::default().max_message_size(64 << 10))
///     .workers(4)
///     .listen("127.0.0.1:9001")?
///     .run()
///     .await
/// # }
/// ```
#[doc(alias = "Sock")]
#[must_use = "a server does nothing until it serves"]
pub struct Server {
    listeners: Vec<Listener>,
    workers: usize,
    router: Router,
    fallback: Option<Route>,
    defaults: Defaults,
    state: Extensions,
    probes: Vec<(Box<str>, Probe)>,
    hooks: Hooks,
    monitor: Monitor,
    proxies: TrustedProxies,
    proxy_protocol: bool,
    #[cfg(feature = "tls")]
    tls: Option<crate::Tls>,
    handshake_timeout: Duration,
    drain_timeout: Duration,
    grace: Duration,
    pace: Pace,
    topics: Topics,
    shutdown: Shutdown,
    on_lag: Option<Arc<crate::settings::OnLag>>,
}

/// Serves an address on the current runtime with all the defaults, for ever.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve<Args>(
    address: impl ToSocketAddrs,
    handler: impl Handler<Args>,
) -> io::Result<()> {
    Server::bind(address)?.serve(handler).await
}

/// Where it listens.
impl Server {
    /// A server without an address; see [`listen`](Self::listen).
    pub fn new() -> Self {
        Self {
            listeners: Vec::new(),
            workers: 0,
            router: Router::new(),
            fallback: None,
            defaults: Defaults {
                conn: conn::Server::new(),
                max_queue: DEFAULT_MAX_QUEUE,
                slow_consumer: SlowConsumer::default(),
                rates: Rates::default(),
                lifetime: Lifetime::default(),
            },
            state: Extensions::new(),
            probes: Vec::new(),
            hooks: Hooks::default(),
            monitor: Monitor::new(Arc::new(Gate::new(Limits::default(), Instant::now()))),
            proxies: TrustedProxies::default(),
            proxy_protocol: false,
            #[cfg(feature = "tls")]
            tls: None,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            grace: Duration::ZERO,
            pace: DEFAULT_PACE,
            topics: Topics::default(),
            shutdown: Shutdown::default(),
            on_lag: None,
        }
    }

    /// A server on an address: `Server::new().listen(address)`.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::new().listen(address)
    }

    /// Listens on one more address; a name that has several, such as `localhost`, on all of them. Port 0
    /// picks a free one. From here on clients can connect, and wait until the server runs.
    ///
    /// An IPv6 address takes IPv6 clients only: for all clients listen on `0.0.0.0` and on `[::]`.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound.
    pub fn listen(mut self, address: impl ToSocketAddrs) -> io::Result<Self> {
        self.listeners.extend(Listener::bind(address)?);
        Ok(self)
    }

    /// Listens on a Unix socket. A file that a former server left there is replaced; the file is removed
    /// in the end. `mode`, such as `0o660`, says who may connect.
    ///
    /// # Errors
    /// If somebody listens there already, or the file cannot be made.
    #[cfg(unix)]
    pub fn listen_unix(
        mut self,
        path: impl AsRef<std::path::Path>,
        mode: Option<u32>,
    ) -> io::Result<Self> {
        self.listeners.push(Listener::bind_unix(path, mode)?);
        Ok(self)
    }

    /// Listens on a socket that is bound already. All workers share it as it is.
    pub fn listener(mut self, listener: std::net::TcpListener) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// As [`listener`](Self::listener), with a Unix socket, whose file stays when the server ends.
    #[cfg(unix)]
    pub fn unix_listener(mut self, listener: std::os::unix::net::UnixListener) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// Listens on the sockets that systemd opened for this process (`LISTEN_FDS`); none if it opened
    /// none. Call this once, early in `main`.
    ///
    /// # Errors
    /// If one of them is no listener.
    #[cfg(all(unix, feature = "socket-activation"))]
    pub fn listen_inherited(mut self) -> io::Result<Self> {
        self.listeners.extend(Listener::inherited()?);
        Ok(self)
    }

    /// Speaks TLS on all TCP addresses; what comes over a Unix socket stays plain.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The first TCP address; see [`local_addrs`](Self::local_addrs).
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addrs().next()
    }

    /// The TCP addresses that are bound.
    #[doc(alias = "sockets")]
    pub fn local_addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok().flatten())
    }

    /// Serves on so many threads of its own instead of the current runtime, which is faster: tasks
    /// never move between threads. 0, the default, stays on the current runtime; so does 1 if that
    /// runtime is single-threaded.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }
}

/// What it serves.
impl Server {
    /// Serves a path. A pattern has parameters, `/chat/{room}`, each a whole segment, and at its end
    /// perhaps the rest of the path, `/files/{*rest}`; the handler takes them after its socket, as any
    /// types that can be parsed. What cannot be parsed is answered with 404, and a path that differs
    /// only in a slash at its end with a redirect, unless there is a [fallback](Self::fallback).
    ///
    /// A pattern or a handler that can never work is an error when the server starts.
    #[doc(alias = "Sock.route")]
    pub fn route<Args>(mut self, pattern: &str, route: impl IntoRoute<Args>) -> Self {
        self.router = self.router.route(pattern, route);
        self
    }

    /// Serves a path with plain HTTP, to GET and HEAD; other methods are answered with 405.
    pub fn page(mut self, pattern: &str, page: Page) -> Self {
        self.router = self.router.page(pattern, page);
        self
    }

    /// Serves a path with plain HTTP that is made for each request. It must not block.
    pub fn page_with<P: Into<Response<Bytes>>>(
        mut self,
        pattern: &str,
        make: impl Fn(&Request<()>) -> P + Send + Sync + 'static,
    ) -> Self {
        self.router = self.router.page_with(pattern, make);
        self
    }

    /// Serves the routes of a router under a prefix.
    #[doc(alias = "register_blueprint")]
    pub fn nest(mut self, prefix: &str, router: Router) -> Self {
        self.router = self.router.nest(prefix, router);
        self
    }

    /// Serves all paths that no route matches, also those that differ from one only in a slash at the end.
    /// Without it they are answered with 404.
    pub fn fallback<Args>(mut self, route: impl IntoRoute<Args>) -> Self {
        self.fallback = Some(route.into_route());
        self
    }

    /// A value that handlers take as [`State`](crate::State); one of each type.
    pub fn state<S: Clone + Send + Sync + 'static>(mut self, value: S) -> Self {
        self.state.insert(value);
        self
    }

    /// Answers whether the server runs at this path: 200. Before all hooks and limits of routes.
    pub fn health(mut self, path: &str) -> Self {
        self.probes.push((path.into(), Probe::Health));
        self
    }

    /// Answers whether the server takes clients at this path: 200, and 503 once a shutdown has begun, if
    /// there is a [grace period](Self::grace_period) in which it can be asked.
    pub fn readiness(mut self, path: &str) -> Self {
        self.probes.push((path.into(), Probe::Readiness));
        self
    }

    /// Looks at each request first, and may answer it with plain HTTP: a page, a refusal. With `None` the
    /// request goes on, to the next hook if there are several. What is attached to its [extensions](Request::extensions_mut) handlers can take
    /// as [`Data`](crate::Data).
    #[doc(alias = "process_request")]
    pub fn on_request(
        mut self,
        hook: impl Fn(&mut Request<()>) -> Option<Response<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_request.push(Hook::Sync(Arc::new(hook)));
        self
    }

    /// As [`on_request`](Self::on_request), for what takes time, such as looking up a session. Returns the
    /// request to let it go on, or the answer as an error. Counts as part of the
    /// [handshake](Self::handshake_timeout).
    pub fn on_request_async<Fut>(
        mut self,
        hook: impl Fn(Request<()>) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Fut: Future<Output = Result<Request<()>, Response<Bytes>>> + Send + 'static,
    {
        let hook = move |request| -> Asked { Box::pin(hook(request)) };
        self.hooks.on_request.push(Hook::Async(Arc::new(hook)));
        self
    }

    /// Looks at the response to each request that could be read, and may add headers, such as a cookie. What
    /// a 101 says about the handshake stays as it is. Probes, requests that are no HTTP, and connections
    /// that are refused before their request was read are answered without it.
    #[doc(alias = "process_response")]
    pub fn on_response(
        mut self,
        hook: impl Fn(&Request<()>, &mut Response<Bytes>) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_response = Some(Arc::new(hook));
        self
    }
}

/// Defaults for all routes.
impl Server {
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

    /// How many bytes may wait for one connection from those who do not wait: broadcasts, topics,
    /// [`Sender::try_send`](crate::Sender::try_send). A message that waits in a topic's queue counts 40
    /// bytes more than its frame. One message is taken even if it is larger, when nothing else waits.
    /// Default: 1 MiB.
    #[doc(alias = "write_limit")]
    #[doc(alias = "maxBackpressure")]
    pub fn max_queue(mut self, bytes: usize) -> Self {
        self.defaults.max_queue = bytes;
        self
    }

    /// What happens to members of topics that do not keep up, unless the
    /// [topic says otherwise](crate::Topic::set_slow_consumer). Default: they are disconnected, with 1013.
    #[doc(alias = "closeOnBackpressureLimit")]
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.defaults.slow_consumer = policy;
        self
    }

    /// Calls back when a connection starts to lag behind what is published, and when it has caught up.
    /// It may do anything but wait, as by taking a lock that others hold long: it runs where messages
    /// are sent.
    #[doc(alias = "drain")]
    pub fn on_lag(mut self, call: impl Fn(Lag) + Send + Sync + 'static) -> Self {
        self.on_lag = Some(Arc::new(call));
        self
    }
}

/// Who may come in.
impl Server {
    /// How many may connect, and how fast.
    pub fn limits(self, limits: Limits) -> Self {
        self.monitor.gate().set_limits(limits);
        self
    }

    /// What counts connections against the limits, for [other limits](Gate::set_limits) while the server
    /// runs.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(self.monitor.gate())
    }

    /// How many messages a connection may send in a second; who sends more is read later, not refused.
    /// `None` is no limit. Default: 100,000, and as many at once.
    pub fn message_rate(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.defaults.rates.messages = rate.into();
        self
    }

    /// How many bytes a connection may send in a second, compressed as they come; as
    /// [`message_rate`](Self::message_rate). Default: 1 GiB.
    pub fn byte_rate(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.defaults.rates.bytes = rate.into();
        self
    }

    /// Closes connections from which no message has come for so long, while their handler waits for one,
    /// with 1001; kept to an eighth of it.
    /// Default: none, since a client that only listens sends none, and the keepalive finds those that are
    /// gone.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.defaults.lifetime.idle = timeout.into();
        self
    }

    /// Closes connections that have been open for so long, with 1001, so that clients spread anew over
    /// servers, and permissions are looked at again; kept to an eighth of it. Default: none.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.defaults.lifetime.total = lifetime.into();
        self
    }

    /// How long a client may take from connecting to the end of the handshake, TLS included. Default: 5 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout.min(FOR_EVER);
        self
    }

    /// How large a request's head may be. Default: 16 KiB, 8 KiB a line, 128 headers.
    pub fn head_limits(self, limits: HeadLimits) -> Self {
        self.with_conn(|server| server.head_limits(limits))
    }

    /// The proxies that are believed when they say who a client is. Default: none, so that nobody can
    /// pretend to be somebody else.
    pub fn trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Expects a PROXY header, version 1 or 2, in front of each connection, which only a
    /// [trusted proxy](Self::trusted_proxies) may make. Default: off, and then such a header is an error.
    pub fn proxy_protocol(mut self, expected: bool) -> Self {
        self.proxy_protocol = expected;
        self
    }
}

/// How it runs, and ends.
impl Server {
    /// How long a shutdown waits for connections to close. Default: 30 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// How long the server listens on when a shutdown begins, answering clients with 503, so that a load
    /// balancer which asks for [readiness](Self::readiness) hears of it before connections are refused.
    /// Open connections are closed afterwards. Default: none.
    #[doc(alias = "lame duck")]
    pub fn grace_period(mut self, time: Duration) -> Self {
        self.grace = time.min(FOR_EVER);
        self
    }

    /// How many connections each worker closes in which time at a shutdown, so that their clients do not
    /// all come back at the same moment. It hurries if the [drain timeout](Self::drain_timeout) calls for
    /// it. Default: 10,000 in 2 s.
    pub fn drain_pace(mut self, count: usize, per: Duration) -> Self {
        self.pace = Pace { count, per };
        self
    }

    /// The server's topics, for publishing from outside its handlers.
    #[must_use]
    pub fn topics(&self) -> Topics {
        self.topics.clone()
    }

    /// The server's numbers, and who is connected.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    /// The handle that ends the server gracefully.
    #[must_use]
    pub fn shutdown_handle(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Serves one handler on all paths that no route matches, until a [`Shutdown`] is complete: the
    /// [fallback](Self::fallback), and [`run`](Self::run).
    ///
    /// # Errors
    /// As there.
    #[doc(alias = "serve_forever")]
    pub async fn serve<Args>(self, handler: impl Handler<Args>) -> io::Result<()> {
        self.fallback(handler).run().await
    }

    /// Serves until the future is ready and the shutdown that it starts is complete.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(self, end: impl Future<Output = ()>) -> io::Result<()> {
        let shutdown = self.shutdown_handle();
        let run = self.run();
        tokio::pin!(run);
        tokio::select! {
            result = &mut run => return result,
            () = end => shutdown.start(),
        }
        run.await
    }

    /// Serves until a [`Shutdown`] is complete. Dropping the future ends the server at once.
    ///
    /// # Errors
    /// Only what keeps it from starting: no address, a route that can never work. Nothing that a client
    /// does ends it.
    pub async fn run(self) -> io::Result<()> {
        let workers = self.workers;
        let (listeners, settings) = self.into_settings()?;
        // A single-threaded runtime is a worker already, and a process with one thread makes cheaper
        // system calls (measured: a tenth of a small echo).
        let flavor = Handle::current().runtime_flavor();
        if workers == 0 || (workers == 1 && flavor == RuntimeFlavor::CurrentThread) {
            return accept::run(listeners, settings).await;
        }
        let listeners = Listener::spread(listeners, workers)?;
        worker::run(listeners, move |listeners| accept::run(listeners, Arc::clone(&settings))).await
    }

    fn into_settings(self) -> io::Result<(Vec<Listener>, Arc<Settings>)> {
        if self.listeners.is_empty() {
            return Err(invalid("the server has no address; call `listen` first".into()));
        }
        let fallback = match self.fallback {
            None => None,
            Some(route) => {
                let checked = route.endpoint().check(0, &self.state);
                checked.map_err(|why| invalid(format!("the fallback: {why}")))?;
                Some(Arc::new(route.into_destination("*", &self.defaults)))
            }
        };
        let routes = self.router.into_destinations(&self.defaults, &self.state)?;
        let settings = Settings {
            routes,
            fallback,
            defaults: self.defaults,
            state: self.state,
            probes: self.probes,
            hooks: self.hooks,
            monitor: self.monitor,
            proxies: self.proxies,
            proxy_protocol: self.proxy_protocol,
            #[cfg(feature = "tls")]
            tls: self.tls,
            handshake_timeout: self.handshake_timeout,
            drain_timeout: self.drain_timeout,
            grace: self.grace,
            pace: self.pace,
            topics: self.topics,
            shutdown: self.shutdown,
            on_lag: self.on_lag,
        };
        Ok((self.listeners, Arc::new(settings)))
    }

    fn with_conn(mut self, change: impl FnOnce(conn::Server) -> conn::Server) -> Self {
        self.defaults.conn = change(self.defaults.conn);
        self
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.local_addrs().collect::<Vec<_>>())
            .field("workers", &self.workers)
            .field("routes", &self.router)
            .finish_non_exhaustive()
    }
}

/// As the message limit: one large message, or a second of small ones.
const DEFAULT_MAX_QUEUE: usize = 1 << 20;

/// A request takes a round trip or, with TLS, three: seconds are for those who do not want to.
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What process managers commonly grant between "please" and "now".
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Chosen, as Phoenix has it.
const DEFAULT_PACE: Pace = Pace { count: 10_000, per: Duration::from_secs(2) };

/// What an `Instant` can be added to.
const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
