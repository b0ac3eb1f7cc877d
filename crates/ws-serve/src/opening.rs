//! The opening of one connection: PROXY header, TLS, request, hooks, route, answer (RFC 6455 §4.2).
//!
//! One deadline holds for all of it. Not its business: accepting, and what happens afterwards.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use crate::{
    Error, Page, PeerAddress, Permit, Refused, Socket,
    conn::{HandshakeError, Intake, Parts, Step, Upgrade, handshake::Accepted},
    destination::{Destination, Service},
    endpoint::Start,
    http::{Method, Response, StatusCode, header},
    hub::Hub,
    peer::{Identity, Peer},
    proxy_protocol::{self, Decoded},
    routes::{Found, Params},
    session::Session,
    settings::Settings,
    transport::Transport,
};

/// A connection that is open, and whose handler is to be called.
pub(crate) struct Opened {
    intake: Box<Intake>,
    peer: Arc<Peer>,
    start: Start,
    permit: Permit,
    settings: Arc<Settings>,
}

/// Opens a connection, or answers with plain HTTP, which ends it.
pub(crate) async fn open(
    transport: Transport,
    address: PeerAddress,
    settings: Arc<Settings>,
    hub: Arc<Hub>,
    permit: Permit,
) -> Option<Opened> {
    let ended = hub.ended.clone();
    // Also if a hook panics.
    let mut count = NotOpened(Some(Arc::clone(&hub)));
    let opened = tokio::select! {
        biased;
        () = ended.cancelled() => return None,
        opened = try_open(transport, address, &settings, hub, permit) => opened,
    };
    match opened {
        Ok(Some((intake, peer, start, permit))) => {
            count.0 = None;
            Some(Opened { intake, peer, start, permit, settings })
        }
        Ok(None) => None,
        Err(error) => {
            tracing::debug!(%address, %error, "no WebSocket");
            None
        }
    }
}

/// Counts a connection that becomes no WebSocket, when it is dropped.
struct NotOpened(Option<Arc<Hub>>);

impl Drop for NotOpened {
    fn drop(&mut self) {
        if let Some(hub) = &self.0 {
            hub.counters.not_opened.add(1);
        }
    }
}

impl Opened {
    /// Makes the session and, if the end came meanwhile, lets it know.
    pub(crate) fn start(self) -> Session {
        let Self { intake, peer, start, permit, settings } = self;
        let socket = Socket::new(intake, Arc::clone(&peer));
        let session = Session::new(Arc::clone(&peer), start, socket, permit);
        // The session is on the list now; an end that came before has not seen it.
        if settings.shutdown.is_started() {
            let _ = peer.close(settings.shutdown.frame());
        }
        if peer.hub.ended.is_cancelled() {
            peer.abort();
        }
        session
    }
}

/// Tells a client that there is no place for it, before it has said anything.
pub(crate) async fn turn_away(mut transport: Transport, settings: &Settings, refused: Refused) {
    // Over TLS that would take a handshake, which is what there is no place for.
    if !(settings.is_secure() && transport.is_tcp()) {
        let _ = settings.defaults.conn.refuse(&mut transport, &refusal(refused)).await;
    }
}

type Open = (Box<Intake>, Arc<Peer>, Start, Permit);

