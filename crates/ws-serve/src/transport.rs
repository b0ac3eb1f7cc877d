//! [`Transport`]: the bytes to and from one client, over whatever they travel.
//!
//! Not its business: where it comes from (`acceptor.rs`), and the TLS handshake (`tls.rs`).

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
#[cfg(feature = "tls")]
use tokio_rustls::server::TlsStream;

#[cfg(feature = "tls")]
use crate::Tls;

/// A stream of bytes to and from a client.
///
/// A TLS stream that ends without a `close_notify` is an [`io::ErrorKind::UnexpectedEof`], because
/// somebody in between may have cut it.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    /// Boxed: the state of TLS is more than a kilobyte, which a plain connection must not pay for.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<TcpStream>>),
}

const _: () = assert!(size_of::<Transport>() <= size_of::<TcpStream>() + size_of::<usize>());

/// The same on whatever stream it is.
macro_rules! on_stream {
    ($transport:expr, $stream:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($stream) => $call,
            #[cfg(unix)]
            Transport::Unix($stream) => $call,
            #[cfg(feature = "tls")]
            Transport::Tls($stream) => $call,
        }
    };
}

impl Transport {
    /// Sends small messages at once instead of waiting for the acknowledgement of the one before,
    /// which only TCP does.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            #[cfg(unix)]
            Self::Unix(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref().0.set_nodelay(true),
        }
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Whether its end needs no words.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            #[cfg(unix)]
            Self::Unix(_) => true,
            #[cfg(feature = "tls")]
            Self::Tls(_) => false,
        }
    }

    /// Shakes hands by TLS if this is TCP. What stays on this machine stays as it is: the permissions
    /// of a Unix socket protect it.
    #[cfg(feature = "tls")]
    pub(crate) async fn secure(self, tls: &Tls) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => Ok(Self::Tls(Box::new(tls.accept(stream).await?))),
            #[cfg(unix)]
            Self::Unix(_) => Ok(self),
            Self::Tls(_) => Ok(self),
        }
    }
}

impl AsyncRead for Transport {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        on_stream!(self, stream => stream.is_write_vectored())
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    #[inline]
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{acceptor::Acceptor, listener::Listener};

    async fn tcp_pair() -> (TcpStream, Transport) {
        let listeners = Listener::bind("127.0.0.1:0").unwrap();
        let address = listeners[0].local_addr().unwrap().unwrap();
        let mut acceptor = Acceptor::new(listeners).unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        (client, acceptor.accept().await.unwrap().0)
    }

    /// More than any buffer on the way, in slices of all sizes, there and back again.
    async fn check_echo<S: AsyncRead + AsyncWrite + Unpin>(client: S, mut server: Transport) {
        assert!(server.is_write_vectored());
        let sent: Vec<u8> = (0..3 << 20).map(|index: u32| (index % 251) as u8).collect();
        let echo = async {
            let mut bytes = vec![0; sent.len()];
            server.read_exact(&mut bytes).await.unwrap();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (first, others) = rest.split_at(rest.len().min(10));
                let (second, third) = others.split_at(others.len().min(70_000));
                let slices = [first, &[], second, third].map(IoSlice::new);
                let written = server.write_vectored(&slices).await.unwrap();
                rest = &rest[written..];
            }
            server.flush().await.unwrap();
            server.shutdown().await.unwrap();
            server
        };
        let (mut reader, mut writer) = tokio::io::split(client);
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.flush().await.unwrap();
        };
        let read = async {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            received
        };
        let (_server, (), received) = tokio::join!(echo, write, read);
        assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
    }

    #[tokio::test]
    async fn bytes_travel_over_tcp() {
        let (client, server) = tcp_pair().await;
        server.set_nodelay().unwrap();
        check_echo(client, server).await;
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn bytes_travel_over_a_unix_socket() {
        let (client, server) = UnixStream::pair().unwrap();
        let server = Transport::Unix(server);
        server.set_nodelay().unwrap();
        check_echo(client, server).await;
    }

    #[cfg(feature = "tls")]
    mod tls {
        use tokio_rustls::client;

        use super::*;
        use crate::pki::{Identity, connector};

        async fn tls_pair() -> (client::TlsStream<TcpStream>, Transport) {
            let (client, server) = tcp_pair().await;
            let identity = Identity::new();
            let tls =
                Tls::from_pem(identity.certificate.as_bytes(), identity.key.as_bytes()).unwrap();
            let connector = connector(&[&identity], None, &["http/1.1"]);
            let name = "localhost".try_into().unwrap();
            let (client, server) =
                tokio::join!(connector.connect(name, client), server.secure(&tls));
            (client.unwrap(), server.unwrap())
        }

        #[tokio::test]
        async fn bytes_travel_over_tls() {
            let (client, server) = tls_pair().await;
            server.set_nodelay().unwrap();
            check_echo(client, server).await;
        }

        #[tokio::test]
        async fn a_clean_end_is_no_error() {
            let (mut client, mut server) = tls_pair().await;
            client.shutdown().await.unwrap();
            assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        }

        #[tokio::test]
        async fn an_end_without_close_notify_is_an_error() {
            let (mut client, mut server) = tls_pair().await;
            client.get_mut().0.shutdown().await.unwrap();
            let error = server.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }

        #[cfg(unix)]
        #[tokio::test]
        async fn a_unix_socket_stays_as_it_is() {
            let identity = Identity::new();
            let tls =
                Tls::from_pem(identity.certificate.as_bytes(), identity.key.as_bytes()).unwrap();
            let (_client, server) = UnixStream::pair().unwrap();
            let server = Transport::Unix(server).secure(&tls).await.unwrap();
            assert!(matches!(server, Transport::Unix(_)));
        }
    }
}
