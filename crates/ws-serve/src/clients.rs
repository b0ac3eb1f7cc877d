//! [`Clients`]: how many connections each client has, where a [`Client`] is what we take an address for.
//!
//! Not its business: how the address is found out, behind a proxy or not.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Who is counted as one.
///
/// With IPv6 that is a network of /64, the smallest that a customer is given: RFC 4291 §2.5.1 leaves
/// the lower 64 bits to the host, which may use as many of its 2^64 addresses as it likes, and with
/// RFC 8981 does so routinely. To count them singly would be no limit, and a table for an attacker
/// to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    V4(Ipv4Addr),
    V6(u64),
}

impl From<IpAddr> for Client {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => match embedded(ip) {
                Some(ip) => Self::V4(ip),
                None => Self::V6((ip.to_bits() >> 64) as u64),
            },
        }
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, as a listener for both sees it (RFC 4291
/// §2.5.5.2), or translated with the well-known prefix 64:ff9b::/96 (RFC 6052 §2.1). All of IPv4
/// would share one /64 otherwise.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let translated = match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(Ipv4Addr::from_bits(ip.to_bits() as u32)),
        _ => None,
    };
    ip.to_ipv4_mapped().or(translated)
}

/// The connections of each client that has any.
///
/// A client is in the table while it has a connection, so the limit of all connections is the
/// table's limit as well.
pub(crate) struct Clients {
    max: AtomicUsize,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

/// How many each has: `1 <= count`.
type Shard = HashMap<Client, usize>;

impl Clients {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: AtomicUsize::new(max),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Changes how many a client may have. Those who have more already keep them.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Counts one more of this client, if it may have one more. Each success is owed a
    /// [`leave`](Self::leave).
    #[must_use]
    pub(crate) fn enter(&self, client: Client) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        match self.shard(client).entry(client) {
            Entry::Occupied(mut count) if *count.get() < max => *count.get_mut() += 1,
            Entry::Vacant(place) if max > 0 => {
                place.insert(1);
            }
            Entry::Occupied(_) | Entry::Vacant(_) => return false,
        }
        true
    }

    pub(crate) fn leave(&self, client: Client) {
        if let Entry::Occupied(mut count) = self.shard(client).entry(client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// How many clients there are.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, client: Client) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.hasher.hash_one(client) as usize % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chosen: with as many workers as a large machine has cores, two seldom want the same one, and all
/// of them together are a few kilobytes.
const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(ip: &str) -> Client {
        ip.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
    }

    #[test]
    fn ipv4_in_ipv6_is_ipv4() {
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_eq!(client("64:ff9b::192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("::ffff:192.0.2.1"), client("::ffff:192.0.2.2"));
        // The local-use prefix of RFC 8215 says nothing about where in it the IPv4 address is.
        assert_ne!(client("64:ff9b:1::192.0.2.1"), client("192.0.2.1"));
    }

    #[test]
    fn a_client_is_forgotten_with_its_last_connection() {
        let clients = Clients::new(2);
        let [one, other] = [client("192.0.2.1"), client("192.0.2.2")];
        assert!(clients.enter(one) && clients.enter(one) && clients.enter(other));
        assert!(!clients.enter(one));
        assert_eq!(clients.len(), 2);
        clients.leave(one);
        clients.leave(one);
        assert_eq!(clients.len(), 1);
        clients.leave(other);
        assert_eq!(clients.len(), 0);
    }

    #[test]
    fn who_is_refused_leaves_no_trace() {
        let clients = Clients::new(0);
        assert!(!clients.enter(client("192.0.2.1")));
        assert_eq!(clients.len(), 0);
    }
}
