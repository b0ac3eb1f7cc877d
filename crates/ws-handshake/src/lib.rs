//! The WebSocket opening handshake (RFC 6455 §4) for both roles, as data: bytes in, bytes out, no socket.
//!
//! A server waits for a request, judges it, and answers:
//!
//! ```
//! use bytes::BytesMut;
//! use ws_handshake::{ServerConfig, ServerHandshake};
//!
//! let config = ServerConfig::default().subprotocols(["chat"]);
//! let mut input = BytesMut::from(
//!     "GET /room HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
//!      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
//!      Sec-WebSocket-Protocol: chat, superchat\r\n\r\n",
//! );
//! let mut handshake = ServerHandshake::new(&config);
//! let request = handshake.poll_request(&mut input)?.expect("the request is whole");
//! assert_eq!(request.uri().path(), "/room");
//! let accepted = config.accept(&request)?;
//! assert_eq!(accepted.negotiated.subprotocol.as_deref(), Some("chat"));
//! let bytes = ws_handshake::encode_response(&accepted.response); // to the client
//! # assert!(bytes.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
//! # Ok::<(), ws_handshake::HandshakeError>(())
//! ```
//!
//! A client sends a request and judges the answer; the bytes that follow a head stay in the caller's
//! buffer, on either side: they are the first frames.
//!
//! ```
//! use bytes::BytesMut;
//! use ws_handshake::{ClientConfig, ClientHandshake, WsUri};
//!
//! let uri: WsUri = "ws://example.com/room".parse()?;
//! let nonce = *b"the sample nonce"; // sixteen unpredictable bytes, in real life
//! let mut handshake = ClientHandshake::new(&uri, &ClientConfig::default(), nonce)?;
//! assert!(handshake.request().starts_with(b"GET /room HTTP/1.1\r\nHost: example.com\r\n"));
//! let mut input = BytesMut::from(
//!     &b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
//!        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x02hi"[..],
//! );
//! let (negotiated, response) = handshake.poll_response(&mut input)?.expect("it is whole");
//! assert_eq!(negotiated.subprotocol, None);
//! assert_eq!(&input[..], b"\x81\x02hi");
//! # Ok::<(), ws_handshake::HandshakeError>(())
//! ```
//!
//! For a request that somebody else parsed (a web framework, an HTTP/1.1 server), skip
//! [`ServerHandshake`] and call [`ServerConfig::accept`] with it.

mod server;
pub use server::{Accepted, ServerConfig, ServerHandshake, is_upgrade};

mod client;
pub use client::{ClientConfig, ClientHandshake};

mod negotiated;
pub use negotiated::Negotiated;

mod origin;
pub use origin::{OriginPattern, Origins};

mod subprotocol;
pub use subprotocol::SelectSubprotocol;

mod extension;

mod uri;
pub use uri::WsUri;

mod head;
pub use head::{HeadLimits, encode_response, parse_request};

mod body;

mod header;

mod key;
pub use key::{accept_token, is_valid_key};

mod error;
pub use error::HandshakeError;

pub use http;
pub use ws_proto as proto;
