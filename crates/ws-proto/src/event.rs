//! What a connection tells the application: [`Event`], and [`Incoming`], the inbound half of it.
//!
//! Not its business: how a message was framed.

use bytes::Bytes;

use crate::{CloseFrame, Closed, Message, ProtocolError};

/// Something the application should know.
///
/// Pings are answered and Close frames echoed by the connection itself; their events inform.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[doc(alias = "TextMessage")]
#[doc(alias = "BytesMessage")]
#[doc(alias = "CloseConnection")]
pub enum Event {
    /// A whole message (RFC 6455 §6.2), whatever number of frames carried it.
    Message(Message),
    /// A piece of a message, while [streaming](crate::Connection::set_streaming).
    Chunk(Chunk),
    /// A Ping; the Pong is queued, unless we have sent a Close frame (§5.5.2) or so many wait that
    /// only the newest will be answered (§5.5.3).
    Ping(Bytes),
    /// A Pong, solicited or not (§5.5.3).
    Pong(Bytes),
    /// The peer's Close frame; unless it answers ours, the echo is queued (§5.5.1). No message follows.
    Closing(CloseFrame),
    /// The end, once and last.
    Closed(Closed),
}

/// A piece of a message that is received in a streaming fashion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The bytes of this piece, of the message's type. Text is cut between code points, so a piece
    /// may be empty.
    pub data: Message,
    /// Whether the message ends with this piece.
    pub last: bool,
}

/// What [`Inbound`](crate::Inbound) makes of the peer's bytes, to be given to
/// [`Outbound::handle`](crate::Outbound::handle), which knows what the protocol demands in return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole message.
    Message(Message),
    /// A piece of a message.
    Chunk(Chunk),
    /// A Ping frame's payload.
    Ping(Bytes),
    /// A Pong frame's payload.
    Pong(Bytes),
    /// A Close frame. Nothing follows.
    Close(CloseFrame),
    /// The peer broke a rule or a limit. Nothing follows.
    Violation(ProtocolError),
}
