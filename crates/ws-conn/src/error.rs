//! [`Error`]: what can go wrong with a connection, sorted by where.
//!
//! Not its business: a clean close, which is no error anywhere.

use std::{fmt, io};

use crate::{
    HandshakeError,
    proto::{Closed, SendError},
};

/// Why an operation on a connection failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[doc(alias = "WebSocketException")]
#[doc(alias = "SimpleWebsocketError")]
pub enum Error {
    /// The opening handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The connection ended, and not by a clean closing handshake.
    #[error("{closed}{}", Because(.cause))]
    #[doc(alias = "ConnectionClosed")]
    #[doc(alias = "ConnectionClosedError")]
    Closed {
        /// What is known of the end.
        closed: Box<Closed>,
        /// What the transport said, if it failed.
        #[source]
        cause: Option<io::Error>,
    },
    /// Something was asked for that cannot be sent now.
    #[error(transparent)]
    Send(#[from] SendError),
    /// No connection to the peer could be made, or it broke before there was a WebSocket.
    #[error("cannot connect: {0}")]
    #[doc(alias = "ConnectionError")]
    Connect(#[source] io::Error),
    /// A step of opening took too long.
    #[error("timed out while {0}")]
    TimedOut(Step),
    /// The URL's scheme is `wss`, and this build has no TLS.
    #[error(
        "wss: URLs need TLS, which this client does not have; use `Client::connect_over` with a TLS stream"
    )]
    TlsUnavailable,
}

/// What we were doing when the time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Resolving the name and connecting.
    Connecting,
    /// Waiting for the peer's half of the opening handshake.
    Handshake,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Handshake => "waiting for the opening handshake",
        })
    }
}

impl Error {
    /// How the connection ended, if that is what this error says.
    #[must_use]
    pub fn closed(&self) -> Option<&Closed> {
        match self {
            Self::Closed { closed, .. } => Some(closed),
            _ => None,
        }
    }

    /// Whether the peer just went away: an everyday event, not worth more than a debug log.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        match self {
            Self::Closed { closed, .. } => closed.cause.is_none(),
            Self::Send(SendError::Closing) => true,
            _ => false,
        }
    }
}

/// ": the cause", or nothing.
struct Because<'a>(&'a Option<io::Error>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::Error;
    use crate::Message;

    /// What `Text` goes to some length for: a message is moved through these without being reshaped.
    #[test]
    fn a_message_has_the_same_layout_however_it_is_wrapped() {
        let size = size_of::<Message>();
        assert_eq!(size_of::<Option<Message>>(), size);
        assert_eq!(size_of::<Poll<Result<Option<Message>, Error>>>(), size);
    }
}
