//! [`Acceptor`]: the listeners of one runtime, as one source of connections.
//!
//! Not its business: what to do when accepting fails (`accept.rs`), and where the listeners come from
//! (`listener.rs`).

#[cfg(unix)]
use std::sync::Arc;
use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
};

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

#[cfg(unix)]
use crate::socket_file::SocketFile;
use crate::{PeerAddress, listener::Listener, transport::Transport};

/// Accepts from several listeners by turns.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listeners: Vec<AsyncListener>,
    /// Who is asked first, so that a busy listener does not keep the others waiting.
    first: usize,
}

impl Acceptor {
    /// Puts the listeners on the current runtime.
    pub(crate) fn new(listeners: impl IntoIterator<Item = Listener>) -> io::Result<Self> {
        let listeners = listeners.into_iter().map(AsyncListener::new);
        Ok(Self { listeners: listeners.collect::<io::Result<_>>()?, first: 0 })
    }

    /// The next connection. May be dropped and called again: no connection is lost.
    pub(crate) async fn accept(&mut self) -> io::Result<(Transport, PeerAddress)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Transport, PeerAddress)>> {
        let count = self.listeners.len();
        for number in (self.first..count).chain(0..self.first) {
            if let Poll::Ready(accepted) = self.listeners[number].poll_accept(cx) {
                self.first = (number + 1) % count;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

/// A [`Listener`] on a runtime.
#[derive(Debug)]
enum AsyncListener {
    Tcp(TcpListener),
    /// The file goes before the socket; see [`SocketFile`].
    #[cfg(unix)]
    Unix(#[expect(dead_code, reason = "held to be dropped")] Option<Arc<SocketFile>>, UnixListener),
}

impl AsyncListener {
    fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Tcp(listener) | Listener::Given(listener) => {
                // A listener that was handed in may block, and with it the whole runtime.
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            #[cfg(unix)]
            Listener::Unix(file, listener) => {
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(file, UnixListener::from_std(listener)?))
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Transport, PeerAddress)>> {
        Poll::Ready(Ok(match self {
            Self::Tcp(listener) => {
                let (stream, address) = ready!(listener.poll_accept(cx))?;
                (Transport::Tcp(stream), address.into())
            }
            #[cfg(unix)]
            Self::Unix(_, listener) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                (Transport::Unix(stream), PeerAddress::Unix)
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::{net, time::Duration};

    use tokio::{net::TcpStream, time::timeout};

    use super::*;

    fn address(listener: &Listener) -> net::SocketAddr {
        listener.local_addr().unwrap().unwrap()
    }

    #[tokio::test]
    async fn clients_of_all_listeners_are_accepted_by_turns() {
        let mut listeners = Listener::bind("127.0.0.1:0").unwrap();
        listeners.extend(Listener::bind("127.0.0.1:0").unwrap());
        let (busy, calm) = (address(&listeners[0]), address(&listeners[1]));
        let mut acceptor = Acceptor::new(listeners).unwrap();

        let mut clients = Vec::new();
        for listener in [busy, busy, busy, calm] {
            clients.push(TcpStream::connect(listener).await.unwrap());
        }
        let mut order = Vec::new();
        for _ in &clients {
            let (Transport::Tcp(stream), peer) = acceptor.accept().await.unwrap() else { panic!() };
            assert!(
                clients.iter().any(|client| { client.local_addr().ok() == peer.socket_addr() })
            );
            order.push(stream.local_addr().unwrap());
        }
        let calm_at = order.iter().position(|&listener| listener == calm).unwrap();
        assert!(calm_at < 2, "{order:?}");
    }

    #[tokio::test]
    async fn a_listener_that_blocks_does_not_block_the_runtime() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut acceptor = Acceptor::new([listener.into()]).unwrap();
        timeout(Duration::ZERO, acceptor.accept()).await.unwrap_err();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_file_goes_with_the_last_of_its_acceptors() {
        let directory = crate::directory::Directory::new();
        let path = directory.path("socket");
        let listener = Listener::bind_unix(&path, None).unwrap();
        let mut lists = Listener::spread(vec![listener], 2).unwrap();
        let mut last = Acceptor::new(lists.pop().unwrap()).unwrap();
        drop(Acceptor::new(lists.pop().unwrap()).unwrap());

        let _client = tokio::net::UnixStream::connect(&path).await.unwrap();
        assert_eq!(last.accept().await.unwrap().1, PeerAddress::Unix);
        drop(last);
        assert!(!path.exists());
    }
}
