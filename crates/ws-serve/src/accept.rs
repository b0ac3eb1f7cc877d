//! The accept loop of one runtime: from a listener to sessions, and to the end of them all.
//!
//! Nothing that a client does ends the loop. Not its business: threads (`worker.rs`), and what
//! happens on an open connection (`session.rs`).

use std::{
    future::Future,
    io,
    net::{self, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, unconstrained},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    Error, Handler, Shutdown, SlowConsumer, Socket, Topics,
    conn::{HandshakeError, Intake, Parts, Upgrade},
    http::{Request, Response, StatusCode},
    hub::{Hub, OnLag},
    peer::Peer,
    session::Session,
};

/// Answers a request with plain HTTP instead of a WebSocket.
pub(crate) type OnRequest = dyn Fn(&Request<()>) -> Option<Response<Bytes>> + Send + Sync;

/// What all runtimes of a server share.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) conn: crate::conn::Server,
    pub(crate) on_request: Option<Arc<OnRequest>>,
    pub(crate) max_queue: usize,
    pub(crate) slow_consumer: SlowConsumer,
    pub(crate) on_lag: Option<Arc<OnLag>>,
    pub(crate) drain_timeout: Duration,
    pub(crate) topics: Topics,
    pub(crate) shutdown: Shutdown,
}

/// Serves a listener until the shutdown is complete.
pub(crate) async fn run<H: Handler>(
    listener: net::TcpListener,
    settings: Settings,
    handler: H,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let hub = Arc::new(Hub::new(&settings));
    let flusher = tokio::spawn({
        let hub = Arc::clone(&hub);
        unconstrained(async move { hub.flush_forever().await })
    });
    let end = End { hub: Arc::clone(&hub), flusher: flusher.abort_handle() };
    let tracker = TaskTracker::new();
    let settings = Arc::new(settings);

    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = settings.shutdown.started() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                pause = FIRST_PAUSE;
                let (settings, hub) = (Arc::clone(&settings), Arc::clone(&hub));
                tracker.spawn(connection(stream, address, settings, hub, handler.clone()));
            }
            // The client was gone before we looked.
            Err(error) if is_of_client(&error) => {}
            // Out of file descriptors or memory: it will pass, and trying harder would not help.
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    drop(listener);
    tracker.close();
    hub.close_all(&settings.shutdown.frame());
    if timeout(settings.drain_timeout, tracker.wait()).await.is_err() {
        tracing::warn!(connections = hub.len(), "ending connections that did not close in time");
        hub.abort_all();
        // A handler that waits for something else does not see the end of its connection; it ends
        // with the runtime.
        let _ = timeout(AFTER_ABORT, tracker.wait()).await;
    }
    drop(end);
    Ok(())
}

/// Ends what is left when serving ends, also when its future is dropped.
struct End {
    hub: Arc<Hub>,
    flusher: AbortHandle,
}

impl Drop for End {
    fn drop(&mut self) {
        self.flusher.abort();
        self.hub.abort_all();
    }
}

/// A connection's task. Its size is what an idle connection pays, so the opening handshake is boxed,
/// and this is no `async fn`, which would keep its arguments to the end.
fn connection<H: Handler>(
    stream: TcpStream,
    address: SocketAddr,
    settings: Arc<Settings>,
    hub: Arc<Hub>,
    handler: H,
) -> impl Future<Output = ()> + Send {
    let opening = Box::pin(async move {
        let ended = hub.ended.clone();
        let opened = tokio::select! {
            biased;
            () = ended.cancelled() => None,
            opened = open(stream, address, &settings, hub) => opened,
        };
        opened.map(|(intake, peer)| (intake, peer, settings))
    });
    async move {
        let session = match opening.await {
            Some((intake, peer, settings)) => start(intake, peer, &settings, handler),
            None => return,
        };
        session.await;
    }
}

/// Makes the session and, if the end came meanwhile, lets it know.
fn start<H: Handler>(
    intake: Box<Intake>,
    peer: Arc<Peer>,
    settings: &Settings,
    handler: H,
) -> Session<H> {
    let socket = Socket::new(intake, Arc::clone(&peer));
    let session = Session::new(Arc::clone(&peer), handler, socket);
    // The session is on the list now; an end that came before has not seen it.
    if settings.shutdown.is_started() {
        let _ = peer.close(settings.shutdown.frame());
    }
    if peer.hub.ended.is_cancelled() {
        peer.abort();
    }
    session
}

/// The opening handshake, or a page.
async fn open(
    mut stream: TcpStream,
    address: SocketAddr,
    settings: &Settings,
    hub: Arc<Hub>,
) -> Option<(Box<Intake>, Arc<Peer>)> {
    // Small messages must not wait for the acknowledgement of the one before. If this fails, the
    // connection is gone already.
    stream.set_nodelay(true).ok()?;
    let request = tokio::select! {
        biased;
        request = settings.conn.receive_request(&mut stream) => {
            request.map(|upgrade| upgrade.map(|_| ()))
        }
        () = settings.shutdown.started() => {
            let _ = settings.conn.refuse(&mut stream, &shutting_down()).await;
            return None;
        }
    };
    let opened = match request {
        // Boxed for itself: while requests are awaited, and there may be thousands, it is not needed.
        Ok(upgrade) => Box::pin(answer(upgrade.map(|()| stream), address, settings, hub)).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%address, %error, "no WebSocket");
            None
        }
    }
}

async fn answer(
    upgrade: Upgrade<TcpStream>,
    address: SocketAddr,
    settings: &Settings,
    hub: Arc<Hub>,
) -> Result<Option<(Box<Intake>, Arc<Peer>)>, Error> {
    if settings.shutdown.is_started() {
        return upgrade.reject(shutting_down()).await;
    }
    if let Some(page) = settings.on_request.as_ref().and_then(|page| page(upgrade.request())) {
        return upgrade.respond(page).await.map(|()| None);
    }
    let head = upgrade.head().clone();
    let Parts { intake, link, subprotocol, deflate } = upgrade.accept().await?.into_parts();
    let peer = Arc::new(Peer::new(link, address, &head, subprotocol, deflate, hub));
    Ok(Some((Box::new(intake), peer)))
}

fn shutting_down() -> HandshakeError {
    HandshakeError::reject(StatusCode::SERVICE_UNAVAILABLE, "Server is shutting down.\n")
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Chosen: short enough to go unnoticed, long enough not to spin.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Chosen, so that a server that ran out of descriptors is back within a second of having some.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Chosen: what a handler may take to notice that its connection is gone.
const AFTER_ABORT: Duration = Duration::from_secs(1);
