//! [`Limits`]: how many may connect, and how fast.
//!
//! Not its business: to enforce them, which is `gate.rs`; how large and how fast messages may be; and
//! how long a connection may live.

use crate::Rate;

/// How many may connect, and how fast. The defaults protect the server and are in nobody's way.
///
/// ```
/// use ws_serve::{Limits, Rate};
/// // A server whose clients connect directly, or through proxies that it trusts to name them.
/// let limits = Limits::default().connections_per_address(100).handshakes(Rate::per_second(500));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(crate) connections: usize,
    pub(crate) per_address: usize,
    pub(crate) handshakes: Option<Rate>,
}

impl Limits {
    /// No limits but the system's.
    #[must_use]
    pub const fn none() -> Self {
        Self { connections: usize::MAX, per_address: usize::MAX, handshakes: None }
    }

    /// How many connections there may be, with those whose handshake is under way. 0 lets nobody in
    /// and drops nobody. Default: 100,000.
    #[must_use]
    #[doc(alias = "max_connections")]
    pub const fn connections(mut self, max: usize) -> Self {
        self.connections = max;
        self
    }

    /// How many connections one IPv4 address, or one IPv6 network of /64, may have. Default: 65,536.
    ///
    /// The default keeps one IPv6 network from taking all places, and gets in no proxy's way: behind
    /// a proxy that is not trusted to tell their addresses all clients have the proxy's, and together
    /// they must not be mistaken for one greedy client. As TCP gives an address 65,535 connections
    /// to a port, no lower number is safe there, and a higher one has no effect.
    ///
    /// When clients connect directly, or trusted proxies tell their addresses, set it: 100 is
    /// generous to a household, 1,000 to a university or a mobile network behind one address.
    #[must_use]
    #[doc(alias = "max_connections_per_ip")]
    pub const fn connections_per_address(mut self, max: usize) -> Self {
        self.per_address = max;
        self
    }

    /// How many connections may come in a second, and at once. Default: 5,000, and 10,000 at once.
    #[must_use]
    pub const fn handshakes(mut self, rate: Rate) -> Self {
        self.handshakes = Some(rate);
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: DEFAULT_CONNECTIONS,
            per_address: DEFAULT_PER_ADDRESS,
            handshakes: Some(DEFAULT_HANDSHAKES),
        }
    }
}

/// Chosen: at some ten kilobytes each, the kernel's included, they fit into a gigabyte; who has
/// room for more knows it. More than one address can take.
const DEFAULT_CONNECTIONS: usize = 100_000;

/// One more than the 65,535 ports from which an address can connect to one of ours (RFC 9293 §3.1):
/// the least that never refuses a proxy.
const DEFAULT_PER_ADDRESS: usize = 1 << 16;

/// Chosen, because a full server whose clients all come back at once, after a restart, has them again
/// within 20 s, while those who are connected keep most of the processor.
const DEFAULT_HANDSHAKES: Rate = Rate::per_second(5_000).burst(10_000);
