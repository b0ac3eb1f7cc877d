//! [`TrustedProxies`]: which address a request comes from, if proxies in between say so (RFC 7239,
//! and `X-Forwarded-For`, which has no standard).
//!
//! Anybody can send these headers, so one is believed as far as trusted proxies wrote it and no
//! further. Not its business: proxies that speak before HTTP does (`proxy_protocol.rs`).

use std::{iter, net::IpAddr, str};

use ipnet::IpNet;

use crate::http::{HeaderMap, HeaderName, header};

/// The proxies whose word is taken for who the client is. By default nobody's.
///
/// List the proxies' own addresses, not the network that they share with others: whoever is trusted
/// can claim to be anybody.
///
/// ```
/// # use ws_serve::{TrustedProxies, http::HeaderMap};
/// let proxies = TrustedProxies::new(["10.0.0.0/28", "::1"])?;
/// let mut headers = HeaderMap::new();
/// headers.insert("x-forwarded-for", "1.1.1.1, 203.0.113.9".parse().unwrap());
/// let client = proxies.client_ip("10.0.0.1".parse().unwrap(), &headers);
/// assert_eq!(client.to_string(), "203.0.113.9"); // what is left of it may be invented
/// # Ok::<(), ws_serve::InvalidProxy>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// IPv4-mapped ones are written as the IPv4 networks that they are.
    networks: Vec<IpNet>,
    unix: bool,
    header: ForwardingHeader,
}

/// The header in which a proxy tells who its client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`, which nearly all proxies speak.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// An entry of [`TrustedProxies::new`] that is no address, no network and not `unix`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trusted proxy {entry:?}: expected an address, a network like 10.0.0.0/8, or unix")]
pub struct InvalidProxy {
    entry: String,
}

impl TrustedProxies {
    /// Trusts addresses (`::1`), networks (`10.0.0.0/8`), and with `unix` whoever connects through a
    /// Unix socket. An IPv4 address and its IPv4-mapped form (`::ffff:10.0.0.1`) are the same, so
    /// that `::/0` is every IPv6 address and no IPv4 address.
    ///
    /// # Errors
    /// If an entry is none of these; the error names it.
    pub fn new<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Result<Self, InvalidProxy> {
        let mut proxies = Self::default();
        for entry in entries {
            match entry.as_ref() {
                "unix" => proxies.unix = true,
                entry => proxies.networks.push(
                    parse_network(entry).ok_or_else(|| InvalidProxy { entry: entry.to_owned() })?,
                ),
            }
        }
        Ok(proxies)
    }

    /// Which header the proxies set. Default: `X-Forwarded-For`.
    ///
    /// Only this one is read. A proxy overwrites or appends to the header that it knows and passes
    /// the other on as the client sent it, so that reading whichever is there, in any order, would
    /// let the client choose its address.
    #[must_use]
    pub fn header(mut self, header: ForwardingHeader) -> Self {
        self.header = header;
        self
    }

