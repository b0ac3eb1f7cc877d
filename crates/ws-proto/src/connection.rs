//! [`Connection`]: one endpoint of an open connection; wires [`Inbound`] and [`Outbound`] together.
//!
//! Not its business: anything else. RFC 6455 is implemented by the two halves.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::{
    AgreedDeflate, Chunk, CloseFrame, Closed, Config, Event, Inbound, MaskingKeys, Outbound,
    Outgoing, PreparedMessage, Role, SendError, State, Transmit,
};

/// One endpoint of an open WebSocket connection; performs no I/O and reads no clock.
///
/// The methods come in three kinds: `handle_*` and [`poll_event`](Self::poll_event) take what
/// arrives, [`send`](Self::send) and its like are what the application wants, `poll_*` answer what
/// must happen next. The crate's documentation states the order.
#[derive(Debug)]
#[doc(alias = "WSConnection")]
#[doc(alias = "Protocol")]
#[doc(alias = "ServerProtocol")]
#[doc(alias = "ClientProtocol")]
pub struct Connection {
    inbound: Inbound,
    outbound: Outbound,
    /// How much of the input the last look left; what lies there beyond it is new.
    left: usize,
    /// The transport has ended; what came before still counts.
    eof: bool,
    /// Whether [`Event::Closed`] has been taken.
    ended: bool,
}

impl Connection {
    /// A server's endpoint, made after the opening handshake.
    #[must_use]
    pub fn server(config: &Config, now: Instant) -> Self {
        let outbound = Outbound::server(config.keepalive_settings(), now);
        Self::new(Inbound::new(Role::Server, config.limits()), outbound)
    }

    /// A client's endpoint, made after the opening handshake, with its source of masking keys.
    #[must_use]
    pub fn client(config: &Config, keys: impl MaskingKeys + 'static, now: Instant) -> Self {
        let outbound = Outbound::client(config.keepalive_settings(), Box::new(keys), now);
        Self::new(Inbound::new(Role::Client, config.limits()), outbound)
    }

    /// Compresses, as was agreed on in the opening handshake.
    #[must_use]
    pub fn with_deflate(mut self, agreed: Option<&AgreedDeflate>) -> Self {
        self.inbound = self.inbound.with_deflate(agreed);
        self.outbound = self.outbound.with_deflate(agreed);
        self
    }

    fn new(inbound: Inbound, outbound: Outbound) -> Self {
        Self { inbound, outbound, left: 0, eof: false, ended: false }
    }

    /// Takes the next event off the front of `input`, the caller's buffer, to which bytes from the
    /// transport have been appended. `None` means that more bytes are needed.
    ///
    /// Never fails: what the peer does wrong becomes a Close frame to send and, at the end,
    /// [`Event::Closed`].
    #[must_use]
    #[doc(alias = "receive_data")]
    #[doc(alias = "events")]
    #[doc(alias = "events_received")]
    pub fn poll_event(&mut self, input: &mut BytesMut) -> Option<Event> {
        if input.len() > self.left {
            self.outbound.handle_activity();
        }
        while let Some(incoming) = self.inbound.poll(input) {
            let event = self.outbound.handle(incoming);
            if event.is_some() {
                self.left = input.len();
                return event;
            }
        }
        self.left = input.len();
        if self.eof {
            self.outbound.handle_eof();
        }
        if self.outbound.state() == State::Closed && !self.ended {
            self.ended = true;
            return Some(Event::Closed(self.outbound.closed()));
        }
        None
    }

    /// Takes note that the transport ended. Idempotent; [`Event::Closed`] follows what had come before.
    #[doc(alias = "receive_eof")]
    pub fn handle_eof(&mut self) {
        self.eof = true;
    }

    /// Takes note of the time; see [`Outbound::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.outbound.handle_timeout(now);
    }

    /// Hands messages out in chunks from the next one on; see [`Inbound::set_streaming`].
    pub fn set_streaming(&mut self, streaming: bool) {
        self.inbound.set_streaming(streaming);
    }

    /// Queues a message.
    ///
    /// # Errors
    /// See [`Outbound::send`].
    #[doc(alias = "send_text")]
    #[doc(alias = "send_binary")]
    #[doc(alias = "write_frame")]
    #[doc(alias = "write_frame_sync")]
    pub fn send(&mut self, message: impl Into<Outgoing>) -> Result<(), SendError> {
        self.outbound.send(message)
    }

    /// Queues a message that was framed before.
    ///
    /// # Errors
    /// See [`Outbound::send`].
    pub fn send_prepared(&mut self, message: &PreparedMessage) -> Result<(), SendError> {
        self.outbound.send_prepared(message)
    }

    /// Queues a piece of a message.
    ///
    /// # Errors
    /// See [`Outbound::send_chunk`].
    #[doc(alias = "send_continuation")]
    pub fn send_chunk(&mut self, chunk: Chunk) -> Result<(), SendError> {
        self.outbound.send_chunk(chunk)
    }

    /// Queues a Ping.
    ///
    /// # Errors
    /// See [`Outbound::ping`].
    #[doc(alias = "send_ping")]
    pub fn ping(&mut self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.outbound.ping(&payload.into())
    }

    /// Queues an unsolicited Pong; Pings are answered without this.
    ///
    /// # Errors
    /// See [`Outbound::pong`].
    #[doc(alias = "send_pong")]
    pub fn pong(&mut self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.outbound.pong(&payload.into())
    }

    /// Starts the closing handshake.
    ///
    /// # Errors
    /// See [`Outbound::close`].
    #[doc(alias = "send_close")]
    pub fn close(&mut self, frame: impl Into<CloseFrame>) -> Result<(), SendError> {
        self.outbound.close(frame.into())
    }

    /// What is owed to the transport now.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.outbound.poll_transmit()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.outbound.poll_timeout()
    }

    /// Where the closing handshake stands. The I/O layer starts its close timer when this leaves
    /// [`State::Open`], and calls [`handle_eof`](Self::handle_eof) when its patience ends.
    #[must_use]
    #[doc(alias = "close_expected")]
    pub fn state(&self) -> State {
        self.outbound.state()
    }

    /// How the connection ended, or what is known of it so far.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.outbound.closed()
    }

    /// The two halves, for I/O layers that read and write from different places.
    #[must_use]
    pub fn into_halves(self) -> (Inbound, Outbound) {
        (self.inbound, self.outbound)
    }
}
