//! [`Link`]: the transport and what is owed to it; the only place that writes (RFC 6455 §5.5, §7).
//!
//! Not its business: what arrives, which is `intake.rs`; and when to flush, which its users decide.

use std::{
    fmt, io,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Config, Error, Pong,
    deadline::{Deadline, after, now},
    ping::Pings,
    proto::{
        AgreedDeflate, Chunk, CloseFrame, Closed, Event, Incoming, Keepalive, Outbound, Outgoing,
        PreparedMessage, SendError, SendQueue, State, Transmit,
    },
};

/// The sending half of a connection with its transport. For building servers of your own kind;
/// [`WebSocket`](crate::WebSocket) is what you want otherwise.
pub struct Link<S> {
    /// `None` when it was dropped before the link.
    io: Option<S>,
    outbound: Outbound,
    /// A shutdown of the write side is under way.
    shutting_down: bool,
    /// See [`end_by_drop`](Self::end_by_drop).
    ends_by_drop: bool,
    /// Bytes that the transport took since somebody last asked.
    written: u64,
    /// Bytes were given to the transport since it was last flushed.
    unflushed: bool,
    /// Writing failed: nothing more is written, but what the peer sent before may still be read.
    broken: bool,
    /// What the transport said when it failed.
    cause: Option<io::Error>,
    /// The keepalive's while open, the closing handshake's afterwards.
    timer: Deadline,
    patience: Patience,
    write_limit: usize,
    pings: Option<Box<Pings>>,
}

/// How long a closing peer is waited for.
#[derive(Clone, Copy)]
enum Patience {
    /// So long, from when closing begins.
    Lasts(Duration),
    /// Closing has begun.
    Ends(Instant),
}

impl<S> Link<S> {
    /// A transport on which the opening handshake is done. A client brings its masking keys in `outbound`.
    #[must_use]
    pub fn new(io: S, outbound: Outbound, config: &Config) -> Self {
        Self {
            io: Some(io),
            outbound,
            shutting_down: false,
            ends_by_drop: false,
            written: 0,
            unflushed: false,
            broken: false,
            cause: None,
            timer: Deadline::default(),
            patience: Patience::Lasts(config.close_timeout),
            write_limit: config.write_limit,
            pings: None,
        }
    }

    /// Compresses messages, as was agreed on.
    #[must_use]
    pub fn with_deflate(mut self, agreed: Option<&AgreedDeflate>) -> Self {
        self.outbound = self.outbound.with_deflate(agreed);
        self
    }

    /// The keepalive of a configuration and the time from which it counts, for making an [`Outbound`].
    #[must_use]
    pub(crate) fn keepalive_from(config: &Config) -> (Keepalive, Instant) {
        (config.proto.keepalive_settings(), now())
    }

    /// Queues a message.
    ///
    /// # Errors
    /// See [`Outbound::send`].
    pub fn send(&mut self, message: impl Into<Outgoing>) -> Result<(), SendError> {
        self.check()?;
        self.outbound.send(message)
    }

    /// Queues a prepared message.
    ///
    /// # Errors
    /// See [`Outbound::send_prepared`].
    pub fn send_prepared(&mut self, message: &PreparedMessage) -> Result<(), SendError> {
        self.check()?;
        self.outbound.send_prepared(message)
    }

    /// Queues prepared messages, framed for [what was agreed on](Self::with_deflate), one after the
    /// other.
    ///
    /// # Errors
    /// See [`Outbound::send_frames`].
    pub fn send_frames(&mut self, frames: Bytes) -> Result<(), SendError> {
        self.check()?;
        self.outbound.send_frames(frames)
    }

    /// Queues a piece of a message.
    ///
    /// # Errors
    /// See [`Outbound::send_chunk`].
    pub fn send_chunk(&mut self, chunk: Chunk) -> Result<(), SendError> {
        self.check()?;
        self.outbound.send_chunk(chunk)
    }

