//! [`Outbound`]: what we owe the peer, and where the closing handshake stands (RFC 6455 §5.5, §7).
//!
//! The answers that the RFC demands are queued here, so nobody can forget them. Not its business:
//! reading the peer's bytes, and the transport.

use std::{fmt, time::Instant};

use bytes::Bytes;

use crate::{
    AgreedDeflate, Chunk, CloseFrame, Closed, Event, FrameHeader, Incoming, Keepalive, MaskingKeys,
    Opcode, Outgoing, PreparedMessage, ProtocolError, Role, SendError, SendQueue, State,
    compressor::Compressor,
    frame::MAX_CONTROL_PAYLOAD,
    keepalive::{Beat, Heartbeat},
};

/// The sending half of a connection, which also answers for what the other half received.
#[doc(alias = "FrameProtocol")]
pub struct Outbound {
    state: State,
    queue: SendQueue,
    /// A client's source of masking keys; a server has none, and so its role needs no field.
    keys: Option<Box<dyn MaskingKeys>>,
    /// If permessage-deflate was negotiated.
    compressor: Option<Compressor>,
    /// The newest Ping whose answer found no room. §5.5.3: only the most recent one must be answered.
    unanswered_ping: Option<Box<Bytes>>,
    /// The type of the message that is being sent in chunks.
    sending: Option<Opcode>,
    heartbeat: Heartbeat,
    /// What is known of the end; made when the end begins.
    end: Option<Box<Closed>>,
    /// Whether the transport was told to shut its write side down.
    shut_down: bool,
}

/// What we owe the transport.
#[derive(Debug)]
#[must_use]
#[doc(alias = "data_to_send")]
pub enum Transmit<'a> {
    /// Bytes to write; advance the queue by what was written.
    Data(&'a mut SendQueue),
    /// Shut the write side of the transport down: the server ends the TCP connection (§7.1.1).
    Shutdown,
}

impl Outbound {
    /// A server's sending half.
    #[must_use]
    pub fn server(keepalive: Keepalive, now: Instant) -> Self {
        Self::new(None, keepalive, now)
    }

    /// A client's sending half, which masks with these keys.
    #[must_use]
    pub fn client(keepalive: Keepalive, keys: Box<dyn MaskingKeys>, now: Instant) -> Self {
        Self::new(Some(keys), keepalive, now)
    }

    fn new(keys: Option<Box<dyn MaskingKeys>>, keepalive: Keepalive, now: Instant) -> Self {
        Self {
            state: State::Open,
            queue: SendQueue::new(),
            keys,
            compressor: None,
            unanswered_ping: None,
            sending: None,
            heartbeat: Heartbeat::new(keepalive, now),
            end: None,
            shut_down: false,
        }
    }

    /// Compresses messages, as was agreed on.
    #[must_use]
    pub fn with_deflate(mut self, agreed: Option<&AgreedDeflate>) -> Self {
        self.compressor = agreed.map(Compressor::new);
        self
    }

    // What the application wants.

    /// Queues a message in one frame, compressed if that was negotiated and is worth it.
    ///
    /// # Errors
    /// [`SendError::Closing`] after a Close frame or a failure; [`SendError::MessageUnderWay`]
    /// while a message is sent in chunks.
    pub fn send(&mut self, message: impl Into<Outgoing>) -> Result<(), SendError> {
        let Outgoing { message, compression } = message.into();
        self.may_send_message()?;
        let header = self.header(true, message.opcode(), message.len());
        match &mut self.compressor {
            Some(compressor) if compressor.wants(message.len(), compression) => {
                compressor.compress(message.as_bytes(), |compressed| match compressed {
                    Some(payload) => self.queue.push_compressed(header, payload),
                    None => self.queue.push(header, message.clone().into_bytes()),
                });
            }
            _ => self.queue.push(header, message.into_bytes()),
        }
        Ok(())
    }

