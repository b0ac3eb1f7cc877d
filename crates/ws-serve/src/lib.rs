//! A WebSocket server: you write an async function, it does the rest.
//!
//! ```no_run
//! use ws_serve::{Server, Socket};
//!
//! async fn chat(mut socket: Socket) -> Result<(), ws_serve::Error> {
//!     socket.join("lobby");
//!     while let Some(message) = socket.receive().await? { // Ok(None): closed cleanly
//!         socket.publish("lobby", message);               // framed once, sent to everybody
//!     }
//!     Ok(())                                              // Close 1000; an error: Close 1011
//! }
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     Server::bind("127.0.0.1:9001")?.serve(chat).await
//! }
//! ```
//!
//! # When messages leave
//!
//! Everything that a handler sends during one poll leaves in one write when that poll ends, and so
//! before the handler sleeps: many answers to a burst of messages cost one system call, and none is
//! held back by a timer. A [`Topic`] collects what is published during a turn of the worker and
//! offers the same bytes to all its members.
//!
//! # Slow clients
//!
//! What a client does not take is queued for it, up to [`Server::max_queue`] bytes. A handler's
//! [`Socket::send`] waits; [`Sender::try_send`] and [`broadcast()`] report it; for a member of a topic
//! that falls behind so far, a [`SlowConsumer`] policy says what is dropped, or that it is
//! disconnected. Nobody else waits for it, and [`Counts`] tell what became of each message.
//!
//! # Where it runs
//!
//! On the runtime that calls [`Server::serve`], or on [`Server::workers`]: threads of their own,
//! each with a listener, a single-threaded runtime, and the connections that the system gave it.
//!
//! # The manual
//!
//! - [Routing](guide::routing): paths, arguments, pages, hooks, and which request gets which answer.
//! - [Broadcasting](guide::broadcasting): topics, order, slow consumers, memory, compression.
//! - [Limits](guide::limits): every limit and its default, and how to size a server.
//! - [Deployment](guide::deployment): nginx, HAProxy, TLS, systemd, Kubernetes, restarts, monitoring.
//! - [Coming from Python](guide::coming_from_python): websockets, flask-sock, simple-websocket, wsproto.

mod server;
pub use server::{Server, serve};

mod router;
pub use router::Router;

mod route;
pub use route::{IntoRoute, Route};

mod handler;
pub use handler::{Handler, Outcome};

mod arguments;
pub use arguments::{Argument, Data, State};
// What the methods of `Argument` and `Handler` speak of; hidden, since nobody else calls them.
#[doc(hidden)]
pub use arguments::{Available, Refusal, Source};

mod endpoint;
#[doc(hidden)]
pub use endpoint::Endpoint;

mod page;
pub use page::Page;

mod socket;
pub use socket::Socket;

mod peer_address;
pub use peer_address::PeerAddress;

mod sender;
pub use sender::{Sender, TrySendError};

mod broadcast;
pub use broadcast::{Delivery, Skip, broadcast};

mod topic;
pub use topic::{Topic, Topics};

mod slow;
pub use slow::{Lag, SlowConsumer};

mod counts;
pub use counts::Counts;

mod auth;
pub use auth::{Username, basic_auth, basic_auth_async, basic_credentials, is_same};

mod limits;
pub use limits::Limits;

mod bucket;
pub use bucket::Rate;

mod gate;
pub use gate::Gate;

mod forwarded;
pub use forwarded::{ForwardingHeader, InvalidProxy, TrustedProxies};

#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
pub use tls::Tls;

#[cfg(feature = "tls")]
mod tls_error;
#[cfg(feature = "tls")]
pub use tls_error::TlsError;

mod stats;
pub use stats::{Connection, Monitor, Stats};

#[cfg(feature = "metrics")]
mod metrics;

mod shutdown;
pub use shutdown::Shutdown;

pub mod guide;

mod accept;
mod acceptor;
mod backlog;
mod clients;
mod clock;
mod cork;
mod count;
mod destination;
mod hub;
mod lifetime;
mod listener;
mod meter;
mod opening;
mod outbox;
mod peer;
pub mod proxy_protocol;
mod refused;
mod routes;
mod session;
mod settings;
mod shard;
#[cfg(unix)]
mod socket_file;
mod transport;
mod turn;
mod worker;

#[cfg(test)]
mod directory;
#[cfg(all(test, feature = "tls"))]
mod pki;

use count::Count;
use gate::Permit;
use refused::Refused;
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;

pub use conn::handshake::http;
pub use conn::{
    Chunk, CloseCode, CloseFrame, Closed, Compression, Config, Deflate, Error, Keepalive, Message,
    Origins, Outgoing, Pong, PreparedMessage, Text,
};
pub use ws_conn as conn;

/// The README's examples, so that they stay true.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
