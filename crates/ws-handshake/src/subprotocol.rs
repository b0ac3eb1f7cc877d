//! Choosing a subprotocol (RFC 6455 §1.9, §4.2.2).
//!
//! Not its business: what subprotocols mean.

use std::{fmt, sync::Arc};

use http::{HeaderMap, StatusCode, header};

use crate::{
    HandshakeError,
    header::{is_token, list},
    proto::Text,
};

/// How a server chooses: gets the client's offers in the client's order, answers with one of them,
/// with `None` to go on without, or with an error to refuse.
pub type SelectSubprotocol =
    dyn Fn(&[&str]) -> Result<Option<String>, HandshakeError> + Send + Sync;

/// A server's way of choosing.
#[derive(Clone, Default)]
pub(crate) enum Selection {
    /// None is ever chosen.
    #[default]
    Off,
    /// The first of these that the client offers; it must offer one.
    ServerOrder(Arc<[Text]>),
    /// Whatever the application says.
    Custom(Arc<SelectSubprotocol>),
}

impl Selection {
    /// The first of these; without any, none is negotiated.
    pub(crate) fn server_order(names: Arc<[Text]>) -> Self {
        if names.is_empty() { Self::Off } else { Self::ServerOrder(names) }
    }

    /// Chooses among the offers of a request.
    pub(crate) fn select(&self, headers: &HeaderMap) -> Result<Option<Text>, HandshakeError> {
        let offers = offers(headers)?;
        match self {
            Self::Off => Ok(None),
            Self::ServerOrder(ours) => {
                let chosen = ours.iter().find(|name| offers.contains(&name.as_str()));
                if let Some(name) = chosen {
                    return Ok(Some(name.clone()));
                }
                let expected = ours.join(", ");
                Err(if offers.is_empty() {
                    HandshakeError::MissingSubprotocol(expected)
                } else {
                    HandshakeError::UnsupportedSubprotocol(expected)
                })
            }
            Self::Custom(select) => {
                let chosen = select(&offers)?;
                // §4.2.2: only what the client offered may be chosen.
                match chosen {
                    Some(name) if !offers.contains(&name.as_str()) => {
                        // The server's own fault, so the client need not know more.
                        Err(HandshakeError::reject(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            "See the server's log.\n",
                        ))
                    }
                    chosen => Ok(chosen.map(Text::from)),
                }
            }
        }
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("Off"),
            Self::ServerOrder(ours) => f.debug_tuple("ServerOrder").field(ours).finish(),
            Self::Custom(_) => f.write_str("Custom(..)"),
        }
    }
}

/// The subprotocols that a client offers, in its order. They are compared as they are: names are
/// case-sensitive.
fn offers(headers: &HeaderMap) -> Result<Vec<&str>, HandshakeError> {
    list(headers, &header::SEC_WEBSOCKET_PROTOCOL)
        .map(|entry| {
            std::str::from_utf8(entry)
                .ok()
                .filter(|name| is_token(name.as_bytes()))
                .ok_or(HandshakeError::InvalidSubprotocol)
        })
        .collect()
}
