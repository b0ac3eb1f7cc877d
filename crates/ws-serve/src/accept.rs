//! The accept loop of one runtime: from listeners to sessions, and to the end of them all.
//!
//! Nothing that a client does ends the loop. Not its business: what happens between accepting and the
//! open connection (`opening.rs`), threads (`worker.rs`), and what happens then (`session.rs`).

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    task::{AbortHandle, unconstrained},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    PeerAddress, Permit, acceptor::Acceptor, hub::Hub, lifetime::look_after, listener::Listener,
    opening, settings::Settings, transport::Transport,
};

/// Serves listeners until the shutdown is complete.
pub(crate) async fn run(listeners: Vec<Listener>, settings: Arc<Settings>) -> io::Result<()> {
    let acceptor = Acceptor::new(listeners)?;
    let hub = Arc::new(Hub::new(&settings));
    let flusher = tokio::spawn({
        let hub = Arc::clone(&hub);
        unconstrained(async move { hub.flush_forever().await })
    });
    settings.monitor.watch(&hub);
    let clock = tokio::spawn({
        let (hub, shortest) = (Arc::clone(&hub), settings.shortest_lifetime());
        async move { look_after(&hub, shortest).await }
    });
    let tasks = [flusher.abort_handle(), clock.abort_handle()];
    let end = End { hub: Arc::clone(&hub), tasks };
    let tracker = TaskTracker::new();

    accept_until_shutdown(acceptor, &settings, &hub, &tracker).await;
    hub.over.cancel();
    tracker.close();
    let deadline = Instant::now() + settings.drain_timeout.min(FOR_EVER);
    let drained = async {
        close_all(&settings, &hub).await;
        tracker.wait().await;
    };
    let drained = tokio::select! {
        biased;
        drained = timeout_at(deadline, drained) => drained.is_ok(),
        () = settings.shutdown.hurried() => false,
    };
    if !drained {
        tracing::warn!(connections = hub.len(), "ending connections that did not close in time");
        hub.abort_all();
        // An abort wakes the sessions, which drop their handlers; one that blocks its thread ends with
        // the runtime.
        let _ = timeout_at(Instant::now() + AFTER_ABORT, tracker.wait()).await;
    }
    drop(end);
    Ok(())
}

/// Accepts until there is no more to accept. During the grace period of a shutdown that is who asks
/// for health, and who has not heard yet.
async fn accept_until_shutdown(
    mut acceptor: Acceptor,
    settings: &Arc<Settings>,
    hub: &Arc<Hub>,
    tracker: &TaskTracker,
) {
    let over = async {
        settings.shutdown.started().await;
        tokio::select! {
            () = sleep(settings.grace) => {}
            () = settings.shutdown.hurried() => {}
        }
    };
    tokio::pin!(over);
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut over => return,
            accepted = acceptor.accept() => accepted,
        };
        match accepted {
            Ok((transport, address)) => {
                pause = FIRST_PAUSE;
                let (settings, hub) = (Arc::clone(settings), Arc::clone(hub));
                match settings.admit(address) {
                    Ok(permit) => {
                        tracker.spawn(connection(transport, address, settings, hub, permit));
                    }
                    Err(refused) => {
                        tracing::debug!(%address, %refused, "connection refused");
                        // A flood of those is not worth a task each.
                        if let Ok(place) = Arc::clone(&hub.refusals).try_acquire_owned() {
                            tracker.spawn(async move {
                                opening::turn_away(transport, &settings, refused).await;
                                drop(place);
                            });
                        }
                    }
                }
            }
            // The client was gone before we looked.
            Err(error) if is_of_client(&error) => {}
            // Out of file descriptors or memory: it will pass, and trying harder would not help.
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::select! {
                    () = &mut over => return,
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Starts the closing handshakes, some at a time, so that neither we nor those to whom the clients go
/// next are run over.
async fn close_all(settings: &Settings, hub: &Hub) {
    let frame = settings.shutdown.frame();
    // What was published before comes before.
    hub.flush_all();
    let peers = hub.peers();
    // All of them in half of the time at the latest, so that the last ones have the other half.
    let half = settings.drain_timeout.min(FOR_EVER) / 2;
    let (start, mut tick) = (Instant::now(), 0);
    for (number, peer) in peers.iter().enumerate() {
        let due = settings.pace.delay(number, peers.len(), half);
        let due = (due.as_nanos() / PACE_TICK.as_nanos()) as u32;
        if due > tick {
            tick = due;
            sleep_until(start + PACE_TICK * tick).await;
        }
        let _ = peer.close(frame.clone());
    }
}

/// Ends what is left when serving ends, also when its future is dropped.
struct End {
    hub: Arc<Hub>,
    tasks: [AbortHandle; 2],
}

impl Drop for End {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.hub.abort_all();
    }
}

/// A connection's task. Its size is what an idle connection pays, so the opening is boxed, and this is
/// no `async fn`, which would keep its arguments to the end.
fn connection(
    transport: Transport,
    address: PeerAddress,
    settings: Arc<Settings>,
    hub: Arc<Hub>,
    permit: Permit,
) -> impl Future<Output = ()> + Send {
    let opening = Box::pin(opening::open(transport, address, settings, hub, permit));
    async move {
        let session = match opening.await {
            Some(opened) => opened.start(),
            None => return,
        };
        session.await;
    }
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
/// Chosen: a batch is served in less.
const PACE_TICK: Duration = Duration::from_millis(100);
/// What an `Instant` can be added to.
const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
