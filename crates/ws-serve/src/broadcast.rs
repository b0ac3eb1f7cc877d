//! [`broadcast`]: one message to a set of connections, framed once.
//!
//! Not its business: keeping the set, which is yours; a set that joins and leaves is a topic.

use std::{borrow::Borrow, fmt};

use crate::{PreparedMessage, Sender, conn::proto::SendError};

/// Sends a message to each of the targets. Never waits: who cannot take it is skipped, and reported.
///
/// The message is framed once, whatever the number of targets.
///
/// ```
/// use std::collections::HashMap;
/// use ws_serve::{Sender, broadcast};
///
/// fn announce(users: &HashMap<String, Sender>) {
///     let delivery = broadcast(users.values(), "maintenance at noon");
///     for (sender, reason) in &delivery.skipped {
///         eprintln!("{} missed it: {reason}", sender.id());
///     }
/// }
/// ```
#[doc(alias = "write_frame_sync")]
pub fn broadcast<T: Borrow<Sender>>(
    targets: impl IntoIterator<Item = T>,
    message: impl Into<PreparedMessage>,
) -> Delivery {
    let message = message.into();
    let mut delivery = Delivery::default();
    for target in targets {
        let sender = target.borrow();
        match sender.try_send_prepared(&message) {
            Ok(()) => delivery.accepted += 1,
            Err(reason) => delivery.skipped.push((sender.clone(), reason)),
        }
    }
    delivery
}

/// What became of a [`broadcast()`].
#[derive(Clone, Debug, Default)]
#[must_use = "who was skipped will never see the message"]
pub struct Delivery {
    /// How many connections accepted the message: it is on the wire or queued for it.
    pub accepted: usize,
    /// Who did not, and why.
    pub skipped: Vec<(Sender, Skip)>,
}

/// Why a connection was passed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Skip {
    /// It is closing or closed.
    Closed,
    /// Its queue has no room: the client reads too slowly.
    QueueFull {
        /// Bytes that wait already.
        queued: usize,
    },
    /// It is in the middle of a message that is sent in chunks.
    MidMessage,
}

impl From<SendError> for Skip {
    fn from(error: SendError) -> Self {
        match error {
            SendError::MessageUnderWay => Self::MidMessage,
            _ => Self::Closed,
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection is closing or closed"),
            Self::QueueFull { queued } => write!(f, "{queued} bytes are queued already"),
            Self::MidMessage => f.write_str("a fragmented message is being sent"),
        }
    }
}

impl std::error::Error for Skip {}
