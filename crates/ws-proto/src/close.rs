//! [`CloseCode`], [`CloseFrame`] and [`Closed`]: RFC 6455 §7.4 as a table, and how a connection ended.
//!
//! Not its business: which error earns which code, which is `ProtocolError::close_code`.

use std::{fmt, num::NonZeroU16};

use bytes::{BufMut, Bytes};

use crate::{ProtocolError, Text, frame::MAX_CONTROL_PAYLOAD};

/// A status code that may be sent in a Close frame (RFC 6455 §7.4 and the IANA registry):
/// 1000–1003, 1007–1014, 3000–4999. Others cannot be built.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "CloseReason")]
pub struct CloseCode(NonZeroU16);

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $words:literal;)*) => {
        impl CloseCode {
            $($(#[$doc])* pub const $name: Self = Self(NonZeroU16::new($code).expect("not zero"));)*

            /// The registry's words for the code, if it has any.
            fn words(self) -> Option<&'static str> {
                match self.value() {
                    $($code => Some($words),)*
                    3000..=3999 => Some("registered"),
                    4000..=4999 => Some("private use"),
                    _ => None,
                }
            }
        }
    };
}

close_codes! {
    /// The purpose of the connection is fulfilled.
    NORMAL = 1000, "OK";
    /// The endpoint goes away: a server shuts down, a browser leaves the page.
    GOING_AWAY = 1001, "going away";
    /// The peer broke the protocol.
    PROTOCOL_ERROR = 1002, "protocol error";
    /// The peer sent a type of data that we do not take.
    UNSUPPORTED_DATA = 1003, "unsupported data";
    /// The data does not fit its type, such as text that is not UTF-8.
    INVALID_DATA = 1007, "invalid frame payload data";
    /// A rule of ours was broken, and no other code says it better.
    POLICY_VIOLATION = 1008, "policy violation";
    /// A message is too big to process.
    MESSAGE_TOO_BIG = 1009, "message too big";
    /// The server did not negotiate an extension that the client needs.
    MANDATORY_EXTENSION = 1010, "mandatory extension";
    /// Something unexpected happened on our side.
    INTERNAL_ERROR = 1011, "internal error";
    /// The service restarts; come back soon.
    SERVICE_RESTART = 1012, "service restart";
    /// The service is overloaded; come back later.
    TRY_AGAIN_LATER = 1013, "try again later";
    /// A gateway got an invalid answer from upstream.
    BAD_GATEWAY = 1014, "bad gateway";
}

impl CloseCode {
    /// The code, if it may be on the wire.
    ///
    /// ```
    /// use ws_proto::CloseCode;
    /// assert_eq!(CloseCode::new(1000), Some(CloseCode::NORMAL));
    /// assert!(CloseCode::new(4321).is_some());
    /// assert!(CloseCode::new(1005).is_none()); // "no status received" is never sent
    /// ```
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => match NonZeroU16::new(code) {
                Some(code) => Some(Self(code)),
                None => None,
            },
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u16 {
        self.0.get()
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.value()
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => write!(f, "{} ({words})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({self})")
    }
}

/// The content of a Close frame (RFC 6455 §5.5.1): a status code and a reason, or nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// A frame without a code has no reason either.
    code: Option<CloseCode>,
    /// `reason.len() <= 123`
    reason: Text,
}

impl CloseFrame {
    /// A Close frame without a status code; the peer sees 1005, "no status received".
    pub const EMPTY: Self = Self { code: None, reason: Text::new() };

    /// A Close frame. A reason over 123 bytes, which is what fits (§5.5), is cut between characters.
    #[must_use]
    pub fn new(code: CloseCode, reason: impl Into<Text>) -> Self {
        let reason = reason.into();
        let end = reason.floor_char_boundary(MAX_REASON);
        Self { code: Some(code), reason: Text::from_validated(reason.into_bytes().slice(..end)) }
    }

    /// The status code, unless the frame was empty.
    #[must_use]
    pub fn code(&self) -> Option<CloseCode> {
        self.code
    }

    /// The reason; empty if there is none. Meant for people who debug, not for programs (§5.5.1).
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Reads a Close frame's payload.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, ProtocolError> {
        let (code, reason) = match payload {
            [] => return Ok(Self::EMPTY),
            [_] => return Err(ProtocolError::CloseFrameTooShort),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        let code = CloseCode::new(code).ok_or(ProtocolError::InvalidCloseCode(code))?;
        let reason = Text::try_from(Bytes::copy_from_slice(reason))
            .map_err(ProtocolError::InvalidCloseReason)?;
        Ok(Self { code: Some(code), reason })
    }

    /// Writes a Close frame's payload, at most 125 bytes.
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        if let Some(code) = self.code {
            out.put_u16(code.value());
            out.put_slice(self.reason.as_bytes());
        }
    }
}