    /// Queues a prepared message: a server shares its bytes, a client compresses and masks its own.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_prepared(&mut self, message: &PreparedMessage) -> Result<(), SendError> {
        match self.role() {
            Role::Server => {
                let agreed = self.compressor.as_ref().map(Compressor::agreed);
                self.send_frames(message.frame_for(agreed).clone())
            }
            Role::Client => self.send(message.outgoing()),
        }
    }

    /// Queues whole messages that were framed by [`PreparedMessage`]s for this agreement, one after
    /// the other: what a server broadcasts.
    ///
    /// A context that is kept starts anew behind them, because nobody compressed them with it.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`SendError::Unmasked`] on a client.
    pub fn send_frames(&mut self, frames: Bytes) -> Result<(), SendError> {
        self.may_send_message()?;
        if self.role() == Role::Client {
            return Err(SendError::Unmasked);
        }
        self.queue.push_frames(frames);
        self.handle_bypass();
        Ok(())
    }

    /// Takes note that frames of [`PreparedMessage`]s went past the queue; see
    /// [`may_bypass_queue`](Self::may_bypass_queue).
    pub fn handle_bypass(&mut self) {
        if let Some(compressor) = &mut self.compressor {
            compressor.handle_foreign();
        }
    }

    /// As [`send_frames`](Self::send_frames), when the transport has taken the first `written` bytes
    /// already. Nothing else may be queued.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_rest(&mut self, frames: Bytes, written: usize) -> Result<(), SendError> {
        debug_assert!(self.queue.is_empty() || written == 0, "bytes went past the queue");
        self.send_frames(frames)?;
        bytes::Buf::advance(&mut self.queue, written);
        Ok(())
    }

    /// Queues a frame of a message that is sent in chunks (§5.4); the first chunk begins it. Control
    /// frames may still go between chunks, other messages not.
    ///
    /// # Errors
    /// [`SendError::Closing`]; [`SendError::MixedTypes`] for text in a binary message or the reverse.
    pub fn send_chunk(&mut self, chunk: Chunk) -> Result<(), SendError> {
        if !self.state.can_send() {
            return Err(SendError::Closing);
        }
        let kind = chunk.data.opcode();
        let opcode = match self.sending {
            Some(sending) if sending != kind => return Err(SendError::MixedTypes),
            Some(_) => Opcode::Continuation,
            None => kind,
        };
        self.sending = (!chunk.last).then_some(kind);
        let mut header = self.header(chunk.last, opcode, chunk.data.len());
        match &mut self.compressor {
            Some(compressor) if compressor.is_able() => {
                // RFC 7692 §6.1: only the first frame says that the message is compressed.
                header.rsv1 = opcode != Opcode::Continuation;
                compressor.compress_chunk(chunk.data.as_bytes(), chunk.last, |payload| {
                    self.queue.push_cow(header, payload);
                });
            }
            _ => self.queue.push(header, chunk.data.into_bytes()),
        }
        Ok(())
    }

    /// Queues what was encoded into another queue while this one was out of reach, such as the
    /// messages of one turn of a server's handler.
    ///
    /// # Errors
    /// As [`send`](Self::send); `corked` is left alone then.
    pub fn send_corked(&mut self, corked: &mut SendQueue) -> Result<(), SendError> {
        self.may_send_message()?;
        if self.queue.is_empty() {
            // The usual case: swap, so that the memory of one queue serves all connections.
            std::mem::swap(&mut self.queue, corked);
        } else {
            self.queue.append(corked);
        }
        Ok(())
    }

    /// Queues a Ping with at most 125 bytes of payload; it overtakes waiting data.
    ///
    /// # Errors
    /// [`SendError::Closing`], [`SendError::ControlTooLong`].
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send_control(Opcode::Ping, payload)
    }

    /// Queues an unsolicited Pong (§5.5.3). Pings are answered without this.
    ///
    /// # Errors
    /// [`SendError::Closing`], [`SendError::ControlTooLong`].
    pub fn pong(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send_control(Opcode::Pong, payload)
    }

    /// Starts the closing handshake (§7.1.2): queues a Close frame behind what was accepted before.
    ///
    /// # Errors
    /// [`SendError::Closing`] if it has begun already.
    pub fn close(&mut self, frame: CloseFrame) -> Result<(), SendError> {
        if !self.state.can_send() {
            return Err(SendError::Closing);
        }
        self.push_close(frame);
        self.state.send_close();
        // No Ping may follow, so silence proves nothing; patience is the I/O layer's now.
        self.heartbeat.stop();
        Ok(())
    }

    /// Fails the connection (§7.1.7) for a reason that lies outside the peer's bytes.
    pub fn fail(&mut self, error: ProtocolError) {
        if !self.state.can_receive() {
            return;
        }
        if self.state.can_send() {
            self.push_close(CloseFrame::from(&error));
        }
        self.end().cause = Some(error);
        self.state.fail();
        self.heartbeat.stop();
    }

    // What arrives.

    /// Takes note of what the receiving half found and queues what the protocol demands in return.
    /// Answers with what the application should know.
    pub fn handle(&mut self, incoming: Incoming) -> Option<Event> {
        if !self.state.can_receive() {
            return None;
        }
        self.heartbeat.handle_heard();
        match incoming {
            // §1.4: what the peer sent before its Close still counts, also after ours.
            Incoming::Message(message) => Some(Event::Message(message)),
            Incoming::Chunk(chunk) => Some(Event::Chunk(chunk)),
            Incoming::Ping(payload) => {
                // §5.5.2: unless it already received a Close frame; and after ours nothing may follow.
                if self.state.can_send() {
                    let answered = self.push_pong(&payload);
                    self.unanswered_ping = (!answered).then(|| Box::new(payload.clone()));
                }
                Some(Event::Ping(payload))
            }
            Incoming::Pong(payload) => Some(Event::Pong(payload)),
            Incoming::Close(frame) => {
                let received_first = self.state.can_send();
                if received_first {
                    // §5.5.1: answer a Close with a Close, echoing the code.
                    self.push_close(frame.clone());
                }
                let end = self.end();
                end.received = Some(frame.clone());
                end.received_first = received_first;
                self.state.recv_close();
                self.heartbeat.stop();
                Some(Event::Closing(frame))
            }
            Incoming::Violation(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// Takes note that bytes came: a sign of life for the keepalive.
    pub fn handle_activity(&mut self) {
        self.heartbeat.handle_heard();
    }

    /// Takes note that the transport ended, for whatever reason. Idempotent.
    #[doc(alias = "receive_eof")]
    pub fn handle_eof(&mut self) {
        self.state.recv_eof();
        self.heartbeat.stop();
        self.queue.clear();
        self.unanswered_ping = None;
    }

    /// Forgets what is queued: the transport takes nothing more, but what the peer sent before may
    /// still be read.
    pub fn discard(&mut self) {
        self.queue.clear();
        self.unanswered_ping = None;
        self.shut_down = true;
        self.heartbeat.stop();
    }

    /// Takes note of the time. Call it when the deadline of [`poll_timeout`](Self::poll_timeout) has
    /// passed, and only after the transport has been read empty: a Pong that waits there counts.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.heartbeat.handle_timeout(now) {
            Beat::Nothing => {}
            // What a peer that does not read is owed must not grow with each interval.
            Beat::Ping if self.state.can_send() && self.queue.control_len() == 0 => {
                let header = self.header(true, Opcode::Ping, KEEPALIVE_PAYLOAD.len());
                self.queue.push_control(header, KEEPALIVE_PAYLOAD);
            }
            Beat::Ping => {}
            Beat::GiveUp => self.fail(ProtocolError::KeepaliveTimeout),
        }
    }

    // What must happen next.

    /// What is owed to the transport now. Its answer changes after any call above.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        self.answer_ping();
        if !self.queue.is_empty() {
            return Some(Transmit::Data(&mut self.queue));
        }
        // §7.1.1: the server closes first, so that it is the one to hold TIME_WAIT.
        if self.state == State::Draining && self.role() == Role::Server && !self.shut_down {
            self.shut_down = true;
            return Some(Transmit::Shutdown);
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called. Changes only there and at the end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.heartbeat.deadline()
    }

    /// Where the closing handshake stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the peer's Close frame has come.
    #[must_use]
    pub fn has_received_close(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.received.is_some())
    }

    /// How the connection ended, or what is known of it so far.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.end.as_deref().cloned().unwrap_or_default()
    }

    /// Bytes that are queued and not written.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Gives the queue's memory back if nothing is owed.
    pub fn release(&mut self) {
        self.queue.release();
    }

    /// Gives the queue's memory to `corked`, which is empty, if nothing is owed: what
    /// [`send_corked`](Self::send_corked) took over has been written.
    pub fn release_to(&mut self, corked: &mut SendQueue) {
        if self.queue.is_empty() && corked.is_empty() {
            if self.queue.capacity() > corked.capacity() {
                std::mem::swap(&mut self.queue, corked);
            }
            self.queue.release();
        }
    }

    /// Which endpoint we are.
    #[must_use]
    pub fn role(&self) -> Role {
        if self.keys.is_some() { Role::Client } else { Role::Server }
    }

    /// Whether a message is being sent in chunks.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.sending.is_some()
    }

    /// Whether nothing at all is owed, so that whole messages may go to the transport directly.
    #[must_use]
    pub fn may_bypass_queue(&self) -> bool {
        self.queue.is_empty()
            && self.unanswered_ping.is_none()
            && self.keys.is_none()
            && self.may_send_message().is_ok()
    }

    fn may_send_message(&self) -> Result<(), SendError> {
        if !self.state.can_send() {
            return Err(SendError::Closing);
        }
        if self.sending.is_some() {
            return Err(SendError::MessageUnderWay);
        }
        Ok(())
    }

    fn send_control(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), SendError> {
        if !self.state.can_send() {
            return Err(SendError::Closing);
        }
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(SendError::ControlTooLong(payload.len()));
        }
        let header = self.header(true, opcode, payload.len());
        self.queue.push_control(header, payload);
        Ok(())
    }

    /// Queues the answer to the newest Ping, if there is room by now.
    fn answer_ping(&mut self) {
        if self.unanswered_ping.is_none() || !self.state.can_send() {
            return;
        }
        if let Some(payload) = self.unanswered_ping.take()
            && !self.push_pong(&payload)
        {
            self.unanswered_ping = Some(payload);
        }
    }

    /// Queues a Pong, if there is room. A flood of Pings from a peer that does not read costs this
    /// much memory and no more.
    fn push_pong(&mut self, payload: &[u8]) -> bool {
        if self.queue.control_len() > MAX_WAITING_PONGS {
            return false;
        }
        let header = self.header(true, Opcode::Pong, payload.len());
        self.queue.push_control(header, payload);
        true
    }

    /// Queues a Close frame behind everything else; nothing may follow it (§5.5.1).
    fn push_close(&mut self, frame: CloseFrame) {
        self.answer_ping();
        let mut payload = Vec::with_capacity(MAX_CONTROL_PAYLOAD);
        frame.encode(&mut payload);
        let header = self.header(true, Opcode::Close, payload.len());
        self.queue.push(header, payload.into());
        self.end().sent = Some(frame);
    }

    fn header(&mut self, fin: bool, opcode: Opcode, length: usize) -> FrameHeader {
        // §5.3: a fresh key for each frame.
        let mask = self.keys.as_mut().map(|keys| keys.next_key());
        FrameHeader { fin, rsv1: false, opcode, mask, length: length as u64 }
    }

    fn end(&mut self) -> &mut Closed {
        self.end.get_or_insert_default()
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("role", &self.role())
            .field("state", &self.state)
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

/// In bytes: eight Pongs of the largest size and many small ones; a peer that reads gets every answer.
const MAX_WAITING_PONGS: usize = 1 << 10;

/// What our keepalive Pings carry, for people who look at the wire.
const KEEPALIVE_PAYLOAD: &[u8] = b"keepalive";
