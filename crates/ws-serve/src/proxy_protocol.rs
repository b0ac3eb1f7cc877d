//! [`decode`]: the PROXY protocol, versions 1 and 2, by which a proxy that relays TCP tells the
//! client's address before the first byte of the client (HAProxy's `proxy-protocol.txt`, whose
//! sections are cited).
//!
//! Not its business: whether to expect a header. That is configuration and never a guess: whoever
//! may choose to send one chooses its address (section 2).
//!
//! Written here because no crate is strict and incremental at once. As of ppp 2.3.0, proxy-header
//! 0.1.3 and proxy-protocol 0.5.0: all read a port `+80`; ppp waits for ever behind some lines that
//! are whole, proxy-header takes any byte for the space after `PROXY` and wants bytes beyond the
//! announced length, proxy-protocol panics on a line cut off in its CRLF.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::{self, FromStr},
};

/// What [`decode`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The beginning of a header. Call again with these bytes and more.
    Incomplete,
    /// A header.
    Done {
        /// The client, as it appears to the proxy. `None` if the proxy does not tell (`UNKNOWN`,
        /// `LOCAL`, a Unix socket): the connection is its own, or all there is to know.
        source: Option<SocketAddr>,
        /// What the client connected to; there whenever the source is.
        destination: Option<SocketAddr>,
        /// How many bytes the header takes. The client's own follow.
        length: usize,
    },
}

/// Why a connection does not begin with a PROXY header. All that can be done is to drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The first bytes are those of neither version.
    #[error("expected a PROXY protocol header")]
    NotAHeader,

    // Version 1.
    /// A protocol other than `TCP4`, `TCP6` and `UNKNOWN`.
    #[error("unsupported protocol in a PROXY line")]
    UnsupportedProtocol,
    /// Not an address of the protocol's family in its canonical form, or not one space around it.
    #[error("invalid address in a PROXY line")]
    InvalidAddress,
    /// Not a number from 0 to 65535 without leading zeros, or not the right byte behind it.
    #[error("invalid port in a PROXY line")]
    InvalidPort,
    /// CR or LF alone, or something else where CRLF must be.
    #[error("PROXY line does not end in CRLF")]
    InvalidLineEnd,
    /// No CRLF where the longest line has ended.
    #[error("PROXY line exceeds {MAX_LINE} bytes")]
    LineTooLong,

    // Version 2.
    /// The signature is right, the version is not.
    #[error("PROXY protocol version {0}; expected 2")]
    UnsupportedVersion(u8),
    /// Neither `LOCAL` nor `PROXY`.
    #[error("unknown PROXY command {0}")]
    UnknownCommand(u8),
    /// An address family that has no meaning.
    #[error("unknown PROXY address family {0}")]
    UnknownFamily(u8),
    /// A transport protocol that has no meaning.
    #[error("unknown PROXY transport protocol {0}")]
    UnknownTransport(u8),
    /// The header announces fewer bytes than its addresses take.
    #[error("PROXY header announces {announced} bytes; its addresses take {needed}")]
    AddressesTooShort {
        /// The length field.
        announced: usize,
        /// The size of two addresses of the family.
        needed: usize,
    },
    /// Larger than [`MAX_HEADER`].
    #[error("PROXY header of {0} bytes exceeds {MAX_HEADER}")]
    HeaderTooLong(usize),
}

/// The largest header that is accepted, in bytes; [`Decoded::Incomplete`] is said of fewer. Chosen:
/// addresses take at most 232, and the rest is room for what proxies add about TLS, their names and
/// clouds. The specification allows 64 KiB, and expects 536 bytes.
pub const MAX_HEADER: usize = 4096;

