//! Workers: threads with a single-threaded runtime and listeners of their own.
//!
//! The system spreads new connections over the listeners (`SO_REUSEPORT`), and a connection stays with
//! its worker, so that workers share nothing but topics. Not its business: what a worker does.

use std::{future::Future, io, thread};

use tokio::{runtime::Builder, sync::oneshot, task::JoinSet};

use crate::listener::Listener;

/// Runs `work` on threads of their own, one for each list of listeners; ends with the first failure or with
/// the last worker.
pub(crate) async fn run<F, Fut>(listeners: Vec<Vec<Listener>>, work: F) -> io::Result<()>
where
    F: Fn(Vec<Listener>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>>,
{
    let mut workers = JoinSet::new();
    for (number, listeners) in listeners.into_iter().enumerate() {
        let work = work.clone();
        let (mut done, result) = oneshot::channel();
        thread::Builder::new().name(format!("ws-worker-{number}")).spawn(move || {
            let result = Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                runtime.block_on(async {
                    tokio::select! {
                        result = work(listeners) => result,
                        // Nobody waits for us any more: the server's future was dropped.
                        () = done.closed() => Ok(()),
                    }
                })
            });
            let _ = done.send(result);
        })?;
        workers.spawn(result);
    }
    while let Some(result) = workers.join_next().await {
        // A worker's panic is its own; without a result there is nothing more to say.
        let result = result.map_err(io::Error::other)?;
        result.unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))?;
    }
    Ok(())
}
