//! [`Origins`]: which web pages may connect (RFC 6455 §10.2).
//!
//! A browser sends cookies with a WebSocket request whichever page asks, and no same-origin rule
//! stops it; the check here does. Not its business: clients that are no browsers, which send no
//! Origin and could send any.

use http::{HeaderMap, header};

use crate::HandshakeError;

/// Which values of the `Origin` header are allowed. A request without one is allowed always: it
/// does not come from a browser.
///
/// ```
/// use ws_handshake::Origins;
/// let origins = Origins::list(["https://example.com", "https://*.example.com", "http://localhost:*"]);
/// assert!(origins.allow(Some("https://chat.example.com"), "irrelevant"));
/// assert!(!origins.allow(Some("https://evilexample.com"), "irrelevant"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// The page comes from the host (and port) that it connects to. The default. Against DNS
    /// rebinding, where an attacker's name points to your address, only a [list](Self::list) helps.
    #[default]
    SameHost,
    /// Only these.
    List(Vec<OriginPattern>),
    /// Any: the check is off. Fit for public data, dangerous as soon as cookies mean something.
    Any,
}

/// An entry of a list; [`Origins::list`] says how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    scheme: Option<String>,
    /// Lower case; without the `*.` of a wildcard.
    host: String,
    subdomains: bool,
    port: PortPattern,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortPattern {
    Any,
    /// The scheme's own, or the given one.
    Exactly(Option<u16>),
}

impl Origins {
    /// A list of origins: `https://example.com`, with a port `http://localhost:3000` or any port
    /// `http://localhost:*`, without a scheme for any scheme, and with `*.` in front of the host for
    /// all its subdomains, but not for itself. Case does not matter. An entry that is not of this
    /// form allows nothing.
    #[must_use]
    pub fn list<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Self {
        Self::List(entries.into_iter().map(|entry| OriginPattern::parse(entry.as_ref())).collect())
    }

    /// Whether a request with this `Origin` and this `Host` is allowed.
    #[must_use]
    pub fn allow(&self, origin: Option<&str>, host: &str) -> bool {
        let Some(origin) = origin else { return true };
        match self {
            Self::Any => true,
            Self::SameHost => Origin::parse(origin).is_some_and(|origin| origin.is_at(host)),
            Self::List(patterns) => Origin::parse(origin)
                .is_some_and(|origin| patterns.iter().any(|pattern| pattern.matches(&origin))),
        }
    }

    /// Judges a request's headers.
    pub(crate) fn check(&self, headers: &HeaderMap, host: &str) -> Result<(), HandshakeError> {
        let mut values = headers.get_all(header::ORIGIN).into_iter();
        let allowed = match (values.next(), values.next()) {
            (None, _) => true,
            // Two origins: somebody is playing games. With the check off they are no business of ours.
            (Some(_), Some(_)) => *self == Self::Any,
            (Some(value), None) => match value.to_str() {
                Ok(origin) => self.allow(Some(origin), host),
                Err(_) => *self == Self::Any,
            },
        };
        if allowed { Ok(()) } else { Err(HandshakeError::OriginNotAllowed) }
    }
}

/// A serialised origin (RFC 6454 §6.2): scheme, host and port, nothing else; not `null`.
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    fn parse(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(port) => Some(parse_port(port)?),
            None => None,
        };
        Some(Self { scheme, host, port })
    }

    fn effective_port(&self) -> Option<u16> {
        self.port.or_else(|| default_port(self.scheme))
    }

    /// Whether this is the origin of pages served at `host`, the value of a Host header. Whether a
    /// proxy in front of us speaks TLS is unknown here, so a Host without a port stands for the
    /// default port of whichever scheme the page has.
    fn is_at(&self, host: &str) -> bool {
        let Some((name, port)) = split_port(host) else { return false };
        let port = match port {
            Some(port) => parse_port(port),
            None => default_port(self.scheme),
        };
        self.host.eq_ignore_ascii_case(name) && port.is_some() && self.effective_port() == port
    }
}

impl OriginPattern {
    fn parse(entry: &str) -> Self {
        let (scheme, authority) = match entry.split_once("://") {
            Some((scheme, authority)) => (Some(scheme.to_ascii_lowercase()), authority),
            None => (None, entry),
        };
        // An entry that makes no sense has a host that no origin has, and matches nothing.
        let (host, port) = split_port(authority).unwrap_or((authority, None));
        let (host, subdomains) = match host.strip_prefix("*.") {
            Some(domain) if !domain.is_empty() => (domain, true),
            _ => (host, false),
        };
        let (host, port) = match port {
            None => (host, PortPattern::Exactly(None)),
            Some("*") => (host, PortPattern::Any),
            Some(port) => match parse_port(port) {
                Some(port) => (host, PortPattern::Exactly(Some(port))),
                None => ("", PortPattern::Any),
            },
        };
        Self { scheme, host: host.to_ascii_lowercase(), subdomains, port }
    }

