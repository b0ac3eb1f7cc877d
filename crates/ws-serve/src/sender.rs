//! [`Sender`]: a handle for sending to one connection from anywhere.
//!
//! Not its business: receiving.

use std::{future::poll_fn, hash, sync::Arc};

use crate::{
    CloseCode, CloseFrame, Counts, Error, Message, Outgoing, PeerAddress, PreparedMessage, Skip,
    Socket, Text, peer::Peer,
};

/// A handle for sending to one connection. Clone it, keep it in a table, use it from any task.
///
/// It does not keep the connection open, and outlives it.
#[derive(Clone, Debug)]
pub struct Sender {
    peer: Arc<Peer>,
}

/// Why a message was not accepted, with the message.
#[derive(Clone, Debug)]
pub struct TrySendError {
    /// Why.
    pub reason: Skip,
    /// The message, unsent.
    pub message: Message,
}

impl Sender {
    pub(crate) fn new(peer: Arc<Peer>) -> Self {
        Self { peer }
    }

    /// Sends a message; waits while the client is behind. See [`Socket::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, message: impl Into<Outgoing>) -> Result<(), Error> {
        let mut sending = self.peer.send(message.into());
        let sent = poll_fn(|cx| self.peer.poll_send(cx, &mut sending)).await;
        sent.map_err(|error| self.peer.with(|outbox| outbox.link.explain(error)))
    }

    /// Sends a message if there is room for it in the connection's queue; never waits.
    ///
    /// # Errors
    /// The reason, and the message back.
    pub fn try_send(&self, message: impl Into<Outgoing>) -> Result<(), TrySendError> {
        let prepared = PreparedMessage::new(message);
        self.try_send_prepared(&prepared)
            .map_err(|reason| TrySendError { reason, message: prepared.message() })
    }

    /// As [`try_send`](Self::try_send), for a message that is framed already.
    ///
    /// # Errors
    /// The reason.
    pub fn try_send_prepared(&self, message: &PreparedMessage) -> Result<(), Skip> {
        let limit = self.peer.destination.max_queue;
        self.peer.try_send_frames(message.frame_for(self.peer.deflate.as_ref()), limit)
    }

    /// Starts the closing handshake; see [`Socket::close`].
    pub fn close(&self, code: CloseCode, reason: impl Into<Text>) {
        let _ = self.peer.close(CloseFrame::new(code, reason));
    }

    /// Whether messages can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.peer.is_open()
    }

    /// What became of the messages that were published to this connection's topics; also after its end.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.peer.counts()
    }

    /// Bytes that wait to be written to this connection.
    #[must_use]
    #[doc(alias = "getBufferedAmount")]
    pub fn queued(&self) -> usize {
        self.peer.with(|outbox| outbox.queued())
    }

    /// See [`Socket::id`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.peer.id
    }

    /// See [`Socket::peer_addr`].
    #[must_use]
    pub fn peer_addr(&self) -> PeerAddress {
        self.peer.address
    }
}

impl From<&Socket> for Sender {
    fn from(socket: &Socket) -> Self {
        socket.sender()
    }
}

impl PartialEq for Sender {
    fn eq(&self, other: &Self) -> bool {
        self.peer.id == other.peer.id
    }
}

impl Eq for Sender {}

impl hash::Hash for Sender {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.peer.id.hash(state);
    }
}

impl std::fmt::Display for TrySendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message not sent: {}", self.reason)
    }
}

impl std::error::Error for TrySendError {}