    /// Queues what was encoded elsewhere; see [`Outbound::send_corked`].
    ///
    /// # Errors
    /// See [`Outbound::send_corked`].
    pub fn send_corked(&mut self, corked: &mut SendQueue) -> Result<(), SendError> {
        self.check()?;
        self.outbound.send_corked(corked)
    }

    /// Gives the memory that [`send_corked`](Self::send_corked) took back, if all is written.
    pub fn release_to(&mut self, corked: &mut SendQueue) {
        self.outbound.release_to(corked);
    }

    /// Queues a Ping whose answer is awaited.
    ///
    /// # Errors
    /// See [`Outbound::ping`].
    pub fn ping(&mut self) -> Result<Pong, SendError> {
        self.check()?;
        if !self.state().can_send() {
            return Err(SendError::Closing);
        }
        let (payload, pong) = self.pings.get_or_insert_default().start();
        self.outbound.ping(&payload)?;
        Ok(pong)
    }

    /// Starts the closing handshake.
    ///
    /// # Errors
    /// See [`Outbound::close`].
    pub fn close(&mut self, frame: CloseFrame) -> Result<(), SendError> {
        self.check()?;
        self.outbound.close(frame)
    }

    /// Ends the connection without ceremony: nothing is flushed.
    pub fn abort(&mut self) {
        self.outbound.handle_eof();
        self.pings = None;
    }

    /// Takes note of what arrived; see [`Outbound::handle`].
    pub fn handle(&mut self, incoming: Incoming) -> Option<Event> {
        let event = self.outbound.handle(incoming);
        if let (Some(Event::Pong(payload)), Some(pings)) = (&event, &mut self.pings) {
            pings.handle_pong(payload);
        }
        event
    }

    /// Where the closing handshake stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.outbound.state()
    }

    /// How the connection ended, or what is known of it so far.
    #[must_use]
    pub fn closed(&self) -> Closed {
        self.outbound.closed()
    }

    /// Bytes that are queued and not written.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outbound.queued()
    }

    /// Bytes that the transport took since this was last asked, for statistics.
    #[inline]
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// Whether a message is being sent in chunks.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.outbound.is_mid_message()
    }

    /// Whether sending should wait: more is queued than [`Config::write_limit`] allows.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queued() > self.write_limit
    }

    /// The transport, unless it was dropped.
    #[must_use]
    pub fn get_ref(&self) -> Option<&S> {
        self.io.as_ref()
    }

    /// Ends the connection and drops the transport, for those who keep the link longer.
    pub fn drop_transport(&mut self) {
        self.abort();
        self.io = None;
    }

    /// Leaves the end of the writing to who drops the transport when this [is
    /// complete](Self::is_complete), which saves a system call. For transports whose end needs no words.
    pub fn end_by_drop(&mut self) {
        self.ends_by_drop = true;
    }

    /// Whether the closing handshake is complete and all is written, so that the transport can go: the
    /// server closes first (RFC 6455 §7.1.1), and who has sent a Close sends nothing more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let quiet = !self.unflushed && !self.shutting_down && self.queued() == 0;
        quiet && self.state() == State::Draining && self.outbound.has_received_close()
    }

    /// Whether what is sent now can leave.
    #[must_use]
    pub fn can_send(&self) -> bool {
        !self.broken && self.state().can_send()
    }

    /// The end as the application sees it: `Ok` after a clean closing handshake.
    ///
    /// # Errors
    /// [`Error::Closed`] with what is known otherwise.
    pub fn verdict(&mut self) -> Result<(), Error> {
        let closed = self.closed();
        if closed.is_clean() {
            return Ok(());
        }
        Err(Error::Closed { closed: Box::new(closed), cause: self.cause.take() })
    }
}

impl<S> Link<S> {
    /// Whether the transport is gone.
    pub(crate) fn is_dead(&self) -> bool {
        self.state() == State::Closed
    }

    /// Whether what was queued could leave.
    ///
    /// # Errors
    /// [`Error::Closed`] if the transport failed.
    pub fn check_sent(&mut self) -> Result<(), Error> {
        let lost = self.broken || (self.is_dead() && !self.closed().is_clean());
        if lost { Err(self.explain(SendError::Closing)) } else { Ok(()) }
    }

