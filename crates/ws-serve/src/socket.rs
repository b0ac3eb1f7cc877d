//! [`Socket`]: a connection as its handler sees it.
//!
//! Not its business: the task around the handler, which is `session.rs`.

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker, ready},
};

use crate::{
    Chunk, CloseCode, CloseFrame, Closed, Counts, Error, Message, Outgoing, PeerAddress, Pong,
    PreparedMessage, Sender, Text, Topic,
    conn::{
        Access, Intake, Link, Received,
        handshake::{http::Request, parse_request},
        proto::{AgreedDeflate, Event, Incoming, SendError},
    },
    meter::Meter,
    peer::Peer,
    transport::Transport,
};
use bytes::Bytes;

/// An open connection, in the hands of its handler.
///
/// All methods are cancel-safe: a dropped `receive` loses no message, a dropped `send` has accepted
/// its message whole or not at all.
#[derive(Debug)]
#[doc(alias = "ServerConnection")]
#[doc(alias = "WebSocketServerProtocol")]
pub struct Socket {
    /// Given back to the session when the socket is dropped. Boxed, because a handler's future holds
    /// its socket twice: as an argument and as a variable.
    intake: Option<Box<Intake>>,
    peer: Arc<Peer>,
    /// Made when the first message has come.
    meter: Option<Box<Meter>>,
}

impl Socket {
    pub(crate) fn new(intake: Box<Intake>, peer: Arc<Peer>) -> Self {
        Self { intake: Some(intake), peer, meter: None }
    }

    /// Waits for the next message. `Ok(None)` means that the connection was closed cleanly.
    ///
    /// # Errors
    /// [`Error::Closed`] if it ended in another way; again on further calls.
    #[doc(alias = "recv")]
    pub fn receive(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        // Not an `async fn`, which would move each message once more.
        let Self { intake, peer, meter } = self;
        let intake = intake.as_mut().expect("taken only by drop");
        let mut waiting = Receiving { peer, meter };
        poll_fn(move |cx| {
            intake.set_streaming(false);
            if let Some(message) = intake.next_message() {
                return Poll::Ready(Ok(Some(message)));
            }
            loop {
                match ready!(waiting.poll_event(cx, intake)) {
                    Event::Message(message) => return Poll::Ready(Ok(Some(message))),
                    Event::Closing(_) | Event::Closed(_) => {
                        return Poll::Ready(waiting.verdict().map(|()| None));
                    }
                    _ => {}
                }
            }
        })
    }

    /// Waits for the next piece of a message, for messages that should not be in memory whole; see
    /// [`WebSocket::receive_chunk`](crate::conn::WebSocket::receive_chunk).
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_chunk(&mut self) -> impl Future<Output = Result<Option<Chunk>, Error>> {
        let Self { intake, peer, meter } = self;
        let intake = intake.as_mut().expect("taken only by drop");
        let mut waiting = Receiving { peer, meter };
        poll_fn(move |cx| {
            intake.set_streaming(true);
            loop {
                match ready!(waiting.poll_event(cx, intake)) {
                    Event::Chunk(chunk) => return Poll::Ready(Ok(Some(chunk))),
                    Event::Message(data) => {
                        return Poll::Ready(Ok(Some(Chunk { data, last: true })));
                    }
                    Event::Closing(_) | Event::Closed(_) => {
                        return Poll::Ready(waiting.verdict().map(|()| None));
                    }
                    _ => {}
                }
            }
        })
    }

    /// Sends a message. It is on its way when the handler next waits for anything; this waits itself
    /// only while the client is behind with more than [`Config::write_limit`](crate::Config::write_limit).
    ///
    /// In the handler's own task the message is accepted when this is called, if there is room; the
    /// future then has nothing left to do.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection is closing or gone, [`Error::Send`] in the middle of a
    /// message that is sent in chunks.
    pub fn send(&self, message: impl Into<Outgoing>) -> impl Future<Output = Result<(), Error>> {
        // Not an `async fn`, and not only when polled: a message that was received a moment ago is
        // encoded where it lies, where each move of it would wait for the one before (measured: 1.5
        // percent of an echo of 125 bytes), and no handler's future has to have room for it.
        let mut sending = self.peer.send(message.into());
        poll_fn(move |cx| {
            let sent = self.peer.poll_send(cx, &mut sending);
            sent.map_err(|error| self.explain(error))
        })
    }