    fn matches(&self, origin: &Origin<'_>) -> bool {
        let scheme = self.scheme.as_deref().is_none_or(|s| s.eq_ignore_ascii_case(origin.scheme));
        let port = match self.port {
            PortPattern::Any => true,
            PortPattern::Exactly(None) => origin.effective_port() == default_port(origin.scheme),
            PortPattern::Exactly(port) => origin.effective_port() == port,
        };
        scheme && port && self.matches_host(&origin.host.to_ascii_lowercase())
    }

    fn matches_host(&self, host: &str) -> bool {
        if !self.subdomains {
            return host == self.host;
        }
        // The dot is part of what must match: `any-other.com` is no subdomain of `other.com`.
        host.strip_suffix(&self.host)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|subdomain| !subdomain.is_empty())
    }
}

/// Splits `host[:port]`, where the host may be an IPv6 literal in brackets. Refuses anything else,
/// such as user information or a path.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let end_of_host = match authority.strip_prefix('[') {
        Some(_) => authority.find(']')? + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end_of_host);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=[]:".contains(&byte);
    if host.is_empty() || !host.bytes().all(legal) {
        return None;
    }
    match rest {
        "" => Some((host, None)),
        rest => {
            rest.strip_prefix(':').filter(|port| !port.is_empty()).map(|port| (host, Some(port)))
        }
    }
}

/// A port number, in digits only.
pub(crate) fn parse_port(port: &str) -> Option<u16> {
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten()
}

/// Whether this is a Host header's value: `host[:port]` (RFC 9110 §7.2).
pub(crate) fn is_host(value: &str) -> bool {
    split_port(value).is_some_and(|(_, port)| port.is_none_or(|port| parse_port(port).is_some()))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T1, with the default policy.
    #[test]
    fn same_host_matrix() {
        for (origin, host, allowed) in [
            (None, "example.com", true),
            (Some("http://example.com"), "example.com", true),
            (Some("https://example.com"), "example.com", true),
            (Some("https://example.com"), "example.com:443", true),
            (Some("http://example.com:80"), "example.com", true),
            (Some("HTTP://EXAMPLE.com"), "Example.COM", true),
            (Some("http://example.com:8080"), "example.com:8080", true),
            (Some("http://[::1]:8080"), "[::1]:8080", true),
            (Some("http://[::1]"), "[::1]", true),
            (Some("http://example.com:8080"), "example.com", false),
            (Some("http://example.com"), "example.com:8080", false),
            (Some("https://example.com"), "example.com:80", false),
            (Some("http://other.com"), "example.com", false),
            (Some("http://evil-example.com"), "example.com", false),
            (Some("http://example.com.evil.com"), "example.com", false),
            (Some("http://example.com@evil.com"), "example.com", false),
            (Some("http://evil.com#example.com"), "example.com", false),
            (Some("http://example.com/"), "example.com", false),
            (Some("http://[::2]:8080"), "[::1]:8080", false),
            (Some("null"), "example.com", false),
            (Some("null"), "null", false),
            (Some(""), "", false),
            (Some("example.com"), "example.com", false),
            (Some("http://example.com:"), "example.com", false),
            (Some("http://example.com:99999"), "example.com:99999", false),
            (Some("chrome-extension://abc"), "abc", false),
        ] {
            assert_eq!(Origins::SameHost.allow(origin, host), allowed, "{origin:?} at {host}");
        }
    }

    /// T1, wildcards; CVE-2022-42975 is a wildcard that matched any suffix.
    #[test]
    fn list_matrix() {
        let origins = Origins::list([
            "https://example.com",
            "https://*.other.com",
            "http://localhost:*",
            "plain.org:8000",
            "chrome-extension://abc",
        ]);
        for (origin, allowed) in [
            ("https://example.com", true),
            ("https://EXAMPLE.com:443", true),
            ("https://a.other.com", true),
            ("https://a.b.other.com", true),
            ("http://localhost:3000", true),
            ("http://localhost", true),
            ("https://plain.org:8000", true),
            ("http://plain.org:8000", true),
            ("chrome-extension://abc", true),
            ("http://example.com", false),
            ("https://example.com:8443", false),
            ("https://www.example.com", false),
            ("https://other.com", false),
            ("https://.other.com", false),
            ("https://any-other.com", false),
            ("https://xother.com", false),
            ("https://a.other.com.evil.org", false),
            ("https://a.other.com@evil.org", false),
            ("https://localhost:3000", false),
            ("http://plain.org", false),
            ("null", false),
        ] {
            assert_eq!(origins.allow(Some(origin), "irrelevant"), allowed, "{origin}");
        }
        assert!(Origins::Any.allow(Some("null"), ""));
        assert!(origins.allow(None, ""));
    }
}