    /// What a refusal to send means for the application.
    pub fn explain(&mut self, error: SendError) -> Error {
        match error {
            SendError::Closing => {
                let closed = Box::new(self.closed());
                Error::Closed { closed, cause: self.cause.take() }
            }
            error => Error::Send(error),
        }
    }

    /// Refuses to queue what could never leave.
    fn check(&self) -> Result<(), SendError> {
        if self.broken { Err(SendError::Closing) } else { Ok(()) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Gives the queue's memory back if all is written: an idle connection holds none.
    pub fn release(&mut self) {
        self.outbound.release();
    }

    /// Writes what is owed, and shuts the write side down when that is owed.
    ///
    /// A failure to write is remembered for [`verdict`](Self::verdict) and ends only the sending:
    /// the peer may have sent its reasons before it went.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.broken
            && let Err(error) = ready!(self.poll_write_all(cx))
        {
            self.handle_broken(error);
        }
        Poll::Ready(())
    }

    /// Whether nothing at all is owed, so that whole messages may go [past the queue](Self::bypass).
    #[must_use]
    pub fn may_bypass(&self) -> bool {
        !self.broken && self.outbound.may_bypass_queue()
    }

    /// Offers prepared messages straight to the transport, past the queue, if [that may
    /// be](Self::may_bypass): no copy, however many connections get the same bytes. Answers how many
    /// bytes were taken; the rest of a frame that was begun must follow before anything else, by
    /// [`send_rest`](Self::send_rest).
    ///
    /// # Errors
    /// [`SendError::Closing`] if the transport failed.
    pub fn bypass(&mut self, cx: &mut Context<'_>, frames: &[u8]) -> Result<usize, SendError> {
        let Some(io) = &mut self.io else { return Err(SendError::Closing) };
        let error = match Pin::new(io).poll_write(cx, frames) {
            Poll::Ready(Ok(written)) if written <= frames.len() => {
                self.unflushed |= written > 0;
                self.written += written as u64;
                self.outbound.handle_bypass();
                return Ok(written);
            }
            // It claims more than it was given, and cannot be believed at all.
            Poll::Ready(Ok(_)) => io::ErrorKind::InvalidData.into(),
            Poll::Ready(Err(error)) => error,
            Poll::Pending => return Ok(0),
        };
        self.handle_broken(error);
        Err(SendError::Closing)
    }

    /// Queues frames of which the transport [took](Self::bypass) the first `written` bytes.
    ///
    /// # Errors
    /// See [`Outbound::send_frames`].
    pub fn send_rest(&mut self, frames: Bytes, written: usize) -> Result<(), SendError> {
        self.check()?;
        self.outbound.send_rest(frames, written)
    }

    /// [Offers](Self::bypass) prepared messages to the transport if nothing else is owed, and queues
    /// what it does not take.
    ///
    /// # Errors
    /// See [`Outbound::send_frames`].
    pub fn offer(&mut self, cx: &mut Context<'_>, frames: &Bytes) -> Result<(), SendError> {
        self.check()?;
        if !self.may_bypass() {
            return self.outbound.send_frames(frames.clone());
        }
        let written = self.bypass(cx, frames)?;
        if written < frames.len() {
            self.outbound.send_rest(frames.clone(), written)?;
            // Once more, so that the transport wakes whoever `cx` is about.
            let _ = self.poll_flush(cx);
        }
        Ok(())
    }

    /// Takes note that bytes came, or that we did not look: a sign of life for the keepalive.
    pub fn handle_activity(&mut self) {
        self.outbound.handle_activity();
    }

    /// Writes until sending need not wait any more.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_full() && self.poll_flush(cx).is_pending() && self.is_full() {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Reads once. `Ready(false)` is the end of the transport, for whatever reason.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<bool> {
        if self.state() == State::Closed {
            return Poll::Ready(false);
        }
        let Some(io) = &mut self.io else { return Poll::Ready(false) };
        match ready!(tokio_util::io::poll_read_buf(Pin::new(io), cx, buffer)) {
            Ok(count) if count > 0 => {
                self.outbound.handle_activity();
                return Poll::Ready(true);
            }
            // The peer is done sending, but may still read: the answer to its Close leaves, if the
            // transport takes it at once. Nor must it wait until we are dropped to see our end.
            Ok(_) => {
                let _ = self.poll_flush(cx);
                if let Some(io) = &mut self.io {
                    let _ = Pin::new(io).poll_shutdown(cx);
                }
            }
            Err(error) => {
                self.cause.get_or_insert(error);
            }
        }
        self.abort();
        Poll::Ready(false)
    }

