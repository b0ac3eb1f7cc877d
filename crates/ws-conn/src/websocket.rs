//! [`WebSocket`]: an open connection over a stream, used from one place.
//!
//! Not its business: how it was opened (`client.rs`, `server.rs`), and use from several tasks (`split.rs`).

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Chunk, CloseCode, CloseFrame, Closed, Config, Error, Intake, Link, Message, Outgoing, Pong,
    PreparedMessage, Receiver, Sender, Text,
    handshake::Negotiated,
    proto::{AgreedDeflate, ChaChaKeys, Event, Inbound, MaskingKeys, Outbound, Role},
    split,
};

/// An open WebSocket connection.
///
/// Receiving is what keeps it alive: pings are answered, keepalive runs and the closing handshake
/// proceeds while [`receive`](Self::receive) is polled. All methods are cancel-safe.
///
/// It is a [`Stream`] of messages and a [`Sink`] for them, too, for those who like combinators.
#[derive(Debug)]
#[doc(alias = "Base")]
#[doc(alias = "WebSocketStream")]
#[doc(alias = "WebSocketClientProtocol")]
#[doc(alias = "WebSocketServerProtocol")]
pub struct WebSocket<S> {
    intake: Intake,
    link: Link<S>,
    subprotocol: Option<Text>,
    deflate: Option<AgreedDeflate>,
}

/// The two halves of the machinery and what was agreed on, for building servers of your own kind.
#[derive(Debug)]
pub struct Parts<S> {
    /// The receiving half.
    pub intake: Intake,
    /// The sending half, with the transport.
    pub link: Link<S>,
    /// The subprotocol that was negotiated, if any.
    pub subprotocol: Option<Text>,
    /// How messages are compressed, if at all.
    pub deflate: Option<AgreedDeflate>,
}

impl<S> WebSocket<S> {
    /// A server's endpoint on a stream where somebody else did the opening handshake, such as a web
    /// framework. `early` are the bytes that were read beyond it.
    #[must_use]
    pub fn server_on(stream: S, early: BytesMut, config: &Config) -> Self {
        let (keepalive, now) = Link::<S>::keepalive_from(config);
        Self::new(stream, early, Role::Server, Outbound::server(keepalive, now), config)
    }