    /// Whether this peer is one of the proxies. Those who are not may send no PROXY header either.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.iter().any(|network| network.contains(&peer))
    }

    /// Whether peers on a Unix socket, which have no address, are proxies.
    #[must_use]
    pub fn trusts_unix(&self) -> bool {
        self.unix
    }

    /// Who sent a request that came from `peer`: the last address that is not a trusted proxy's. An
    /// IPv4-mapped address is returned as IPv4, so that a client has one address and not two.
    #[must_use]
    pub fn client_ip(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let told = if self.trusts(peer) { self.forwarded_ip(headers) } else { None };
        told.unwrap_or_else(|| peer.to_canonical())
    }

    /// The same for a request that came through a Unix socket; `None` if that is not trusted, or
    /// says nothing.
    #[must_use]
    pub fn client_ip_over_unix(&self, headers: &HeaderMap) -> Option<IpAddr> {
        if self.unix { self.forwarded_ip(headers) } else { None }
    }

    /// What the header says, if a trusted proxy sent it.
    fn forwarded_ip(&self, headers: &HeaderMap) -> Option<IpAddr> {
        // Several lines are one list (RFC 9110 §5.3), and the proxy nearest to us wrote its end.
        let lines = |name| headers.get_all(name).iter().rev().map(|line| line.as_bytes());
        match self.header {
            ForwardingHeader::XForwardedFor => self.walk(
                lines(X_FORWARDED_FOR)
                    .flat_map(|line| line.rsplit(|byte| *byte == b','))
                    .map(x_forwarded_for),
            ),
            ForwardingHeader::Forwarded => {
                self.walk(lines(header::FORWARDED).flat_map(elements_from_right).map(forwarded_for))
            }
        }
    }

    /// Goes from the right to the first address that is not trusted. Each proxy vouches only for the
    /// address that it wrote down, which is its neighbour's: left of one that is not trusted, or that
    /// cannot be told (malformed, hidden, empty), anything may be forged. So that is where the walk
    /// ends, at the last address known to be true.
    fn walk(&self, from_right: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut known = None;
        for address in from_right.take(MAX_ELEMENTS) {
            let Some(address) = address else { break };
            known = Some(address.to_canonical());
            if !self.trusts(address) {
                break;
            }
        }
        known
    }
}

/// An address or a network. `ipnet` would read `010.0.0.0/8` as `10.0.0.0/8`, which others take for
/// octal; the standard library refuses it.
fn parse_network(entry: &str) -> Option<IpNet> {
    let Some((address, prefix)) = entry.split_once('/') else {
        return entry.parse().ok().map(|address: IpAddr| address.to_canonical().into());
    };
    let address: IpAddr = address.parse().ok()?;
    let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix: u8 = prefix.parse().ok().filter(|_| digits)?;
    match address.to_canonical() {
        // The last 32 bits of a mapped address are the IPv4 address. A network that holds more than
        // mapped ones stays IPv6.
        v4 @ IpAddr::V4(_) if address.is_ipv6() && prefix >= 96 => IpNet::new(v4, prefix - 96),
        _ => IpNet::new(address, prefix),
    }
    .ok()
}

/// An element of `X-Forwarded-For`: an address, with or without brackets and a port.
///
/// An empty one is no address either. RFC 9110 §5.6.1 has empty elements ignored; here they are
/// where a proxy had nothing to say, and the client's own words may be next.
fn x_forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let node = str::from_utf8(element).ok()?.trim_matches(WHITESPACE);
    node.parse().ok().or_else(|| node_address(node))
}

/// The address in an element of `Forwarded`: its `for` parameter (RFC 7239 §5.2). `None` if there is
/// none, and for `unknown` and obfuscated nodes (§6.2, §6.3), which are no addresses on purpose.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut rest = str::from_utf8(element).ok()?;
    let mut node = None;
    loop {
        // §4 has no space around semicolons; some proxies have.
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return node_address(node?);
        }
        let (name, after) = split_token(rest)?;
        let (value, after) = split_value(after.strip_prefix('=')?)?;
        // §4: no parameter more than once. Of two, the client may have smuggled one in.
        if name.eq_ignore_ascii_case("for") && node.replace(value).is_some() {
            return None;
        }
        rest = after.trim_start_matches(WHITESPACE);
        if !rest.is_empty() && !rest.starts_with(';') {
            return None;
        }
    }
}

/// The elements of a `Forwarded` line, last first.
fn elements_from_right(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    iter::from_fn(move || {
        let line = rest?;
        let Some(comma) = last_comma(line) else { return rest.take() };
        rest = Some(&line[..comma]);
        Some(&line[comma + 1..])
    })
}

