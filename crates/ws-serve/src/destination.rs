//! [`Destination`]: what a path leads to, with everything that is set for it.
//!
//! Made from a [`Route`](crate::Route) and the server's defaults when serving begins. Not its business:
//! finding it, which is `routes.rs`.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::{
    Count, Endpoint, SlowConsumer, conn,
    http::{Request, Response},
    lifetime::Lifetime,
    meter::Rates,
};

/// Where requests for a path go.
pub(crate) struct Destination {
    /// The path's pattern.
    pub(crate) pattern: Box<str>,
    pub(crate) service: Service,
    /// How handshakes are judged, and connections configured.
    pub(crate) conn: conn::Server,
    /// Bytes that may wait for one connection from those who do not wait.
    pub(crate) max_queue: usize,
    /// What happens to members of topics that have no policy of their own.
    pub(crate) slow_consumer: SlowConsumer,
    /// How fast a connection may receive.
    pub(crate) rates: Rates,
    pub(crate) lifetime: Lifetime,
    /// How many connections there are, if there is a limit for this path.
    pub(crate) count: Option<Arc<Count>>,
}

/// What serves a path.
pub(crate) enum Service {
    /// A handler of WebSockets.
    Endpoint(Endpoint),
    /// Plain HTTP.
    Page(Arc<MakePage>),
}

/// Answers a request with plain HTTP.
pub(crate) type MakePage = dyn Fn(&Request<()>) -> Response<Bytes> + Send + Sync;

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}
