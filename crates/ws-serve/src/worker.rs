//! Workers: threads with a single-threaded runtime and a listener of their own.
//!
//! The system spreads new connections over the listeners (`SO_REUSEPORT`), and a connection stays with
//! its worker, so that workers share nothing but topics. Not its business: what a worker does.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    thread,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{runtime::Builder, sync::oneshot, task::JoinSet};

/// Runs `work` on threads of their own, one for each listener; ends with the first failure or with
/// the last worker.
pub(crate) async fn run<F, Fut>(listeners: Vec<TcpListener>, work: F) -> io::Result<()>
where
    F: Fn(TcpListener) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>>,
{
    let mut workers = JoinSet::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let work = work.clone();
        let (mut done, result) = oneshot::channel();
        thread::Builder::new().name(format!("ws-worker-{number}")).spawn(move || {
            let result = Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                runtime.block_on(async {
                    tokio::select! {
                        result = work(listener) => result,
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

/// A listener that has its address for itself.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// So many listeners on the address of one. Only now is it shared (`SO_REUSEPORT`), so that another
/// server which was there before would have been noticed.
#[cfg(unix)]
pub(crate) fn share(listener: TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    let address = listener.local_addr()?;
    if count > 1 {
        socket2::SockRef::from(&listener).set_reuse_port(true)?;
    }
    let mut listeners = vec![listener];
    for _ in 1..count {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

/// So many handles of one listener, where the system cannot spread connections over several.
#[cfg(not(unix))]
pub(crate) fn share(listener: TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = vec![listener];
    for _ in 1..count {
        listeners.push(listeners[0].try_clone()?);
    }
    Ok(listeners)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former server that linger in TIME_WAIT must not keep a new one from starting.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connections that may wait to be accepted; the system cuts it to its own limit (4096 on Linux).
const BACKLOG: i32 = 4096;
