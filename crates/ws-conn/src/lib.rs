//! WebSocket connections over any tokio stream.
//!
//! A server accepts on a stream, a client connects to a URL, and both get a [`WebSocket`]:
//!
//! ```
//! use ws_conn::{Client, Server};
//!
//! # async fn echo(stream: tokio::net::TcpStream) -> Result<(), ws_conn::Error> {
//! let mut ws = Server::new().accept(stream).await?;
//! while let Some(message) = ws.receive().await? { // Ok(None): closed cleanly
//!     ws.send(message).await?;
//! }
//! # Ok(()) }
//!
//! # async fn client() -> Result<(), ws_conn::Error> {
//! let mut ws = Client::new("ws://127.0.0.1:9001/")?.connect().await?;
//! ws.send("hello").await?;
//! println!("{:?}", ws.receive().await?);
//! ws.close(ws_conn::CloseCode::NORMAL, "bye").await;
//! # Ok(()) }
//! ```
//!
//! Pings are answered, keepalive runs, Close frames are echoed and limits hold without a word from
//! you, as long as you [`receive`](WebSocket::receive).
//!
//! # Cancel safety
//!
//! Every method here may be dropped at any point and called again: progress lives in the connection,
//! not in the future. A dropped `receive` loses no message. A dropped `send` has queued its message
//! whole or not at all; what is queued goes out with the next call on the connection.
//!
//! # Layers
//!
//! [`proto`] and [`handshake`] are the sans-I/O crates below, for those who bring their own I/O. A
//! server of many connections, with broadcast, is `ws-serve`, above.

mod websocket;
pub use websocket::{Parts, WebSocket};

mod split;
pub use split::{Receiver, Sender};

mod intake;
pub use intake::{Access, Intake, Received};

mod link;
pub use link::Link;

mod ping;
pub use ping::Pong;

mod server;
pub use server::{Server, Upgrade};

mod client;
pub use client::Client;

mod codec;
pub use codec::{Frame, FrameCodec};

mod config;
pub use config::Config;

mod error;
pub use error::{Error, Step};

mod deadline;
mod pool;

pub use handshake::{HandshakeError, Origins, proto};
pub use proto::{
    Chunk, CloseCode, CloseFrame, Closed, Compression, Deflate, Keepalive, Message, Outgoing,
    PreparedMessage, Text,
};
pub use ws_handshake as handshake;