/// Reads a header of either version off the beginning of `input`.
///
/// What has been decided does not change with more bytes. Constants and lengths are judged byte by
/// byte, an address or a port when it ends. Additions behind the addresses (TLVs) are skipped, their
/// checksum too. An IPv4-mapped address is returned as it came.
///
/// # Errors
/// If no bytes can make a header out of these.
pub fn decode(input: &[u8]) -> Result<Decoded, ProxyError> {
    let is_line = input.starts_with(b"P");
    let limit = if is_line { MAX_LINE } else { MAX_HEADER };
    let window = input.get(..limit).unwrap_or(input);
    let mut reader = Reader { rest: window };
    let addresses = if is_line { reader.version_1() } else { reader.version_2() };
    match addresses {
        Ok(addresses) => {
            let (source, destination) = addresses.unzip();
            Ok(Decoded::Done { source, destination, length: window.len() - reader.rest.len() })
        }
        Err(Stop::Incomplete) if is_line && window.len() == limit => Err(ProxyError::LineTooLong),
        Err(Stop::Incomplete) => Ok(Decoded::Incomplete),
        Err(Stop::Invalid(error)) => Err(error),
    }
}

/// Source and destination.
type Addresses = (SocketAddr, SocketAddr);

/// Why reading ends early.
enum Stop {
    Incomplete,
    Invalid(ProxyError),
}

impl From<ProxyError> for Stop {
    fn from(error: ProxyError) -> Self {
        Self::Invalid(error)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The line of text (section 2.1).
    fn version_1(&mut self) -> Result<Option<Addresses>, Stop> {
        self.expect(b"PROXY ", ProxyError::NotAHeader)?;
        if self.rest.starts_with(b"U") {
            self.expect(b"UNKNOWN", ProxyError::UnsupportedProtocol)?;
            self.skip_line()?;
            return Ok(None);
        }
        self.expect(b"TCP", ProxyError::UnsupportedProtocol)?;
        let addresses = match self.take()? {
            b"4" => self.line_addresses::<Ipv4Addr>(b"0123456789.", 15),
            // The dot is in IPv4-mapped addresses as systems print them, HAProxy's too.
            b"6" => self.line_addresses::<Ipv6Addr>(b"0123456789abcdefABCDEF:.", 39),
            _ => Err(ProxyError::UnsupportedProtocol.into()),
        };
        addresses.map(Some)
    }

    /// The rest of a line that says nothing. A CR or LF alone must not end it, so neither is in it.
    fn skip_line(&mut self) -> Result<(), Stop> {
        if self.rest.starts_with(b" ") {
            let end = self.rest.iter().position(|byte| b"\r\n".contains(byte));
            self.rest = &self.rest[end.unwrap_or(self.rest.len())..];
        }
        self.expect(b"\r\n", ProxyError::InvalidLineEnd)
    }

    fn line_addresses<A: FromStr + Into<IpAddr>>(
        &mut self,
        alphabet: &[u8],
        max_length: usize,
    ) -> Result<Addresses, Stop> {
        self.expect(b" ", ProxyError::UnsupportedProtocol)?;
        let mut address = || {
            let text = self.field(b' ', alphabet, max_length, ProxyError::InvalidAddress)?;
            // The standard library's grammar is the specification's: no leading zeros in IPv4, no
            // zone in IPv6.
            text.parse::<A>().map_err(|_| Stop::from(ProxyError::InvalidAddress))
        };
        let (source, destination) = (address()?, address()?);
        let source = SocketAddr::new(source.into(), self.port(b' ')?);
        let destination = SocketAddr::new(destination.into(), self.port(b'\r')?);
        self.expect(b"\n", ProxyError::InvalidLineEnd)?;
        Ok((source, destination))
    }

    fn port(&mut self, delimiter: u8) -> Result<u16, Stop> {
        let text = self.field(delimiter, b"0123456789", 5, ProxyError::InvalidPort)?;
        // Leading zeros could be meant as octal.
        let canonical = text == "0" || !text.starts_with('0');
        Ok(text.parse().ok().filter(|_| canonical).ok_or(ProxyError::InvalidPort)?)
    }

    /// The text before a delimiter, which is taken too.
    fn field(
        &mut self,
        delimiter: u8,
        alphabet: &[u8],
        max_length: usize,
        error: ProxyError,
    ) -> Result<&'a str, Stop> {
        let rest = self.rest;
        let end = rest.iter().position(|byte| !alphabet.contains(byte)).unwrap_or(rest.len());
        let (text, rest) = rest.split_at(end);
        if end > max_length || rest.first().is_some_and(|byte| *byte != delimiter) {
            return Err(error.into());
        }
        let Some((_, rest)) = rest.split_first() else { return Err(Stop::Incomplete) };
        self.rest = rest;
        str::from_utf8(text).map_err(|_| error.into())
    }