/// The last comma outside of quotes. Read backwards, because a client that opens a quote and does
/// not close it would otherwise swallow what the proxies append.
fn last_comma(line: &[u8]) -> Option<usize> {
    let mut quoted = false;
    for (at, byte) in line.iter().enumerate().rev() {
        match byte {
            b',' if !quoted => return Some(at),
            // Inside, a quote behind an odd number of backslashes is a character like others
            // (RFC 9110 §5.6.4).
            b'"' if quoted => {
                let backslashes = line[..at].iter().rev().take_while(|byte| **byte == b'\\');
                quoted = backslashes.count() % 2 == 1;
            }
            b'"' => quoted = true,
            _ => {}
        }
    }
    None
}

/// A token or the inside of a quoted string, and what follows it. Escapes stay as they are: no
/// address needs one.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let Some(text) = text.strip_prefix('"') else { return split_token(text) };
    let mut escaped = false;
    let end = text.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    })?;
    Some((&text[..end], &text[end + 1..]))
}

/// A token (RFC 9110 §5.6.2) and what follows it.
fn split_token(text: &str) -> Option<(&str, &str)> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !legal(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// The address of a node, `192.0.2.1` or `[2001:db8::1]`, with or without a port (RFC 7239 §6).
fn node_address(node: &str) -> Option<IpAddr> {
    let (address, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), port)
        }
        None => {
            let (address, port) = node.split_at(node.find(':').unwrap_or(node.len()));
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(address)
}

