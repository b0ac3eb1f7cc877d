//! [`Settings`]: everything that is set for a server, in the form in which all its runtimes share it.
//!
//! Not its business: setting it, which is `server.rs`.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Lag, Monitor, Page, PeerAddress, Permit, Refused, Shutdown, Topics, TrustedProxies,
    conn::handshake::Accepted,
    destination::Destination,
    http::{
        Extensions, HeaderMap, Request, Response, StatusCode,
        header::{self, HeaderName},
    },
    route::Defaults,
    routes::Routes,
};

/// What all runtimes of a server share.
pub(crate) struct Settings {
    pub(crate) defaults: Defaults,
    pub(crate) routes: Routes<Arc<Destination>>,
    /// Where paths lead that no route matches.
    pub(crate) fallback: Option<Arc<Destination>>,
    /// What handlers take as `State`, by type.
    pub(crate) state: Extensions,
    pub(crate) probes: Vec<(Box<str>, Probe)>,
    pub(crate) hooks: Hooks,
    pub(crate) monitor: Monitor,
    pub(crate) proxies: TrustedProxies,
    pub(crate) proxy_protocol: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::Tls>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) pace: Pace,
    pub(crate) topics: Topics,
    pub(crate) shutdown: Shutdown,
    pub(crate) on_lag: Option<Arc<OnLag>>,
}

/// Answers a request with plain HTTP instead of a WebSocket.
pub(crate) type OnRequest = dyn Fn(&mut Request<()>) -> Option<Response<Bytes>> + Send + Sync;
/// The same, and may take its time.
pub(crate) type OnRequestAsync = dyn Fn(Request<()>) -> Asked + Send + Sync;
/// Either the request goes on, or this is the answer.
pub(crate) type Asked = Pin<Box<dyn Future<Output = Result<Request<()>, Response<Bytes>>> + Send>>;
/// Changes a response before it is sent.
pub(crate) type OnResponse = dyn Fn(&Request<()>, &mut Response<Bytes>) + Send + Sync;
/// Is told when a connection starts or stops lagging.
pub(crate) type OnLag = dyn Fn(Lag) + Send + Sync;

/// Looks at requests.
#[derive(Clone)]
pub(crate) enum Hook {
    Sync(Arc<OnRequest>),
    Async(Arc<OnRequestAsync>),
}

/// What the application wants to see of requests and answers.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    /// In the order in which they were set.
    pub(crate) on_request: Vec<Hook>,
    pub(crate) on_response: Option<Arc<OnResponse>>,
}

/// What a path asks about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Whether it runs.
    Health,
    /// Whether it should be sent clients.
    Readiness,
}

/// How fast connections are closed at a shutdown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) count: usize,
    pub(crate) per: Duration,
}

impl Pace {
    /// How long after the first of `all` connections this one has its turn, if the last one must have it
    /// within the limit.
    pub(crate) fn delay(&self, number: usize, all: usize, limit: Duration) -> Duration {
        let delay = |per: Duration, count: usize| {
            per.as_nanos().saturating_mul(number as u128) / count.max(1) as u128
        };
        let nanos = delay(self.per, self.count).min(delay(limit, all));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Settings {
    /// The shortest time that a connection may live or be idle, if there is one.
    pub(crate) fn shortest_lifetime(&self) -> Option<Duration> {
        let routes = self.routes.iter().map(|(_, _, destination)| destination);
        let all = routes.chain(&self.fallback);
        all.filter_map(|destination| destination.lifetime.shortest()).min()
    }

    pub(crate) fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// The answer to a question about the server itself.
    pub(crate) fn probe(&self, path: &str) -> Option<Response<Bytes>> {
        let (_, probe) = self.probes.iter().find(|(own, _)| **own == *path)?;
        let ready = *probe == Probe::Health || !self.shutdown.is_started();
        let page = match ready {
            true => Page::text("ok\n"),
            false => Page::text("shutting down\n").status(StatusCode::SERVICE_UNAVAILABLE),
        };
        Some(page.into())
    }

    /// Lets the hooks see a request; `Some` is the answer to it.
    pub(crate) async fn ask_hooks(&self, request: &mut Request<()>) -> Option<Response<Bytes>> {
        for hook in &self.hooks.on_request {
            let asked = match hook {
                Hook::Sync(hook) => hook(request).map_or(Ok(()), Err),
                // A copy: who answers keeps its request, and the answer goes by ours (HEAD, `on_response`).
                Hook::Async(hook) => hook(request.clone()).await.map(|back| *request = back),
            };
            if let Err(answer) = asked {
                return Some(answer);
            }
        }
        None
    }

    /// Lets the hook change an answer that is no 101.
    pub(crate) fn edit(&self, request: &Request<()>, response: &mut Response<Bytes>) {
        if let Some(hook) = &self.hooks.on_response {
            hook(request, response);
        }
    }

    /// Lets the hook add to the 101. What the handshake says stays as it is: the client goes by it.
    pub(crate) fn edit_accepted(&self, request: &Request<()>, accepted: &mut Accepted) {
        if let Some(hook) = &self.hooks.on_response {
            let before = accepted.response.headers().clone();
            let response = &mut accepted.response;
            hook(request, response);
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.body_mut().clear();
            for name in HANDSHAKE {
                response.headers_mut().remove(&name);
                if let Some(value) = before.get(&name) {
                    response.headers_mut().insert(name, value.clone());
                }
            }
        }
    }

    /// Lets a connection in, before a byte of it is read. It counts for its address from now on, unless
    /// a proxy has yet to tell which that is: otherwise one address could take all the places there are,
    /// for as long as a handshake may take.
    pub(crate) fn admit(&self, address: PeerAddress) -> Result<Permit, Refused> {
        let mut permit = self.monitor.gate().enter(Instant::now())?;
        let is_told = self.proxy_protocol || self.trusts(address);
        if let Some(ip) = address.ip().filter(|_| !is_told) {
            permit.identify(ip)?;
        }
        Ok(permit)
    }

    /// Who the client is, as far as that can be known.
    pub(crate) fn client_ip(&self, address: PeerAddress, headers: &HeaderMap) -> Option<IpAddr> {
        match address.ip() {
            Some(ip) => Some(self.proxies.client_ip(ip, headers)),
            None => self.proxies.client_ip_over_unix(headers),
        }
    }

    /// Whether the other end is a proxy that may speak for others.
    pub(crate) fn trusts(&self, address: PeerAddress) -> bool {
        address.ip().map_or_else(|| self.proxies.trusts_unix(), |ip| self.proxies.trusts(ip))
    }
}

/// The headers of a 101 that are the handshake's (RFC 6455 §4.2.2), and those of a body, which it has not.
const HANDSHAKE: [HeaderName; 7] = [
    header::UPGRADE,
    header::CONNECTION,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];