    /// Looks at the clocks, after the transport has been read empty: keepalive while open, patience
    /// while closing. Answers whether anything changed that the caller should act on.
    pub fn poll_timers(&mut self, cx: &mut Context<'_>) -> bool {
        if self.state() == State::Open && !self.broken {
            let deadline = self.outbound.poll_timeout();
            if !self.timer.poll(cx, deadline) {
                return false;
            }
            self.outbound.handle_timeout(now());
            return true;
        }
        self.poll_close_timeout(cx)
    }

    /// Ends the connection when a closing peer has used up our patience.
    pub fn poll_close_timeout(&mut self, cx: &mut Context<'_>) -> bool {
        // A transport that cannot be written to is closing, too: its reading side has that long to end.
        let open = self.state() == State::Open && !self.broken;
        if open || self.state() == State::Closed {
            return false;
        }
        // One limit for all of it, however the peer trickles.
        let deadline = match self.patience {
            Patience::Lasts(timeout) => after(timeout),
            Patience::Ends(deadline) => deadline,
        };
        self.patience = Patience::Ends(deadline);
        let passed = self.timer.poll(cx, Some(deadline));
        if passed {
            self.abort();
        }
        passed
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        let mut io = Pin::new(io);
        loop {
            if self.shutting_down {
                ready!(io.as_mut().poll_shutdown(cx))?;
                self.shutting_down = false;
            }
            match self.outbound.poll_transmit() {
                Some(Transmit::Data(queue)) => {
                    let written = ready!(poll_write_queue(io.as_mut(), cx, queue))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    queue.advance(written);
                    self.written += written as u64;
                    self.unflushed = true;
                }
                // Dropping it does the same, if nobody has to wait for the peer's end.
                Some(Transmit::Shutdown) => {
                    self.shutting_down = !(self.ends_by_drop && self.outbound.has_received_close());
                }
                None if self.unflushed => {
                    ready!(io.as_mut().poll_flush(cx))?;
                    self.unflushed = false;
                }
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    fn handle_broken(&mut self, error: io::Error) {
        self.broken = true;
        self.cause.get_or_insert(error);
        self.shutting_down = false;
        // Nothing queued can leave any more; whether the peer closed is for the reading side to find out.
        self.outbound.discard();
    }
}

impl<S> fmt::Debug for Link<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("outbound", &self.outbound).finish_non_exhaustive()
    }
}

/// One write, vectored only if there is more than one piece and the transport means it.
fn poll_write_queue<S: AsyncWrite>(
    io: Pin<&mut S>,
    cx: &mut Context<'_>,
    queue: &SendQueue,
) -> Poll<io::Result<usize>> {
    let chunk = queue.chunk();
    let (written, given) = if chunk.len() == queue.len() || !io.is_write_vectored() {
        (ready!(io.poll_write(cx, chunk))?, chunk.len())
    } else {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let used = queue.chunks_vectored(&mut slices);
        let given = slices[..used].iter().map(|slice| slice.len()).sum();
        (ready!(io.poll_write_vectored(cx, &slices[..used]))?, given)
    };
    // A transport that claims more than it was given cannot be believed at all.
    Poll::Ready(if written > given { Err(io::ErrorKind::InvalidData.into()) } else { Ok(written) })
}

/// Header and payload of sixteen large messages; more would only grow the stack frame.
const MAX_SLICES: usize = 32;
