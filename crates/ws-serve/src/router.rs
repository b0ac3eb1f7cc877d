//! [`Router`]: handlers and pages by path, to be mounted under a prefix.
//!
//! Not its business: matching, which is `routes.rs`.

use std::{fmt, io, sync::Arc};

use bytes::Bytes;

use crate::{
    IntoRoute, Page, Route,
    destination::{Destination, MakePage, Service},
    http::{Extensions, Request, Response},
    route::Defaults,
    routes::{RouteError, Routes},
};

/// Routes that belong together, wherever they will be [nested](crate::Server::nest).
///
/// ```
/// # async fn room(_: ws_serve::Socket, _: String) {}
/// # async fn lobby(_: ws_serve::Socket) {}
/// use ws_serve::{Router, Server};
///
/// let chat = Router::new().route("/", lobby).route("/{room}", room);
/// Server::new().nest("/chat", chat); // "/chat" and "/chat/{room}"
/// ```
#[derive(Default)]
#[must_use = "a router does nothing until it is nested in a server"]
#[doc(alias = "Blueprint")]
pub struct Router {
    routes: Routes<Target>,
    /// The first thing that went wrong; reported when serving begins.
    error: Option<RouteError>,
}

enum Target {
    Route(Route),
    Page(Arc<MakePage>),
}

impl Router {
    /// No routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// See [`Server::route`](crate::Server::route).
    pub fn route<Args>(self, pattern: &str, route: impl IntoRoute<Args>) -> Self {
        self.insert(pattern, Target::Route(route.into_route()))
    }

    /// See [`Server::page`](crate::Server::page).
    pub fn page(self, pattern: &str, page: Page) -> Self {
        let response = Response::from(page);
        self.insert(pattern, Target::Page(Arc::new(move |_| response.clone())))
    }

    /// See [`Server::page_with`](crate::Server::page_with).
    pub fn page_with<P: Into<Response<Bytes>>>(
        self,
        pattern: &str,
        make: impl Fn(&Request<()>) -> P + Send + Sync + 'static,
    ) -> Self {
        self.insert(pattern, Target::Page(Arc::new(move |request| make(request).into())))
    }

    /// Adds the routes of another router under a prefix.
    pub fn nest(mut self, prefix: &str, inner: Self) -> Self {
        let result = self.routes.nest(prefix, inner.routes);
        self.error = self.error.or(inner.error).or_else(|| result.err());
        self
    }

    fn insert(mut self, pattern: &str, target: Target) -> Self {
        let result = self.routes.insert(pattern, target);
        self.error = self.error.or_else(|| result.err());
        self
    }

    /// Fills in what the routes leave open, and looks whether all that handlers want will be there.
    pub(crate) fn into_destinations(
        self,
        defaults: &Defaults,
        state: &Extensions,
    ) -> io::Result<Routes<Arc<Destination>>> {
        if let Some(error) = self.error {
            return Err(invalid(error.to_string()));
        }
        for (pattern, params, target) in self.routes.iter() {
            if let Target::Route(route) = target {
                let checked = route.endpoint().check(params, state);
                checked.map_err(|why| invalid(format!("the route \"{pattern}\": {why}")))?;
            }
        }
        Ok(self.routes.map(|pattern, target| {
            Arc::new(match target {
                Target::Route(route) => route.into_destination(pattern, defaults),
                Target::Page(make) => Destination {
                    pattern: pattern.into(),
                    service: Service::Page(make),
                    conn: defaults.conn.clone(),
                    max_queue: 0,
                    slow_consumer: defaults.slow_consumer,
                    rates: defaults.rates,
                    lifetime: defaults.lifetime,
                    count: None,
                },
            })
        }))
    }
}

/// What whoever starts the server must mend.
pub(crate) fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.iter().map(|(pattern, ..)| pattern)).finish()
    }
}