/// Whether this is a port, given in digits or obfuscated (RFC 7239 §6).
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !name.is_empty() && name.bytes().all(legal)
        }
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Chosen: far longer than any chain of proxies, and next to no work.
const MAX_ELEMENTS: usize = 64;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Optional whitespace (RFC 9110 §5.6.3).
const WHITESPACE: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::HeaderValue;

    const PEER: &str = "10.0.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7", "unix"]).unwrap()
    }

    fn headers(name: &HeaderName, lines: &[&[u8]]) -> HeaderMap {
        let value = |line: &&[u8]| (name.clone(), HeaderValue::from_bytes(line).unwrap());
        lines.iter().map(value).collect()
    }

    /// The outcome for the usual proxies and a trusted peer.
    fn from_x_forwarded_for(lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        proxies().client_ip(ip(PEER), &headers(&X_FORWARDED_FOR, &lines)).to_string()
    }

    fn from_forwarded(lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        let proxies = proxies().header(ForwardingHeader::Forwarded);
        proxies.client_ip(ip(PEER), &headers(&header::FORWARDED, &lines)).to_string()
    }

    #[test]
    fn x_forwarded_for_matrix() {
        for (lines, client) in [
            (&[][..], PEER),
            (&["203.0.113.9"], "203.0.113.9"),
            // Left of the first that is not trusted, anything may be forged.
            (&["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            (&["10.0.0.5, 203.0.113.9"], "203.0.113.9"),
            (&["1.1.1.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            (&["203.0.113.9, 192.0.2.7,10.0.0.2"], "203.0.113.9"),
            (&["203.0.113.9, 192.0.2.8, 10.0.0.2"], "192.0.2.8"),
            // All of them are trusted: the first, which is the farthest known.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Lines are one list.
            (&["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            (&["1.1.1.1, 203.0.113.9", "10.0.0.3", "10.0.0.2"], "203.0.113.9"),
            // Ports, brackets, space.
            (&["203.0.113.9:1234"], "203.0.113.9"),
            (&["\t 203.0.113.9 \t"], "203.0.113.9"),
            (&["2001:db8::9"], "2001:db8::9"),
            (&["[2001:db8::9]"], "2001:db8::9"),
            (&["[2001:DB8::9]:1234, [2001:db8:1::2]:80"], "2001:db8::9"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
            (&["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9"),
            (&["203.0.113.9, [::ffff:a00:2]:80"], "203.0.113.9"),
            // What is no address ends the walk.
            (&[""], PEER),
            (&["203.0.113.9,"], PEER),
            (&["203.0.113.9, , 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.9", "", "10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.9, unknown"], PEER),
            (&["203.0.113.9, unix:, 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.9, _hidden, 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.9, example.com"], PEER),
            (&["203.0.113.9 1.1.1.1"], PEER),
            (&["203.0.113.9:"], PEER),
            (&["203.0.113.9:+80"], PEER),
            (&["203.0.113.9:123456"], PEER),
            (&["203.0.113.009"], PEER),
            (&["203.0.113"], PEER),
            (&["3405803785"], PEER),
            (&["203.0.113.9/32"], PEER),
            (&["2001:db8::9%eth0"], PEER),
            (&["[2001:db8::9"], PEER),
            (&["2001:db8::9]"], PEER),
            (&["[2001:db8::9]80"], PEER),
            (&["[203.0.113.9]"], PEER),
            (&["\"203.0.113.9\""], PEER),
            (&["for=203.0.113.9"], PEER),
        ] {
            assert_eq!(from_x_forwarded_for(lines), client, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_matrix() {
        for (lines, client) in [
            (&[][..], PEER),
            // The examples of RFC 7239 §4, §7.1.
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
            (&["for=192.0.2.43, for=\"[2001:db8:cafe::17]\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.43,for=\"[2001:db8:cafe::17]\"", "for=10.0.0.2"], "2001:db8:cafe::17"),
            (&["for=_gazonk"], PEER),
            (&["for=\"_gazonk\""], PEER),
            (&["for=unknown"], PEER),
            (&["for=\"203.0.113.9:4711\""], "203.0.113.9"),
            (&["for=\"203.0.113.9:_obf-us.c_ated\""], "203.0.113.9"),
            // Left of the first that is not trusted, anything may be forged.
            (&["for=1.1.1.1, for=203.0.113.9, for=10.0.0.2;by=10.0.0.1"], "203.0.113.9"),
            (&["for=10.0.0.9, for=203.0.113.9"], "203.0.113.9"),
            (&["for=10.0.0.3, for=10.0.0.2"], "10.0.0.3"),
            (&["for=203.0.113.9, for=\"[::ffff:10.0.0.2]\""], "203.0.113.9"),
            // A hidden node hides those in front of it.
            (&["for=203.0.113.9, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=203.0.113.9, for=unknown"], PEER),
            (&["for=203.0.113.9, by=10.0.0.1"], PEER),
            // Quotes: separators inside, escapes, and quotes that a client leaves open.
            (&["for=203.0.113.9;host=\"a,for=1.1.1.1\""], "203.0.113.9"),
            (&["for=203.0.113.9;host=\"a;for=1.1.1.1\""], "203.0.113.9"),
            (&["host=\"a\\\",for=1.1.1.1;\\\\\";for=203.0.113.9"], "203.0.113.9"),
            (&["host=\"b,for=1.1.1.1;\\\\\\\"\";for=203.0.113.9"], "203.0.113.9"),
            (&["for=\"1.1.1.1, for=203.0.113.9"], "203.0.113.9"),
            (&["for=\"1.1.1.1", "for=203.0.113.9"], "203.0.113.9"),
            (&["for=\"1.1.1.1, for=\"[2001:db8::9]\""], "2001:db8::9"),
            (&["for=\"1.1.1.1\\, for=\"[2001:db8::9]\";host=\"\\\"\""], "2001:db8::9"),
            (&["for=\"203.0.113.\\9\""], PEER),
            (&["for=\"203.0.113.9"], PEER),
            (&["for=203.0.113.9\""], PEER),
            // Leniency that changes no meaning.
            (&["\t for=203.0.113.9 ; proto=https; "], "203.0.113.9"),
            (&[";;for=203.0.113.9;;"], "203.0.113.9"),
            // The rest of the grammar.
            (&["for=203.0.113.9;for=1.1.1.1"], PEER),
            (&["for=203.0.113.9;FOR=203.0.113.9"], PEER),
            (&["for=203.0.113.9:4711"], PEER),
            (&["for=[2001:db8::9]"], PEER),
            (&["for=\"2001:db8::9\""], PEER),
            (&["for= 203.0.113.9"], PEER),
            (&["for =203.0.113.9"], PEER),
            (&["for=203.0.113.9 1.1.1.1"], PEER),
            (&["for=203.0.113.9;proto"], PEER),
            (&["for=203.0.113.9;=x"], PEER),
            (&["for=203.0.113.9;host=\"x\"y"], PEER),
            (&["for="], PEER),
            (&["for"], PEER),
            (&["203.0.113.9"], PEER),
            (&["for=203.0.113.9,"], PEER),
            (&["for=203.0.113.9, , for=10.0.0.2"], "10.0.0.2"),
            (&[""], PEER),
        ] {
            assert_eq!(from_forwarded(lines), client, "{lines:?}");
        }
    }

    /// T8: headers count only from trusted peers, and only the header that the proxies set.
    #[test]
    fn spoofing_matrix() {
        use ForwardingHeader::{Forwarded, XForwardedFor};
        let mut both = headers(&X_FORWARDED_FOR, &[b"1.1.1.1"]);
        both.extend(headers(&header::FORWARDED, &[b"for=2.2.2.2"]));
        for (peer, header, client) in [
            (PEER, XForwardedFor, "1.1.1.1"),
            (PEER, Forwarded, "2.2.2.2"),
            ("::ffff:10.0.0.1", XForwardedFor, "1.1.1.1"),
            ("::ffff:10.0.0.1", Forwarded, "2.2.2.2"),
            ("2001:db8:1::5", XForwardedFor, "1.1.1.1"),
            ("2001:db8:1::5", Forwarded, "2.2.2.2"),
            ("203.0.113.9", XForwardedFor, "203.0.113.9"),
            ("203.0.113.9", Forwarded, "203.0.113.9"),
            ("::ffff:203.0.113.9", XForwardedFor, "203.0.113.9"),
            ("::ffff:203.0.113.9", Forwarded, "203.0.113.9"),
            ("2001:db8:2::5", XForwardedFor, "2001:db8:2::5"),
            ("2001:db8:2::5", Forwarded, "2001:db8:2::5"),
        ] {
            let proxies = proxies().header(header);
            assert_eq!(proxies.client_ip(ip(peer), &both), ip(client), "{peer} {header:?}");
            let nobody = TrustedProxies::default().header(header);
            assert_eq!(nobody.client_ip(ip(peer), &both), ip(peer).to_canonical());
        }
        // The other header alone says nothing.
        let x_forwarded_for = headers(&X_FORWARDED_FOR, &[b"1.1.1.1"]);
        assert_eq!(proxies().header(Forwarded).client_ip(ip(PEER), &x_forwarded_for), ip(PEER));
        let forwarded = headers(&header::FORWARDED, &[b"for=2.2.2.2"]);
        assert_eq!(proxies().client_ip(ip(PEER), &forwarded), ip(PEER));
    }

    #[test]
    fn unix_sockets_are_trusted_by_name() {
        let told = headers(&X_FORWARDED_FOR, &[b"1.1.1.1, 203.0.113.9, 10.0.0.2"]);
        assert_eq!(proxies().client_ip_over_unix(&told), Some(ip("203.0.113.9")));
        assert_eq!(proxies().client_ip_over_unix(&HeaderMap::new()), None);
        let others = TrustedProxies::new(["0.0.0.0/0", "::/0"]).unwrap();
        assert_eq!(others.client_ip_over_unix(&told), None);
        assert!(proxies().trusts_unix() && !others.trusts_unix());
    }

    #[test]
    fn networks_matrix() {
        for (entry, peer, trusted) in [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3/8", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "::10.0.0.1", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("::ffff:10.0.0.0/104", "::ffff:10.9.9.9", true),
            ("::ffff:10.0.0.0/104", "11.0.0.1", false),
            ("::ffff:0:0/96", "203.0.113.9", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "203.0.113.9", false),
            ("::1", "::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
        ] {
            let proxies = TrustedProxies::new([entry]).unwrap();
            assert_eq!(proxies.trusts(ip(peer)), trusted, "{peer} in {entry}");
        }
    }

    #[test]
    fn bad_entries_are_named() {
        for entry in [
            "",
            " ",
            "Unix",
            "localhost",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "/8",
            "10.0.0/8",
            "010.0.0.0/8",
            "010.0.0.1",
            "10.0.0.1:80",
            "[::1]",
            "::1/129",
            "::ffff:10.0.0.0/129",
            "10.0.0.0/255.0.0.0",
            "10.0.0.1 ",
            "10.0.0.0/8,::1",
        ] {
            let error = TrustedProxies::new(["::1", entry]).unwrap_err();
            assert!(error.to_string().contains(&format!("{entry:?}")), "{error}");
        }
    }

    #[test]
    fn work_is_bounded() {
        let hops = |count| vec!["10.0.0.2"; count].join(",");
        let client = |count| from_x_forwarded_for(&[&format!("203.0.113.9,{}", hops(count))]);
        assert_eq!(client(MAX_ELEMENTS - 1), "203.0.113.9");
        assert_eq!(client(MAX_ELEMENTS), "10.0.0.2");
        let lines = vec!["for=10.0.0.2"; MAX_ELEMENTS];
        assert_eq!(from_forwarded(&[&["for=203.0.113.9"], &lines[1..]].concat()), "203.0.113.9");
        assert_eq!(from_forwarded(&[&["for=203.0.113.9"], &lines[..]].concat()), "10.0.0.2");
    }

    /// Header values, made of what the grammar is made of more often than of anything else.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"\"".to_vec()),
            Just(b"\\".to_vec()),
            Just(b",".to_vec()),
            Just(b";".to_vec()),
            Just(b"for=".to_vec()),
            Just(b"10.0.0.2".to_vec()),
            Just(b"[2001:db8::9]:1".to_vec()),
            any::<Vec<u8>>(),
        ];
        proptest::collection::vec(part, 0..12).prop_map(|parts| {
            let legal = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7F);
            parts.concat().into_iter().filter(legal).collect()
        })
    }

    proptest! {
        /// Whatever a client sends, what a proxy appends to it decides.
        #[test]
        fn appended_address_is_the_answer(
            forged in line(),
            ours in any::<IpAddr>(),
            bracketed in any::<bool>(),
            same_line in any::<bool>(),
        ) {
            let ours = ours.to_canonical();
            prop_assume!(!proxies().trusts(ours));
            let node = match ours {
                IpAddr::V6(v6) if bracketed => format!("[{v6}]:80"),
                address => address.to_string(),
            };
            let forwarded = match ours {
                IpAddr::V6(v6) => format!("for=\"[{v6}]:80\";proto=https;host=\"a\\\",b\""),
                IpAddr::V4(v4) => format!("for={v4};proto=https"),
            };
            for (name, header, told) in [
                (X_FORWARDED_FOR, ForwardingHeader::XForwardedFor, node),
                (header::FORWARDED, ForwardingHeader::Forwarded, forwarded),
            ] {
                let appended = [&forged[..], b", ", told.as_bytes()].concat();
                let headers = if same_line {
                    headers(&name, &[&appended])
                } else {
                    headers(&name, &[&forged, told.as_bytes()])
                };
                prop_assert_eq!(proxies().header(header).client_ip(ip(PEER), &headers), ours);
            }
        }

        #[test]
        fn any_lines_from_the_untrusted_change_nothing(lines in proptest::collection::vec(line(), 0..4)) {
            let lines: Vec<_> = lines.iter().map(Vec::as_slice).collect();
            for (name, header) in [
                (X_FORWARDED_FOR, ForwardingHeader::XForwardedFor),
                (header::FORWARDED, ForwardingHeader::Forwarded),
            ] {
                let (proxies, headers) = (proxies().header(header), headers(&name, &lines));
                let client = ip("203.0.113.9");
                prop_assert_eq!(proxies.client_ip(client, &headers), client);
                // From the trusted: no panic.
                let _ = proxies.client_ip(ip(PEER), &headers);
            }
        }
    }
}
