//! Streams that behave badly on purpose, and a peer that speaks bytes.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use ws_conn::{Config, WebSocket, proto::bytes::BytesMut};

/// A stream that moves one byte at a time and is not ready every other time.
#[derive(Debug)]
pub(crate) struct Trickle<S> {
    pub(crate) inner: S,
    ready_to_read: bool,
    ready_to_write: bool,
}

impl<S> Trickle<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, ready_to_read: false, ready_to_write: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Trickle<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ready_to_read = !self.ready_to_read;
        if !self.ready_to_read {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        let result = Pin::new(&mut self.inner).poll_read(cx, &mut one);
        buffer.put_slice(one.filled());
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Trickle<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.ready_to_write = !self.ready_to_write;
        if !self.ready_to_write {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..1])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A stream whose writes answer what they are told to, and whose reads have nothing.
#[derive(Debug)]
pub(crate) struct Liar(pub(crate) fn(usize) -> io::Result<usize>);

impl AsyncRead for Liar {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Liar {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready((self.0)(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A server's end and a raw peer, the opening handshake behind them.
pub(crate) fn server_and_peer(config: &Config) -> (WebSocket<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(1 << 16);
    (WebSocket::server_on(ours, BytesMut::new(), config), theirs)
}

/// A server and a client that understand each other.
pub(crate) fn pair(config: &Config) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (ours, theirs) = duplex(4 << 10);
    let client = WebSocket::client_on(theirs, BytesMut::new(), config).expect("randomness");
    (WebSocket::server_on(ours, BytesMut::new(), config), client)
}

/// A client's frame with a masking key of zeros, which leaves the payload as it is.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0xFE);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Reads so many bytes.
pub(crate) async fn read(peer: &mut (impl AsyncRead + Unpin), len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    peer.read_exact(&mut bytes).await.expect("so many bytes");
    bytes
}

/// Writes and flushes.
pub(crate) async fn write(peer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    peer.write_all(bytes).await.expect("the other end is there");
}