impl From<&ProtocolError> for CloseFrame {
    fn from(error: &ProtocolError) -> Self {
        Self::new(error.close_code(), error.to_string())
    }
}

impl From<CloseCode> for CloseFrame {
    fn from(code: CloseCode) -> Self {
        Self::new(code, Text::new())
    }
}

impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(code) = self.code else { return f.write_str("1005 (no status received)") };
        write!(f, "{code}")?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        Ok(())
    }
}

/// How a connection ended, as facts: what was received, what was sent, and in which order.
///
/// Its `Display` is one readable sentence:
/// "received 1001 (going away); then sent 1001 (going away)".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[doc(alias = "ConnectionClosed")]
#[doc(alias = "ConnectionClosedOK")]
#[doc(alias = "ConnectionClosedError")]
pub struct Closed {
    /// The peer's Close frame.
    #[doc(alias = "rcvd")]
    pub received: Option<CloseFrame>,
    /// Our Close frame, which may not have left if the transport ended first.
    pub sent: Option<CloseFrame>,
    /// Whether the peer's Close frame came before ours went.
    #[doc(alias = "rcvd_then_sent")]
    pub received_first: bool,
    /// Why we failed the connection, if we did (RFC 6455 §7.1.7).
    pub cause: Option<ProtocolError>,
}

impl Closed {
    /// Whether the closing handshake was completed and the peer did not complain: no violation, and
    /// its code was 1000, 1001, none, or the echo of ours.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let (Some(received), Some(sent), None) = (&self.received, &self.sent, &self.cause) else {
            return false;
        };
        let echoed = !self.received_first && received.code == sent.code;
        echoed || matches!(received.code, None | Some(CloseCode::NORMAL | CloseCode::GOING_AWAY))
    }

    /// The connection's close code (§7.1.5): the peer's; 1005 if it sent an empty Close frame, 1006
    /// if it sent none.
    #[must_use]
    #[doc(alias = "close_code")]
    pub fn code(&self) -> u16 {
        match &self.received {
            Some(frame) => frame.code.map_or(1005, CloseCode::value),
            None => 1006,
        }
    }

    /// The connection's close reason (§7.1.6): the peer's, or nothing.
    #[must_use]
    #[doc(alias = "close_reason")]
    pub fn reason(&self) -> &str {
        self.received.as_ref().map_or("", CloseFrame::reason)
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.received, &self.sent) {
            (None, None) => f.write_str("no close frame received or sent"),
            (Some(received), None) => write!(f, "received {received}; no close frame sent"),
            (None, Some(sent)) => write!(f, "sent {sent}; no close frame received"),
            (Some(received), Some(sent)) if self.received_first => {
                write!(f, "received {received}; then sent {sent}")
            }
            (Some(received), Some(sent)) => write!(f, "sent {sent}; then received {received}"),
        }
    }
}

/// What a control frame leaves for the reason after two bytes of code.
const MAX_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_from_0_to_5000_is_judged_by_the_registry() {
        for code in 0..=5000 {
            let legal = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(CloseCode::new(code).is_some(), legal, "{code}");
            let decoded = CloseFrame::decode(&code.to_be_bytes());
            match decoded {
                Ok(frame) => assert!(legal && frame.code().unwrap().value() == code),
                Err(error) => assert!(!legal && error == ProtocolError::InvalidCloseCode(code)),
            }
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = CloseFrame::new(CloseCode::NORMAL, "ä".repeat(100));
        assert_eq!(frame.reason().len(), 122);
        let mut payload = Vec::new();
        frame.encode(&mut payload);
        assert_eq!(CloseFrame::decode(&payload), Ok(frame));
    }

    #[test]
    fn the_end_is_one_readable_sentence() {
        let close = |code| Some(CloseFrame::from(code));
        let mut closed = Closed {
            received: close(CloseCode::GOING_AWAY),
            sent: close(CloseCode::GOING_AWAY),
            received_first: true,
            cause: None,
        };
        assert_eq!(closed.to_string(), "received 1001 (going away); then sent 1001 (going away)");
        assert!(closed.is_clean());
        assert_eq!(closed.code(), 1001);
        closed.received = None;
        closed.sent = Some(CloseFrame::from(&ProtocolError::KeepaliveTimeout));
        closed.cause = Some(ProtocolError::KeepaliveTimeout);
        assert_eq!(
            closed.to_string(),
            "sent 1011 (internal error) keepalive ping timeout; no close frame received"
        );
        assert!(!closed.is_clean());
        assert_eq!(closed.code(), 1006);
        assert_eq!(Closed::default().to_string(), "no close frame received or sent");
    }
}