    /// The binary header (section 2.2).
    fn version_2(&mut self) -> Result<Option<Addresses>, Stop> {
        self.expect(SIGNATURE, ProxyError::NotAHeader)?;
        let [version_and_command] = *self.take()?;
        if version_and_command >> 4 != 2 {
            return Err(ProxyError::UnsupportedVersion(version_and_command >> 4).into());
        }
        let command = version_and_command & 0xF;
        if command > PROXY {
            return Err(ProxyError::UnknownCommand(command).into());
        }
        let [family_and_transport] = *self.take()?;
        let (family, transport) = match command {
            // Whatever family comes with LOCAL is ignored, even one that does not exist.
            LOCAL => (UNSPEC, UNSPEC),
            _ => (family_and_transport >> 4, family_and_transport & 0xF),
        };
        if family > UNIX {
            return Err(ProxyError::UnknownFamily(family).into());
        }
        if transport > DATAGRAM {
            return Err(ProxyError::UnknownTransport(transport).into());
        }
        // Addresses of which one half is unspecified are to be ignored, whatever they are.
        let family = if transport == UNSPEC { UNSPEC } else { family };
        let needed = match family {
            INET => 2 * (4 + 2),
            INET6 => 2 * (16 + 2),
            UNIX => 2 * 108,
            _ => 0,
        };
        let announced = usize::from(u16::from_be_bytes(*self.take()?));
        if SIGNATURE.len() + 4 + announced > MAX_HEADER {
            return Err(ProxyError::HeaderTooLong(SIGNATURE.len() + 4 + announced).into());
        }
        if announced < needed {
            return Err(ProxyError::AddressesTooShort { announced, needed }.into());
        }
        let (body, rest) = self.rest.split_at_checked(announced).ok_or(Stop::Incomplete)?;
        self.rest = rest;
        let mut body = Reader { rest: body };
        match family {
            INET => body.binary_addresses::<4, Ipv4Addr>().map(Some),
            INET6 => body.binary_addresses::<16, Ipv6Addr>().map(Some),
            _ => Ok(None),
        }
    }

    fn binary_addresses<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(
        &mut self,
    ) -> Result<Addresses, Stop> {
        let (source, destination) = (A::from(*self.take()?), A::from(*self.take()?));
        let mut port = || self.take().map(|bytes| u16::from_be_bytes(*bytes));
        let (source_port, destination_port) = (port()?, port()?);
        Ok((
            SocketAddr::new(source.into(), source_port),
            SocketAddr::new(destination.into(), destination_port),
        ))
    }

    /// Takes what must be here; the first byte that differs is an error, even if more are missing.
    fn expect(&mut self, expected: &[u8], error: ProxyError) -> Result<(), Stop> {
        if let Some(rest) = self.rest.strip_prefix(expected) {
            self.rest = rest;
            return Ok(());
        }
        let may_follow = expected.starts_with(self.rest);
        Err(if may_follow { Stop::Incomplete } else { error.into() })
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], Stop> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Stop::Incomplete)?;
        self.rest = rest;
        Ok(bytes)
    }
}

/// The longest line of version 1 with its CRLF, `UNKNOWN` with two full IPv6 addresses (section 2.1).
const MAX_LINE: usize = 107;

/// No text begins like this, nor does TLS (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

