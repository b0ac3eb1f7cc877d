//! [`WsUri`]: `ws:` and `wss:` URIs (RFC 6455 §3).
//!
//! Not its business: resolving names and connecting.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Uri;

use crate::{HandshakeError, origin::parse_port};

/// Where a client connects to.
///
/// ```
/// let uri: ws_handshake::WsUri = "ws://[::1]:9001/chat?room=1".parse()?;
/// assert_eq!((uri.host(), uri.port(), uri.resource_name()), ("::1", 9001, "/chat?room=1"));
/// assert_eq!(uri.host_header(), "[::1]:9001");
/// assert!("http://example.com".parse::<ws_handshake::WsUri>().is_err());
/// # Ok::<(), ws_handshake::HandshakeError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[doc(alias = "InvalidURI")]
pub struct WsUri {
    secure: bool,
    host: String,
    port: u16,
    resource_name: String,
    /// The value of an Authorization header, if the URI has user information.
    authorization: Option<String>,
}

impl WsUri {
    /// Whether the scheme is `wss`.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host's name or address; an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, which is 80 or 443 unless given.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, which is what the request asks for (§3); at least `/`.
    #[must_use]
    pub fn resource_name(&self) -> &str {
        &self.resource_name
    }

    /// The value of the Host header: with the port unless it is the scheme's own (§4.1).
    #[must_use]
    pub fn host_header(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }

    /// The value of the Authorization header that the URI's user information stands for.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }
}

impl FromStr for WsUri {
    type Err = HandshakeError;

    fn from_str(text: &str) -> Result<Self, HandshakeError> {
        let invalid = HandshakeError::InvalidUri;
        // §3: "Fragment identifiers are meaningless […] and MUST NOT be used". `Uri` drops them silently.
        if text.contains('#') {
            return Err(invalid("has a fragment"));
        }
        // RFC 3986 §2: a URI is ASCII; `Uri` lets more pass.
        if !text.is_ascii() || text.contains('\\') {
            return Err(invalid("needs percent-encoding"));
        }
        let uri: Uri = text.parse().map_err(|_| invalid("not a URI"))?;
        let secure = match uri.scheme_str() {
            Some(scheme) if scheme.eq_ignore_ascii_case("ws") => false,
            Some(scheme) if scheme.eq_ignore_ascii_case("wss") => true,
            _ => return Err(invalid("scheme is not ws or wss")),
        };
        let authority = uri.authority().ok_or_else(|| invalid("has no host"))?;
        let host = match authority.host().strip_prefix('[').and_then(|host| host.strip_suffix(']'))
        {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            Some(_) => return Err(invalid("has an invalid IPv6 address")),
            None if authority.host().is_empty() => return Err(invalid("has no host")),
            None => authority.host(),
        };
        // `Uri` forgives ports that are empty or no port numbers.
        let (_, host_and_port) =
            authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
        let port = match host_and_port.strip_prefix(authority.host()) {
            Some("") => default_port(secure),
            Some(rest) => match rest.strip_prefix(':').and_then(parse_port) {
                Some(port) if port != 0 => port,
                _ => return Err(invalid("has an invalid port")),
            },
            None => return Err(invalid("has an invalid host")),
        };
        let authorization = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((userinfo, _)) if userinfo.contains(':') => {
                let credentials = percent_decode(userinfo)
                    .ok_or_else(|| invalid("has invalid user information"))?;
                Some(format!("Basic {}", STANDARD.encode(credentials)))
            }
            Some(_) => return Err(invalid("has a user without a password")),
        };
        let resource_name = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
            None | Some("") => "/".to_owned(),
            Some(query) if query.starts_with('?') => format!("/{query}"),
            Some(path) => path.to_owned(),
        };
        Ok(Self { secure, host: host.to_owned(), port, resource_name, authorization })
    }
}

impl TryFrom<&str> for WsUri {
    type Error = HandshakeError;

    fn try_from(text: &str) -> Result<Self, HandshakeError> {
        text.parse()
    }
}

impl fmt::Display for WsUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.host_header(), self.resource_name)
    }
}

impl fmt::Debug for WsUri {
    /// As `Display`: user information does not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// Decodes `%41` and the like (RFC 3986 §2.1).
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        decoded.push((high * 16 + low) as u8);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B38.
    #[test]
    fn parses_what_rfc_6455_section_3_allows() {
        for (text, host, port, resource, header) in [
            ("ws://h", "h", 80, "/", "h"),
            ("ws://h/", "h", 80, "/", "h"),
            ("ws://h?x", "h", 80, "/?x", "h"),
            ("WS://h:8080/a/b?c=d", "h", 8080, "/a/b?c=d", "h:8080"),
            ("wss://h", "h", 443, "/", "h"),
            ("wss://h:80/", "h", 80, "/", "h:80"),
            ("ws://127.0.0.1:80", "127.0.0.1", 80, "/", "127.0.0.1"),
            ("ws://[::1]", "::1", 80, "/", "[::1]"),
            ("ws://[2001:db8::1]:81/x", "2001:db8::1", 81, "/x", "[2001:db8::1]:81"),
        ] {
            let uri: WsUri = text.parse().unwrap();
            assert_eq!(
                (uri.host(), uri.port(), uri.resource_name()),
                (host, port, resource),
                "{text}"
            );
            assert_eq!(uri.host_header(), header, "{text}");
        }
        let uri: WsUri = "ws://Aladdin:open%20sesame@h/".parse().unwrap();
        assert_eq!(uri.authorization(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(format!("{uri:?}"), "ws://h/");
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "h",
            "/path",
            "http://h",
            "ws:",
            "ws://",
            "ws:///path",
            "ws://h#fragment",
            "ws://h/#",
            "ws://h:99999",
            "ws://h:0",
            "ws://h:",
            "ws://h:x",
            "ws://user@h",
            "ws://h/a b",
            "ws://h/\r\nX: y",
            "ws://u:%zz@h",
        ] {
            assert!(text.parse::<WsUri>().is_err(), "{text}");
        }
    }
}