async fn try_open(
    mut transport: Transport,
    mut address: PeerAddress,
    settings: &Settings,
    hub: Arc<Hub>,
    permit: Permit,
) -> Result<Option<Open>, Error> {
    let started = Instant::now();
    let deadline = started + settings.handshake_timeout;
    let over = hub.over.clone();
    // Small messages must not wait for the acknowledgement of the one before.
    transport.set_nodelay().map_err(Error::Connect)?;
    let prelude = async {
        if settings.proxy_protocol {
            address = read_proxy_header(&mut transport, address, settings).await?;
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &settings.tls {
            transport = transport.secure(tls).await?;
        }
        Ok((transport, address))
    };
    let (mut transport, address) = tokio::select! {
        biased;
        done = timeout_at(deadline, Box::pin(prelude)) => match done {
            Ok(result) => result.map_err(Error::Connect)?,
            Err(_) => return Err(Error::TimedOut(Step::Handshake)),
        },
        // It has said nothing that could be answered.
        () = over.cancelled() => return Ok(None),
    };
    let server = &settings.defaults.conn;
    let request = tokio::select! {
        biased;
        request = server.receive_request_by(&mut transport, deadline) => {
            request.map(|upgrade| upgrade.map(|_| ()))
        }
        () = over.cancelled() => {
            return server.refuse(&mut transport, &shutting_down()).await.map(|()| None);
        }
    };
    let upgrade = request?.map(|()| transport);
    // Boxed for itself: while requests are awaited, and there may be thousands, it is not needed.
    Box::pin(answer(upgrade, address, settings, hub, permit, (started, deadline))).await
}

async fn answer(
    mut upgrade: Upgrade<Transport>,
    address: PeerAddress,
    settings: &Settings,
    hub: Arc<Hub>,
    mut permit: Permit,
    (started, deadline): (Instant, Instant),
) -> Result<Option<Open>, Error> {
    let path = upgrade.request().uri().path();
    if let Some(answer) = settings.probe(path) {
        return upgrade.respond(answer).await.map(|()| None);
    }
    let decided = if settings.shutdown.is_started() {
        Err(Answer::Refusal(shutting_down()))
    } else {
        decide(&mut upgrade, address, settings, &mut permit, deadline).await
    };
    let answer = match decided {
        Ok((accepted, start, destination)) => {
            let deflate = accepted.negotiated.deflate;
            let head = upgrade.head().clone();
            let upgrade = upgrade.with_server(&destination.conn);
            let parts = upgrade.open(accepted).await?.into_parts();
            #[cfg(not(feature = "metrics"))]
            let _ = started;
            #[cfg(feature = "metrics")]
            crate::metrics::record_handshake(started.elapsed());
            let Parts { intake, link, subprotocol, .. } = parts;
            let identity = Identity { address, head: head[..].into(), subprotocol, deflate };
            let peer = Arc::new(Peer::new(link, identity, destination, hub));
            return Ok(Some((Box::new(intake), peer, start, permit)));
        }
        Err(answer) => answer,
    };
    let (mut response, error) = match answer {
        Answer::Page(response) => (response, None),
        Answer::Refusal(error) => (error.response(), Some(error)),
    };
    settings.edit(upgrade.request(), &mut response);
    upgrade.respond(response).await?;
    error.map_or(Ok(None), |error| Err(error.into()))
}

/// What is answered instead of a WebSocket.
enum Answer {
    Page(Response<Bytes>),
    Refusal(HandshakeError),
}

impl From<HandshakeError> for Answer {
    fn from(error: HandshakeError) -> Self {
        Self::Refusal(error)
    }
}

/// Whether the request becomes a WebSocket, and whose.
async fn decide(
    upgrade: &mut Upgrade<Transport>,
    address: PeerAddress,
    settings: &Settings,
    permit: &mut Permit,
    deadline: Instant,
) -> Result<(Accepted, Start, Arc<Destination>), Answer> {
    if let Some(ip) = settings.client_ip(address, upgrade.request().headers()) {
        permit.identify(ip).map_err(refusal)?;
    }
    match timeout_at(deadline, settings.ask_hooks(upgrade.request_mut())).await {
        Ok(None) => {}
        Ok(Some(answer)) => return Err(Answer::Page(answer)),
        Err(_) => return Err(too_slow().into()),
    }
    let uri = upgrade.request().uri();
    let (destination, params) = match settings.routes.find(uri.path()) {
        Found::Route(destination, params) => (destination, params),
        Found::Redirect(path) if settings.fallback.is_none() => {
            return Err(Answer::Page(redirect(path, uri.query())));
        }
        Found::Redirect(_) | Found::Nothing => match &settings.fallback {
            Some(destination) => (destination, Params::default()),
            None => return Err(not_found().into()),
        },
    };
    let endpoint = match &destination.service {
        Service::Page(make) => {
            return Err(Answer::Page(match *upgrade.request().method() {
                Method::GET | Method::HEAD => make(upgrade.request()),
                _ => page_only(),
            }));
        }
        Service::Endpoint(endpoint) => endpoint,
    };
    let mut accepted = upgrade.judge_by(&destination.conn)?;
    if let Some(count) = &destination.count {
        permit.enter_route(Arc::clone(count)).map_err(refusal)?;
    }
    let extensions = upgrade.request().extensions();
    let start = endpoint
        .prepare(&params, extensions, &settings.state)
        .map_err(|refused| HandshakeError::reject(refused.status, refused.text))?;
    settings.edit_accepted(upgrade.request(), &mut accepted);
    Ok((accepted, start, Arc::clone(destination)))
}

/// Reads the header that a proxy puts before everything else, byte by byte where its length is not
/// known: what follows is not ours to take.
async fn read_proxy_header(
    transport: &mut Transport,
    address: PeerAddress,
    settings: &Settings,
) -> std::io::Result<PeerAddress> {
    let invalid = |why: String| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    if !settings.trusts(address) {
        return Err(invalid(format!("{address} may not send a PROXY header")));
    }
    // No header is shorter, of neither version.
    let mut header = vec![0; SHORTEST_PROXY_HEADER];
    transport.read_exact(&mut header).await?;
    loop {
        let decoded =
            proxy_protocol::decode(&header).map_err(|error| invalid(error.to_string()))?;
        if let Decoded::Done { source, .. } = decoded {
            return Ok(source.map_or(address, PeerAddress::from));
        }
        let byte = transport.read_u8().await?;
        header.push(byte);
    }
}

fn redirect(mut path: String, query: Option<&str>) -> Response<Bytes> {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    let mut response = Response::new(Bytes::new());
    match header::HeaderValue::try_from(path) {
        Ok(location) => {
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(header::LOCATION, location);
        }
        Err(_) => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}

/// RFC 9110 §15.5.6: who asks for something else than a page is told what would do.
fn page_only() -> Response<Bytes> {
    let page = Page::text("This is a page, which needs GET or HEAD.\n");
    let mut response = Response::from(page.status(StatusCode::METHOD_NOT_ALLOWED));
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    response
}

fn refusal(refused: Refused) -> HandshakeError {
    let error = HandshakeError::reject(refused.status(), refused.text());
    match error {
        HandshakeError::Rejecting(mut response) => {
            let seconds = refused.retry_after().into();
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
            HandshakeError::Rejecting(response)
        }
        error => error,
    }
}

fn not_found() -> HandshakeError {
    HandshakeError::reject(StatusCode::NOT_FOUND, "Not found.\n")
}

fn shutting_down() -> HandshakeError {
    HandshakeError::reject(StatusCode::SERVICE_UNAVAILABLE, "Server is shutting down.\n")
}

/// The client did nothing wrong.
fn too_slow() -> HandshakeError {
    HandshakeError::reject(StatusCode::SERVICE_UNAVAILABLE, "The server took too long.\n")
}

/// `PROXY UNKNOWN` with its line end; version 2 has sixteen.
const SHORTEST_PROXY_HEADER: usize = 15;
