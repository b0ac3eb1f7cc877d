//! The WebSocket protocol of [RFC 6455], with the compression of [RFC 7692], as a data structure: no
//! socket, no clock, no task.
//!
//! A [`Connection`] is one endpoint of an open connection. You bring the bytes and the time, it
//! brings the protocol: framing, masking, fragmentation, UTF-8, limits, ping and pong, keepalive
//! deadlines and the closing handshake. The opening handshake is the business of `ws-handshake`,
//! sockets are the business of `ws-conn`.
//!
//! # The drive contract
//!
//! One input at a time. After any `&mut` call:
//!
//! 1. take events with [`Connection::poll_event`] as the application is ready for them; `None`
//!    means "more bytes, please". Who stops taking events stops reading, and TCP slows the peer down;
//! 2. write what [`Connection::poll_transmit`] owes until it answers `None` or the transport blocks;
//! 3. wait for exactly one of: readable (only if the last `poll_event` answered `None`), writable
//!    (only if something is owed), a command of the application, or the deadline of
//!    [`Connection::poll_timeout`].
//!
//! Input never fails: a violation becomes a Close frame to send and one last [`Event::Closed`].
//! The price of lazy events: a ping behind an untaken message waits with it.
//!
//! ```
//! use std::time::Instant;
//! use bytes::{Buf, BytesMut};
//! use ws_proto::{Config, Connection, Event, Message, Transmit};
//!
//! let mut server = Connection::server(&Config::default(), Instant::now());
//! // A client's text frame "Hello" (RFC 6455 §5.7), as it came from the transport.
//! let mut input = BytesMut::from(&b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"[..]);
//!
//! while let Some(event) = server.poll_event(&mut input) {
//!     if let Event::Message(message) = event {
//!         assert_eq!(message, Message::text("Hello"));
//!         server.send(message)?;
//!     }
//! }
//! if let Some(Transmit::Data(queue)) = server.poll_transmit() {
//!     assert_eq!(queue.chunk(), b"\x81\x05Hello");
//!     queue.advance(7);
//! }
//! # Ok::<(), ws_proto::SendError>(())
//! ```
//!
//! A connection comes apart into an [`Inbound`] half (bytes to messages) and an [`Outbound`] half
//! (what is owed to the peer, and where the closing handshake stands), for I/O layers that read and
//! write from different places; [`Connection`] is no more than the two together.
//!
//! [RFC 6455]: https://www.rfc-editor.org/rfc/rfc6455
//! [RFC 7692]: https://www.rfc-editor.org/rfc/rfc7692

mod connection;
pub use connection::Connection;

mod event;
pub use event::{Chunk, Event, Incoming};

mod inbound;
pub use inbound::Inbound;

mod assemble;

mod outbound;
pub use outbound::{Outbound, Transmit};

mod state;
pub use state::State;

mod send_queue;
pub use send_queue::SendQueue;

mod message;
pub use message::Message;

mod outgoing;
pub use outgoing::{Compression, Outgoing};

mod text;
pub use text::Text;

mod prepared;
pub use prepared::PreparedMessage;

mod frame;
pub use frame::{EncodedHeader, FrameHeader, Opcode, Role};

mod close;
pub use close::{CloseCode, CloseFrame, Closed};

mod deflate;
pub use deflate::{AgreedDeflate, Context, Deflate};

mod compressor;

mod inflater;

mod keepalive;
pub use keepalive::Keepalive;

mod mask;
pub use mask::{ChaChaKeys, MaskingKeys, apply_mask};

mod utf8;
pub use utf8::{InvalidUtf8, Utf8Validator};

mod config;
pub use config::{Config, Limits};

mod error;
pub use error::{ProtocolError, SendError};

pub use bytes;
