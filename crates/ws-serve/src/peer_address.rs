//! [`PeerAddress`]: where a client is, as far as its transport knows.
//!
//! Not its business: what a proxy in between says about it (`Forwarded` and the like).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Where a client is: at an address, or somewhere on this machine.
///
/// It prints as `192.0.2.1:50000`, or as `unix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// The other end of a TCP connection, with or without TLS.
    Ip(SocketAddr),
    /// A process on this machine, over a Unix socket, which has no address.
    Unix,
}

impl PeerAddress {
    /// The IP address, by which clients can be counted or refused.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// The IP address and the port.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix => None,
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    /// An IPv4 client of a socket for both families is an IPv4 client: `::ffff:192.0.2.1` is written
    /// `192.0.2.1`, so that no list of addresses needs both.
    fn from(mut address: SocketAddr) -> Self {
        // Not assigned to IPv6 addresses as they are, which have a scope to keep.
        if let ip @ IpAddr::V4(_) = address.ip().to_canonical() {
            address.set_ip(ip);
        }
        Self::Ip(address)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.pad("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> PeerAddress {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn an_ipv4_client_of_a_socket_for_both_families_is_an_ipv4_client() {
        assert_eq!(address("[::ffff:192.0.2.1]:80"), address("192.0.2.1:80"));
        assert_eq!(address("[fe80::1%3]:80").to_string(), "[fe80::1%3]:80");
    }

    #[test]
    fn a_unix_client_has_no_address() {
        assert_eq!(PeerAddress::Unix.ip(), None);
        assert_eq!(PeerAddress::Unix.to_string(), "unix");
    }

    #[test]
    fn it_is_no_larger_than_an_address() {
        assert_eq!(size_of::<PeerAddress>(), size_of::<SocketAddr>());
    }
}