    /// Sends a piece of a message; the first one begins it, the `last` ends it. Until then
    /// messages of topics wait for its end, and [`broadcast`](crate::broadcast()) and
    /// [`Sender::try_send`] pass this connection by.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_chunk(&self, data: impl Into<Message>, last: bool) -> Result<(), Error> {
        let mut chunk = Some(Chunk { data: data.into(), last });
        let sent = poll_fn(|cx| {
            self.peer.with(|outbox| {
                outbox.uncork(self.peer.id);
                if outbox.poll_room(cx).is_pending() {
                    return Poll::Pending;
                }
                let result = chunk.take().map_or(Ok(()), |chunk| outbox.link.send_chunk(chunk));
                self.peer.hub.counters.messages_sent.add(u64::from(last && result.is_ok()));
                outbox.flush();
                Poll::Ready(result)
            })
        });
        sent.await.map_err(|error| self.explain(error))
    }

    /// Sends a Ping; the answer resolves while the handler receives.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection is closing or gone.
    pub fn ping(&self) -> Result<Pong, Error> {
        self.peer
            .with(|outbox| {
                let pong = outbox.link.ping();
                outbox.flush();
                pong
            })
            .map_err(|error| self.explain(error))
    }

    /// Starts the closing handshake, behind what was sent before. Messages that the client sent
    /// before it saw this may still be received. Does nothing if the connection is closing already.
    pub fn close(&self, code: CloseCode, reason: impl Into<Text>) {
        let _ = self.peer.close(CloseFrame::new(code, reason));
    }

    /// How the connection ended, or what is known of it so far.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.peer.with(|outbox| outbox.link.closed())
    }

    /// A handle for sending to this connection from anywhere.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::new(Arc::clone(&self.peer))
    }

    /// A number that no other connection of this process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.peer.id
    }

    /// Where the other end of the transport is; with the PROXY protocol, what the proxy says. Behind a
    /// proxy of another kind see [`client_ip`](Self::client_ip).
    #[must_use]
    #[doc(alias = "remote_address")]
    pub fn peer_addr(&self) -> PeerAddress {
        self.peer.address
    }

    /// The client's IP address, as far as [trusted proxies](crate::Server::trusted_proxies) tell it;
    /// `None` on a Unix socket whose other end says nothing. Found out anew on each call.
    #[must_use]
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.peer.hub.settings().client_ip(self.peer.address, self.request().headers())
    }

    /// The subprotocol that was negotiated, if any.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.peer.subprotocol.as_deref()
    }

    /// How messages are compressed, if at all.
    #[must_use]
    #[doc(alias = "extensions")]
    pub fn deflate(&self) -> Option<&AgreedDeflate> {
        self.peer.deflate.as_ref()
    }

    /// The client's request: path, query, headers. Parsed anew on each call.
    #[must_use]
    #[doc(alias = "environ")]
    pub fn request(&self) -> Request<()> {
        parse_request(&Bytes::copy_from_slice(&self.peer.head))
            .expect("the head was parsed when the request was accepted")
    }

    /// The topic of this name, made if there is none.
    #[must_use]
    pub fn topic(&self, name: &str) -> Topic {
        self.peer.hub.topics().get(name)
    }

    /// Joins a topic: what is published there from now on is sent to this connection, until it
    /// [leaves](Self::leave) or ends. Does nothing if it is in already.
    pub fn join(&self, topic: &str) {
        self.topic(topic).join(self);
    }

    /// Leaves a topic: nothing that is published there reaches this connection any more.
    pub fn leave(&self, topic: &str) {
        self.topic(topic).leave(self);
    }

    /// Publishes a message to all members of a topic, this connection too if it is one. Never waits.
    pub fn publish(&self, topic: &str, message: impl Into<PreparedMessage>) {
        self.topic(topic).publish(message);
    }

    /// As [`publish`](Self::publish), but not to this connection.
    pub fn publish_to_others(&self, topic: &str, message: impl Into<PreparedMessage>) {
        self.topic(topic).publish_except(self, message);
    }

    /// As [`publish`](Self::publish), for a message that outdates the ones before it with the same key;
    /// see [`Topic::publish_keyed`].
    pub fn publish_keyed(&self, topic: &str, key: &str, message: impl Into<PreparedMessage>) {
        self.topic(topic).publish_keyed(key, message);
    }

    /// What became of the messages that were published to this connection's topics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.peer.counts()
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    fn explain(&self, error: SendError) -> Error {
        self.peer.with(|outbox| outbox.link.explain(error))
    }
}

/// A handler that waits to receive. The mark that it leaves goes when the waiting ends, also by being
/// dropped: a client is not given up for a Pong that nobody reads.
struct Receiving<'a> {
    peer: &'a Peer,
    meter: &'a mut Option<Box<Meter>>,
}

impl Receiving<'_> {
    fn poll_event(&mut self, cx: &mut Context<'_>, intake: &mut Intake) -> Poll<Event> {
        let received = intake.take_received();
        if received != Received::default() {
            self.handle_received(received);
        }
        if let Some(meter) = self.meter
            && meter.poll_ready(cx).is_pending()
        {
            // The transport is not read, and its silence means nothing.
            self.peer.receiving.store(false, Ordering::Relaxed);
            return Poll::Pending;
        }
        let event = intake.poll_event(cx, Reader { peer: self.peer, waker: cx.waker() });
        self.peer.receiving.store(event.is_pending(), Ordering::Relaxed);
        event
    }

    fn handle_received(&mut self, received: Received) {
        self.peer.handle_received(received);
        let rates = &self.peer.destination.rates;
        if rates.is_some() {
            let meter = self.meter.get_or_insert_default();
            meter.charge(rates, received, self.peer.opened());
        }
    }

    fn verdict(&self) -> Result<(), Error> {
        self.peer.with(|outbox| outbox.link.verdict())
    }
}

/// Reaches the connection for who waits to receive, and leaves word of him there, under one lock.
struct Reader<'a> {
    peer: &'a Peer,
    waker: &'a Waker,
}

impl Access<Transport> for Reader<'_> {
    fn with<R>(&mut self, f: impl FnOnce(&mut Link<Transport>) -> R) -> R {
        self.peer.with(|outbox| {
            outbox.set_receiver(self.waker);
            f(&mut outbox.link)
        })
    }

    fn handle(&mut self, incoming: Incoming) -> Option<Event> {
        self.peer.handle(incoming)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.peer.receiving.store(false, Ordering::Relaxed);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(intake) = &mut self.intake {
            self.peer.handle_received(intake.take_received());
        }
        self.peer.with(|outbox| {
            outbox.intake = self.intake.take();
            // The handler may have given the socket to another task; then the session waits for this.
            outbox.wake_session();
        });
    }
}