    /// A client's endpoint on a stream where somebody else did the opening handshake.
    ///
    /// # Errors
    /// [`Error::Connect`] if the system has no randomness for masking keys.
    pub fn client_on(stream: S, early: BytesMut, config: &Config) -> Result<Self, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| Error::Connect(error.into()))?;
        Ok(Self::client_with_keys(stream, early, config, ChaChaKeys::from_seed(seed)))
    }

    /// As [`client_on`](Self::client_on), with masking keys from a source of your own.
    #[must_use]
    pub fn client_with_keys(
        stream: S,
        early: BytesMut,
        config: &Config,
        keys: impl MaskingKeys + 'static,
    ) -> Self {
        let (keepalive, now) = Link::<S>::keepalive_from(config);
        let outbound = Outbound::client(keepalive, Box::new(keys), now);
        Self::new(stream, early, Role::Client, outbound, config)
    }

    fn new(stream: S, early: BytesMut, role: Role, outbound: Outbound, config: &Config) -> Self {
        let inbound = Inbound::new(role, config.proto.limits());
        let link = Link::new(stream, outbound, config);
        Self { intake: Intake::new(inbound, early), link, subprotocol: None, deflate: None }
    }

    pub(crate) fn with_negotiated(mut self, negotiated: Negotiated) -> Self {
        self.subprotocol = negotiated.subprotocol;
        self.with_deflate(negotiated.deflate)
    }

    /// Compresses messages, as was agreed on in an opening handshake that somebody else did.
    #[must_use]
    pub fn with_deflate(mut self, agreed: Option<AgreedDeflate>) -> Self {
        self.intake = self.intake.with_deflate(agreed.as_ref());
        self.link = self.link.with_deflate(agreed.as_ref());
        self.deflate = agreed;
        self
    }

    /// How messages are compressed, if at all.
    #[must_use]
    #[doc(alias = "extensions")]
    pub fn deflate(&self) -> Option<&AgreedDeflate> {
        self.deflate.as_ref()
    }

    /// The subprotocol that was negotiated, if any.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// How the connection ended, or what is known of it so far.
    #[must_use]
    #[doc(alias = "close_reason")]
    #[doc(alias = "close_code")]
    pub fn closed(&self) -> Closed {
        self.link.closed()
    }

    /// Whether messages can be sent.
    #[must_use]
    #[doc(alias = "connected")]
    pub fn is_open(&self) -> bool {
        self.link.can_send()
    }

    /// The stream underneath, to look at addresses and the like.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        self.link.get_ref().expect("only a server's session drops its transport first")
    }

    /// The two halves of the machinery, for building servers of your own kind.
    #[must_use]
    pub fn into_parts(self) -> Parts<S> {
        let Self { intake, link, subprotocol, deflate } = self;
        Parts { intake, link, subprotocol, deflate }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Waits for the next message. `Ok(None)` means that the connection was closed cleanly: the
    /// closing handshake is complete, with a code that does not complain.
    ///
    /// Flushes what is queued before it waits.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection ended in another way. It is returned again on further calls.
    #[doc(alias = "recv")]
    #[doc(alias = "next")]
    pub async fn receive(&mut self) -> Result<Option<Message>, Error> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// As [`receive`](Self::receive), for use in hand-written futures.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        self.intake.set_streaming(false);
        if let Some(message) = self.intake.next_message() {
            return Poll::Ready(Ok(Some(message)));
        }
        loop {
            match ready!(self.poll_event(cx)) {
                Event::Message(message) => return Poll::Ready(Ok(Some(message))),
                Event::Closed(_) => return Poll::Ready(self.link.verdict().map(|()| None)),
                // The rest of a message that was begun in chunks is of no use to who asks for whole ones.
                _ => {}
            }
        }
    }

    /// Waits for the next piece of a message, for messages that should not be in memory whole.
    /// Call it until a piece is the [last](Chunk::last). The size limit of messages does not apply,
    /// that of frames does.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    #[doc(alias = "recv_streaming")]
    pub async fn receive_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        self.intake.set_streaming(true);
        loop {
            match poll_fn(|cx| self.poll_event(cx)).await {
                Event::Chunk(chunk) => return Ok(Some(chunk)),
                // It had begun to come before chunks were asked for.
                Event::Message(data) => return Ok(Some(Chunk { data, last: true })),
                Event::Closed(_) => return self.link.verdict().map(|()| None),
                _ => {}
            }
        }
    }

    /// Sends a message: waits until it was handed to the system.
    ///
    /// To make one write of many messages, [`feed`](Self::feed) them and [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection is closing or gone, [`Error::Send`] in the middle of a
    /// message that is sent in chunks.
    pub async fn send(&mut self, message: impl Into<Outgoing>) -> Result<(), Error> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Queues a message; waits only while more than [`Config::write_limit`] is queued. It leaves
    /// with the next `flush`, `send`, or `receive` that has to wait.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn feed(&mut self, message: impl Into<Outgoing>) -> Result<(), Error> {
        self.ready().await;
        let result = self.link.send(message);
        self.sent(result)
    }

    /// Sends a message that was framed before.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_prepared(&mut self, message: &PreparedMessage) -> Result<(), Error> {
        self.ready().await;
        let result = self.link.send_prepared(message);
        self.sent(result)?;
        self.flush().await
    }

    /// Sends a piece of a message; the first one begins it, the [last](Chunk::last) ends it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_chunk(&mut self, data: impl Into<Message>, last: bool) -> Result<(), Error> {
        self.ready().await;
        let result = self.link.send_chunk(Chunk { data: data.into(), last });
        self.sent(result)?;
        self.flush().await
    }

    /// Waits until everything queued was handed to the system.
    ///
    /// # Errors
    /// [`Error::Closed`] if the transport failed.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Sends a Ping. The answer is [awaited](Pong) separately, while somebody receives:
    ///
    /// ```
    /// # async fn example(ws: &mut ws_conn::WebSocket<tokio::net::TcpStream>) -> Result<(), ws_conn::Error> {
    /// let pong = ws.ping().await?;
    /// let latency = tokio::spawn(pong);
    /// while let Some(message) = ws.receive().await? { /* … */ }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection is closing or gone.
    pub async fn ping(&mut self) -> Result<Pong, Error> {
        self.ready().await;
        let result = self.link.ping();
        let pong = self.sent(result)?;
        self.flush().await?;
        Ok(pong)
    }

    /// Closes the connection: sends a Close frame and waits for the peer's and for the end of the
    /// transport, at most for [`Config::close_timeout`]. Messages that still come are discarded;
    /// who wants them calls [`start_close`](Self::start_close) and goes on receiving.
    ///
    /// Answers with how it ended. Closing twice does no harm.
    pub async fn close(&mut self, code: CloseCode, reason: impl Into<Text>) -> Closed {
        self.start_close(code, reason);
        loop {
            if let Event::Closed(closed) = poll_fn(|cx| self.poll_event(cx)).await {
                return closed;
            }
        }
    }

    /// Queues a Close frame behind what was sent before; nothing more can be sent. Does nothing if
    /// the connection is closing already. [`receive`](Self::receive) then completes the closing handshake.
    pub fn start_close(&mut self, code: CloseCode, reason: impl Into<Text>) {
        let _ = self.link.close(CloseFrame::new(code, reason));
    }

    /// A half that receives and a half that sends, for use from different tasks. The sending half
    /// can be cloned.
    #[must_use]
    pub fn split(self) -> (Sender<S>, Receiver<S>) {
        split::split(self.intake, self.link)
    }

    async fn ready(&mut self) {
        poll_fn(|cx| self.link.poll_ready(cx)).await;
    }

    /// Turns "cannot send, closing" into what is known of the end.
    fn sent<T>(&mut self, result: Result<T, crate::proto::SendError>) -> Result<T, Error> {
        result.map_err(|error| self.link.explain(error))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.link.poll_flush(cx));
        Poll::Ready(self.link.check_sent())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            // A peer that never stops sending does not stop the clock.
            let _ = self.link.poll_close_timeout(cx);
            if let Poll::Ready(event) = self.intake.poll_event(cx, &mut self.link) {
                return Poll::Ready(event);
            }
            let changed = self.link.poll_timers(cx);
            let _ = self.link.poll_flush(cx);
            if !changed && !self.link.is_dead() {
                self.link.release();
                return Poll::Pending;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for WebSocket<S> {
    type Item = Result<Message, Error>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, Error>>> {
        self.poll_receive(cx).map(Result::transpose)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for WebSocket<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.link.poll_ready(cx).map(Ok)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        let result = self.link.send(message);
        self.sent(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Self::poll_flush(&mut self, cx)
    }

    /// Completes the closing handshake with 1000.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.start_close(CloseCode::NORMAL, "");
        loop {
            if let Event::Closed(_) = ready!(self.poll_event(cx)) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