// Commands, address families and transport protocols (section 2.2).
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const UNSPEC: u8 = 0;
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const DATAGRAM: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
        let byte =
            |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// A header of version 2: what follows the signature, in hex.
    fn binary(text: &str) -> Vec<u8> {
        [SIGNATURE, &hex(text)].concat()
    }

    fn done(addresses: Option<(&str, &str)>, length: usize) -> Decoded {
        let (source, destination) =
            addresses.map(|(one, other)| (one.parse().unwrap(), other.parse().unwrap())).unzip();
        Decoded::Done { source, destination, length }
    }

    /// Decodes every beginning of the input, as it comes byte by byte: nothing is decided twice, and
    /// what follows a header makes no difference. Returns the outcome and how many bytes it took.
    fn decode_bytewise(input: &[u8]) -> (Result<Decoded, ProxyError>, usize) {
        let whole = decode(input);
        for end in 0..=input.len() {
            let outcome = decode(&input[..end]);
            if outcome == Ok(Decoded::Incomplete) {
                assert!(end < MAX_HEADER);
                continue;
            }
            assert_eq!(outcome, whole, "at {end} of {}", input.escape_ascii());
            if let Ok(Decoded::Done { length, .. }) = outcome {
                assert_eq!(length, end, "at the last byte and not later");
            }
            return (outcome, end);
        }
        assert_eq!(whole, Ok(Decoded::Incomplete));
        (whole, input.len())
    }

    fn assert_decodes(header: &[u8], addresses: Option<(&str, &str)>) {
        let expected = Ok(done(addresses, header.len()));
        assert_eq!(decode_bytewise(header).0, expected, "{}", header.escape_ascii());
        let with_request = [header, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(decode_bytewise(&with_request), (expected, header.len()));
    }

    /// Fails with this error, and as soon as so many bytes are there.
    fn assert_fails(input: &[u8], error: ProxyError, at: usize) {
        assert_eq!(decode_bytewise(input), (Err(error), at), "{}", input.escape_ascii());
    }

    /// Section 2.1, with its examples.
    #[test]
    fn lines() {
        let example =
            hex("50524F58592054435034203139322E3136382E302E31203139322E3136382E302E3131 \
                           20353633323420343433 0D0A");
        assert_decodes(&example, Some(("192.168.0.1:56324", "192.168.0.11:443")));
        let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest_6 = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
        let longest = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
        assert_eq!((longest_6.len(), longest.len()), (104, MAX_LINE));
        let address = format!("[{full}]:65535");
        assert_decodes(longest_6.as_bytes(), Some((&address, &address)));
        assert_decodes(longest.as_bytes(), None);
        for (line, addresses) in [
            (
                "TCP4 255.255.255.255 255.255.255.255 65535 65535",
                Some(("255.255.255.255:65535", "255.255.255.255:65535")),
            ),
            ("TCP4 0.0.0.0 0.0.0.0 0 0", Some(("0.0.0.0:0", "0.0.0.0:0"))),
            ("TCP6 2001:DB8::1 ::1 1 443", Some(("[2001:db8::1]:1", "[::1]:443"))),
            ("TCP6 :: 0:0:0:0:0:0:0:1 1 2", Some(("[::]:1", "[::1]:2"))),
            (
                "TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2",
                Some(("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2")),
            ),
            ("UNKNOWN", None),
            ("UNKNOWN ", None),
            ("UNKNOWN any thing  at all \0\u{e9}, even TCP4 1.2.3.4 1 2", None),
        ] {
            assert_decodes(format!("PROXY {line}\r\n").as_bytes(), addresses);
        }
    }

    #[test]
    fn malformed_lines() {
        use ProxyError::*;
        // The error, and the byte at which it is one.
        for (line, error, at) in [
            ("GET / HTTP/1.1\r\n", NotAHeader, 1),
            ("PUT / HTTP/1.1\r\n", NotAHeader, 2),
            ("proxy TCP4", NotAHeader, 1),
            ("PROXY\tTCP4", NotAHeader, 6),
            ("PROXY  TCP4", UnsupportedProtocol, 7),
            ("PROXY tcp4", UnsupportedProtocol, 7),
            ("PROXY UDP4", UnsupportedProtocol, 8),
            ("PROXY TCP5", UnsupportedProtocol, 10),
            ("PROXY TCP4\r\n", UnsupportedProtocol, 11),
            ("PROXY TCP44", UnsupportedProtocol, 11),
            ("PROXY TCP4  1.2.3.4", InvalidAddress, 12),
            ("PROXY TCP4 1.2.3.4  ", InvalidAddress, 20),
            ("PROXY TCP4 1.2.3.4\t", InvalidAddress, 19),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", InvalidAddress, 12),
            ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", InvalidAddress, 19),
            ("PROXY TCP4 1.2.3.256 ", InvalidAddress, 21),
            ("PROXY TCP4 1.2.3.04 ", InvalidAddress, 20),
            ("PROXY TCP4 1.2.3 ", InvalidAddress, 17),
            ("PROXY TCP4 1.2.3.4.5 ", InvalidAddress, 21),
            ("PROXY TCP4 16909060 ", InvalidAddress, 20),
            ("PROXY TCP4 1111111111111111", InvalidAddress, 27),
            ("PROXY TCP6 1::2::3 ", InvalidAddress, 19),
            ("PROXY TCP6 1:2:3:4:5:6:7 ", InvalidAddress, 25),
            ("PROXY TCP6 1:2:3:4:5:6:7:8:9 ", InvalidAddress, 29),
            ("PROXY TCP6 00001::1 ", InvalidAddress, 20),
            ("PROXY TCP6 [::1] ", InvalidAddress, 12),
            ("PROXY TCP6 fe80::1%eth0 ", InvalidAddress, 19),
            ("PROXY TCP6 ::g", InvalidAddress, 14),
            ("PROXY TCP4 1.2.3.4 5.6.7.8\r\n", InvalidAddress, 27),
            ("PROXY TCP4 1.2.3.4 5.6.7.8  ", InvalidPort, 28),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 080 ", InvalidPort, 31),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 00 ", InvalidPort, 30),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 +80 ", InvalidPort, 28),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 -1 ", InvalidPort, 28),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 65536 ", InvalidPort, 33),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 111111", InvalidPort, 33),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", InvalidPort, 29),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n", InvalidPort, 30),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", InvalidPort, 31),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", InvalidPort, 31),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n", InvalidLineEnd, 32),
            ("PROXY UNKNOWN\n", InvalidLineEnd, 14),
            ("PROXY UNKNOWN\rx", InvalidLineEnd, 15),
            ("PROXY UNKNOWNx\r\n", InvalidLineEnd, 14),
            ("PROXY UNKNOWN x\n\r\n", InvalidLineEnd, 16),
            ("PROXY UNKNOWN x\ry\r\n", InvalidLineEnd, 17),
        ] {
            assert_fails(line.as_bytes(), error, at);
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE));
        assert_fails(long.as_bytes(), LineTooLong, MAX_LINE);
        // One byte more than the longest: its LF comes too late.
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 15));
        assert_fails(long.as_bytes(), LineTooLong, MAX_LINE);
    }

    /// Section 2.2.
    #[test]
    fn binary_headers() {
        let inet = "C0A80001 C0A8000B DC04 01BB";
        let inet6 = "20010DB8000000000000000000000001 00000000000000000000FFFFC0000201 0001 01BB";
        let addresses = Some(("192.168.0.1:56324", "192.168.0.11:443"));
        let addresses_6 = Some(("[2001:db8::1]:1", "[::ffff:192.0.2.1]:443"));
        // PP2_TYPE_ALPN http/1.1, and one that runs out of the header, which is nobody's loss.
        let tlvs = "01 0008 687474702F312E31 E0 FFFF 00";
        let unix = "00".repeat(216);
        for (header, addresses) in [
            (format!("21 11 000C {inet}"), addresses),
            (format!("21 12 000C {inet}"), addresses),
            (format!("21 11 001B {inet} {tlvs}"), addresses),
            (format!("21 21 0024 {inet6}"), addresses_6),
            (format!("21 22 0024 {inet6}"), addresses_6),
            (format!("21 21 0033 {inet6} {tlvs}"), addresses_6),
            (format!("21 31 00D8 {unix}"), None),
            (format!("21 32 00E7 {unix} {tlvs}"), None),
            ("21 00 0000".to_owned(), None),
            (format!("21 00 000C {inet}"), None),
            (format!("21 01 000C {inet}"), None),
            (format!("21 10 000C {inet}"), None),
            ("21 20 0000".to_owned(), None),
            ("20 00 0000".to_owned(), None),
            (format!("20 11 000C {inet}"), None),
            ("20 11 0000".to_owned(), None),
            ("20 FF 0001 00".to_owned(), None),
            (format!("21 11 0FF0 {inet} {}", "00".repeat(MAX_HEADER - 28)), addresses),
        ] {
            assert_decodes(&binary(&header), addresses);
        }
    }

    #[test]
    fn malformed_binary_headers() {
        use ProxyError::*;
        for (header, error, at) in [
            ("11", UnsupportedVersion(1), 13),
            ("01", UnsupportedVersion(0), 13),
            ("31", UnsupportedVersion(3), 13),
            ("22", UnknownCommand(2), 13),
            ("2F", UnknownCommand(15), 13),
            ("2141", UnknownFamily(4), 14),
            ("21F0", UnknownFamily(15), 14),
            ("2113", UnknownTransport(3), 14),
            ("210F", UnknownTransport(15), 14),
            ("2111000B", AddressesTooShort { announced: 11, needed: 12 }, 16),
            ("2122000C", AddressesTooShort { announced: 12, needed: 36 }, 16),
            ("213100D7", AddressesTooShort { announced: 215, needed: 216 }, 16),
            ("21110FF1", HeaderTooLong(4097), 16),
            ("2000FFFF", HeaderTooLong(65551), 16),
        ] {
            assert_fails(&[binary(header), vec![0; 300]].concat(), error, at);
        }
        for wrong in 0..SIGNATURE.len() {
            let mut header = binary("20 00 0000");
            header[wrong] ^= 1;
            assert_fails(&header, NotAHeader, wrong + 1);
        }
        // A TLS ClientHello.
        assert_fails(&hex("16 0301 0200"), NotAHeader, 1);
    }

    /// Bytes that come further than random ones do.
    fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
        let beginning = prop_oneof![
            Just(vec![]),
            Just(b"PROXY ".to_vec()),
            Just(b"PROXY UNKNOWN ".to_vec()),
            Just(b"PROXY TCP4 1.2.3.4 5.6.7.8 ".to_vec()),
            Just(SIGNATURE.to_vec()),
            (0x20..0x22u8, any::<u8>(), 0..2u8, any::<u8>()).prop_map(|(a, b, c, d)| [
                SIGNATURE,
                &[a, b, c, d]
            ]
            .concat()),
        ];
        let text = "[ 0-9a-f.:]{0,60}\r\n";
        let end = prop_oneof![any::<Vec<u8>>(), text.prop_map(String::into_bytes)];
        (beginning, end).prop_map(|(beginning, end)| [beginning, end].concat())
    }

    proptest! {
        #[test]
        fn any_bytes_are_decided_once(input in nearly_a_header()) {
            let _ = decode_bytewise(&input);
        }

        #[test]
        fn any_addresses_come_through(
            v6 in any::<bool>(),
            one in any::<(Ipv4Addr, Ipv6Addr, u16)>(),
            other in any::<(Ipv4Addr, Ipv6Addr, u16)>(),
            tlvs in any::<Vec<u8>>(),
        ) {
            let pick = |(v4, v6_address, port): (Ipv4Addr, Ipv6Addr, u16)| match v6 {
                true => (SocketAddr::new(v6_address.into(), port), v6_address.octets().to_vec()),
                false => (SocketAddr::new(v4.into(), port), v4.octets().to_vec()),
            };
            let ((source, source_octets), (destination, destination_octets)) = (pick(one), pick(other));
            let line = format!(
                "PROXY TCP{} {} {} {} {}\r\n",
                if v6 { 6 } else { 4 }, source.ip(), destination.ip(), source.port(), destination.port(),
            );
            let length = 2 * source_octets.len() + 4 + tlvs.len();
            let header = [
                SIGNATURE,
                &[0x21, if v6 { 0x21 } else { 0x11 }],
                &(length as u16).to_be_bytes(),
                &source_octets,
                &destination_octets,
                &source.port().to_be_bytes(),
                &destination.port().to_be_bytes(),
                &tlvs,
            ].concat();
            for bytes in [line.into_bytes(), header] {
                let expected = Decoded::Done {
                    source: Some(source),
                    destination: Some(destination),
                    length: bytes.len(),
                };
                prop_assert_eq!(decode_bytewise(&bytes).0, Ok(expected));
            }
        }
    }
}
