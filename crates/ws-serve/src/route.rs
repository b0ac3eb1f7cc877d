//! [`Route`]: a handler and what is set for its path alone.
//!
//! Not its business: the path, which is `router.rs`.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Config, Count, Deflate, Endpoint, Handler, Origins, Rate, SlowConsumer, Text,
    conn::{self, HandshakeError},
    destination::{Destination, Service},
    lifetime::Lifetime,
    meter::Rates,
};

/// A handler with settings of its own; what is not set is as for the whole [server](crate::Server).
///
/// ```
/// # async fn ticker(_: ws_serve::Socket, _: String) {}
/// use ws_serve::{Config, Route, Server, SlowConsumer};
///
/// Server::new().route(
///     "/ticker/{symbol}",
///     Route::new(ticker)
///         .config(Config::default().max_message_size(1 << 10))
///         .slow_consumer(SlowConsumer::Conflate)
///         .max_connections(5_000),
/// );
/// ```
#[must_use = "a route does nothing until it is given to a server"]
pub struct Route {
    endpoint: Endpoint,
    /// What is changed of the server's settings, in order.
    changes: Vec<Change>,
    max_queue: Option<usize>,
    slow_consumer: Option<SlowConsumer>,
    max_connections: Option<usize>,
    message_rate: Option<Option<Rate>>,
    byte_rate: Option<Option<Rate>>,
    idle_timeout: Option<Option<Duration>>,
    max_lifetime: Option<Option<Duration>>,
}

type Change = Box<dyn FnOnce(conn::Server) -> conn::Server + Send + Sync>;

impl Route {
    /// A route without settings of its own.
    pub fn new<Args>(handler: impl Handler<Args>) -> Self {
        Self {
            endpoint: handler.into_endpoint(),
            changes: Vec::new(),
            max_queue: None,
            slow_consumer: None,
            max_connections: None,
            message_rate: None,
            byte_rate: None,
            idle_timeout: None,
            max_lifetime: None,
        }
    }

    /// Limits and habits of the connections, instead of [the server's](crate::Server::config).
    pub fn config(self, config: Config) -> Self {
        self.change(|server| server.config(config))
    }

    /// Which web pages may connect; see [`Server::origins`](crate::Server::origins).
    pub fn origins(self, origins: Origins) -> Self {
        self.change(|server| server.origins(origins))
    }

    /// The subprotocols spoken; see [`Server::subprotocols`](crate::Server::subprotocols).
    pub fn subprotocols<T: Into<Text>>(self, names: impl IntoIterator<Item = T>) -> Self {
        let names: Vec<Text> = names.into_iter().map(Into::into).collect();
        self.change(|server| server.subprotocols(names))
    }

    /// Chooses the subprotocol by a function of the client's offers.
    pub fn select_subprotocol(
        self,
        select: impl Fn(&[&str]) -> Result<Option<String>, HandshakeError> + Send + Sync + 'static,
    ) -> Self {
        self.change(|server| server.select_subprotocol(select))
    }

    /// Compresses messages with clients that offer it; see [`Server::deflate`](crate::Server::deflate).
    pub fn deflate(self, settings: Deflate) -> Self {
        self.change(move |server| server.deflate(settings))
    }

    /// See [`Server::max_queue`](crate::Server::max_queue).
    pub fn max_queue(mut self, bytes: usize) -> Self {
        self.max_queue = Some(bytes);
        self
    }

    /// See [`Server::slow_consumer`](crate::Server::slow_consumer).
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.slow_consumer = Some(policy);
        self
    }

    /// How many connections this route may have; further ones are answered with 503. Default: as many
    /// as the [server](crate::Limits::connections).
    pub fn max_connections(mut self, count: usize) -> Self {
        self.max_connections = Some(count);
        self
    }

    /// See [`Server::message_rate`](crate::Server::message_rate).
    pub fn message_rate(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.message_rate = Some(rate.into());
        self
    }

    /// See [`Server::byte_rate`](crate::Server::byte_rate).
    pub fn byte_rate(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.byte_rate = Some(rate.into());
        self
    }

    /// See [`Server::idle_timeout`](crate::Server::idle_timeout).
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = Some(timeout.into());
        self
    }

    /// See [`Server::max_lifetime`](crate::Server::max_lifetime).
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.max_lifetime = Some(lifetime.into());
        self
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Fills in what was not set.
    pub(crate) fn into_destination(self, pattern: &str, defaults: &Defaults) -> Destination {
        let change = |server, change: Change| change(server);
        Destination {
            pattern: pattern.into(),
            service: Service::Endpoint(self.endpoint),
            conn: self.changes.into_iter().fold(defaults.conn.clone(), change),
            max_queue: self.max_queue.unwrap_or(defaults.max_queue),
            slow_consumer: self.slow_consumer.unwrap_or(defaults.slow_consumer),
            rates: Rates {
                messages: self.message_rate.unwrap_or(defaults.rates.messages),
                bytes: self.byte_rate.unwrap_or(defaults.rates.bytes),
            },
            lifetime: Lifetime {
                idle: self.idle_timeout.unwrap_or(defaults.lifetime.idle),
                total: self.max_lifetime.unwrap_or(defaults.lifetime.total),
            },
            count: self.max_connections.map(|max| Arc::new(Count::new(max))),
        }
    }

    fn change(
        mut self,
        change: impl FnOnce(conn::Server) -> conn::Server + Send + Sync + 'static,
    ) -> Self {
        self.changes.push(Box::new(change));
        self
    }
}

/// What holds for routes that say nothing else.
#[derive(Clone)]
pub(crate) struct Defaults {
    pub(crate) conn: conn::Server,
    pub(crate) max_queue: usize,
    pub(crate) slow_consumer: SlowConsumer,
    pub(crate) rates: Rates,
    pub(crate) lifetime: Lifetime,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").finish_non_exhaustive()
    }
}

/// A handler, or a [`Route`] around one.
pub trait IntoRoute<Args> {
    /// Makes a route of it.
    fn into_route(self) -> Route;
}

impl<Args, H: Handler<Args>> IntoRoute<Args> for H {
    fn into_route(self) -> Route {
        Route::new(self)
    }
}

impl IntoRoute<Self> for Route {
    fn into_route(self) -> Route {
        self
    }
}
