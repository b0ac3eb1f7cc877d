//! [`Gate`]: who may come in: it counts connections, in all, by address, and by second.
//!
//! Not its business: the sockets, and what a refused client is told (`refused.rs`).

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    Count, Limits, Rate, Refused,
    bucket::Bucket,
    clients::{Client, Clients},
};

/// What all workers of a server ask before they serve a connection.
///
/// A connection asks as soon as more is known about it: right after it was accepted, when its address is
/// known, and when its route is. It keeps its place for as long as it lives.
pub struct Gate {
    connections: Count,
    clients: Clients,
    /// One lock for all workers, because exact sums need more than an atomic word holds: it is taken
    /// once per connection, for a few additions, which is nothing beside the accepting.
    handshakes: Mutex<Handshakes>,
    refused: AtomicU64,
    /// What the bucket's time is counted from.
    epoch: Instant,
}

impl Gate {
    /// A gate that nobody has passed.
    #[must_use]
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            connections: Count::new(limits.connections),
            clients: Clients::new(limits.per_address),
            handshakes: Mutex::new(Handshakes::new(limits.handshakes)),
            refused: AtomicU64::new(0),
            epoch: now,
        }
    }

    /// Lets a connection in, before a byte of it is read.
    ///
    /// # Errors
    /// If there are too many, or too many at once; who finds no place does not use up the rate.
    pub(crate) fn enter(self: &Arc<Self>, now: Instant) -> Result<Permit, Refused> {
        if !self.connections.enter() {
            return Err(self.refuse(Refused::Connections));
        }
        // From here on dropping it gives the place back.
        let permit = Permit { gate: Arc::clone(self), client: None, route: None };
        let taken = self.handshakes().take(now.saturating_duration_since(self.epoch));
        match taken {
            Ok(()) => Ok(permit),
            Err(wait) => Err(self.refuse(Refused::Handshakes { wait })),
        }
    }

    /// Replaces the limits. Those who are in stay in, even if they are more than there may be now; no
    /// count is lost. A different rate begins with a burst.
    pub fn set_limits(&self, limits: Limits) {
        let Limits { connections, per_address, handshakes: rate } = limits;
        self.connections.set_max(connections);
        self.clients.set_max(per_address);
        let mut handshakes = self.handshakes();
        if handshakes.rate != rate {
            *handshakes = Handshakes::new(rate);
        }
    }

    /// How things are. Under way, the numbers are of slightly different moments.
    #[must_use]
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.open(),
            addresses: self.clients.len(),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn refuse(&self, refused: Refused) -> Refused {
        self.refused.fetch_add(1, Ordering::Relaxed);
        refused
    }

    fn handshakes(&self) -> MutexGuard<'_, Handshakes> {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Handshakes {
    rate: Option<Rate>,
    bucket: Bucket,
}

impl Handshakes {
    fn new(rate: Option<Rate>) -> Self {
        Self { rate, bucket: Bucket::default() }
    }

    fn take(&mut self, now: Duration) -> Result<(), Duration> {
        match &self.rate {
            Some(rate) => self.bucket.take(rate, 1, now),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// What a [`Gate`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Connections that are in, with those whose handshake is under way.
    pub(crate) connections: usize,
    /// IPv4 addresses, and IPv6 networks of /64, that have a connection.
    pub(crate) addresses: usize,
    /// Connections that were refused since the beginning, for whatever reason.
    pub(crate) refused: u64,
}

/// A connection's place in all counts. Dropping it gives everything back.
#[must_use = "dropping a permit gives the place back"]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    client: Option<Client>,
    route: Option<Arc<Count>>,
}

impl Permit {
    /// Counts the connection for this address. If it was counted for another, it moves.
    ///
    /// # Errors
    /// If the address has too many. What was counted before stays counted.
    pub(crate) fn identify(&mut self, ip: IpAddr) -> Result<(), Refused> {
        let client = Client::from(ip);
        if self.client == Some(client) {
            return Ok(());
        }
        if !self.gate.clients.enter(client) {
            return Err(self.gate.refuse(Refused::Address));
        }
        if let Some(former) = self.client.replace(client) {
            self.gate.clients.leave(former);
        }
        Ok(())
    }

    /// Counts the connection for this route. If it was counted for another, it moves.
    ///
    /// # Errors
    /// If the route has too many. What was counted before stays counted.
    pub(crate) fn enter_route(&mut self, route: Arc<Count>) -> Result<(), Refused> {
        if self.route.as_ref().is_some_and(|former| Arc::ptr_eq(former, &route)) {
            return Ok(());
        }
        if !route.enter() {
            return Err(self.gate.refuse(Refused::Route));
        }
        if let Some(former) = self.route.replace(route) {
            former.leave();
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(route) = &self.route {
            route.leave();
        }
        if let Some(client) = self.client {
            self.gate.clients.leave(client);
        }
        self.gate.connections.leave();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("client", &self.client)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, panic, thread};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gate(limits: Limits) -> (Arc<Gate>, Instant) {
        let now = Instant::now();
        (Arc::new(Gate::new(limits, now)), now)
    }

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn counts(gate: &Gate) -> (usize, usize) {
        let Stats { connections, addresses, .. } = gate.stats();
        (connections, addresses)
    }

    #[test]
    fn permits_are_small() {
        assert!(size_of::<Permit>() <= 32);
        assert_eq!(size_of::<Option<Permit>>(), size_of::<Permit>());
    }

    #[test]
    fn limits_are_hit_exactly() {
        let (gate, now) = gate(Limits::none().connections(3).connections_per_address(2));
        let route = Arc::new(Count::new(1));
        let mut permits: Vec<_> = (0..3).map(|_| gate.enter(now).unwrap()).collect();
        assert_eq!(gate.enter(now).unwrap_err(), Refused::Connections);
        assert_eq!(permits[0].identify(ip(1)), Ok(()));
        assert_eq!(permits[1].identify(ip(1)), Ok(()));
        assert_eq!(permits[2].identify(ip(1)), Err(Refused::Address));
        assert_eq!(permits[2].identify(ip(2)), Ok(()));
        assert_eq!(permits[0].enter_route(Arc::clone(&route)), Ok(()));
        assert_eq!(permits[1].enter_route(Arc::clone(&route)), Err(Refused::Route));
        assert_eq!(gate.stats(), Stats { connections: 3, addresses: 2, refused: 3 });
        assert_eq!(route.open(), 1);
        drop(permits.remove(0));
        assert_eq!(route.open(), 0);
        let mut permit = gate.enter(now).unwrap();
        assert_eq!(permit.identify(ip(1)), Ok(()));
        assert_eq!(permit.enter_route(Arc::clone(&route)), Ok(()));
        drop((permit, permits));
        assert_eq!(gate.stats(), Stats { connections: 0, addresses: 0, refused: 3 });
        assert_eq!(route.open(), 0);
    }

    #[test]
    fn a_connection_moves_to_the_address_and_route_that_it_learns_later() {
        let (gate, now) = gate(Limits::none().connections_per_address(1));
        let [first, second, full] = [1, 1, 0].map(|max| Arc::new(Count::new(max)));
        let mut permit = gate.enter(now).unwrap();
        for route in [&first, &first, &second] {
            assert_eq!(permit.enter_route(Arc::clone(route)), Ok(()));
        }
        assert_eq!((first.open(), second.open()), (0, 1));
        assert_eq!(permit.enter_route(full), Err(Refused::Route));
        assert_eq!(second.open(), 1);
        for last in [1, 1, 2] {
            assert_eq!(permit.identify(ip(last)), Ok(()));
        }
        assert_eq!(counts(&gate), (1, 1));
        let mut other = gate.enter(now).unwrap();
        assert_eq!(other.identify(ip(1)), Ok(()));
        assert_eq!(other.identify(ip(2)), Err(Refused::Address));
        assert_eq!(counts(&gate), (2, 2));
        drop((permit, other));
        assert_eq!((counts(&gate), second.open()), ((0, 0), 0));
    }

    #[test]
    fn an_ipv6_network_shares_its_limit() {
        let (gate, now) = gate(Limits::none().connections_per_address(1));
        let mut permits = [(); 3].map(|()| gate.enter(now).unwrap());
        let ips = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"];
        let [one, same, other] = ips.map(|ip| ip.parse().unwrap());
        assert_eq!(permits[0].identify(one), Ok(()));
        assert_eq!(permits[1].identify(same), Err(Refused::Address));
        assert_eq!(permits[1].identify(other), Ok(()));
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into();
        assert_eq!(permits[0].identify(ip(1)), Ok(()));
        assert_eq!(permits[2].identify(mapped), Err(Refused::Address));
    }

    #[test]
    fn the_rate_refills() {
        let (gate, now) = gate(Limits::none().handshakes(Rate::per_second(2).burst(3)));
        let enter = |now| gate.enter(now).map(drop);
        let refused = |wait| Err(Refused::Handshakes { wait });
        for _ in 0..3 {
            assert_eq!(enter(now), Ok(()));
        }
        assert_eq!(enter(now), refused(SECOND / 2));
        assert_eq!(enter(now + SECOND / 4), refused(SECOND / 4));
        assert_eq!(enter(now + SECOND / 2), Ok(()));
        assert_eq!(enter(now + SECOND / 2), refused(SECOND / 2));
        assert_eq!(counts(&gate), (0, 0));
    }

    #[test]
    fn who_finds_no_place_uses_up_no_rate() {
        let (gate, now) = gate(Limits::none().connections(1).handshakes(Rate::per_second(2)));
        let permit = gate.enter(now).unwrap();
        for _ in 0..10 {
            assert_eq!(gate.enter(now).unwrap_err(), Refused::Connections);
        }
        drop(permit);
        assert!(gate.enter(now).is_ok());
    }

    #[test]
    fn lower_limits_refuse_the_new_and_drop_nobody() {
        let (gate, now) = gate(Limits::none());
        let route = Arc::new(Count::new(usize::MAX));
        let mut permits: Vec<_> = (0..4).map(|_| gate.enter(now).unwrap()).collect();
        for permit in &mut permits[..3] {
            permit.identify(ip(1)).unwrap();
            permit.enter_route(Arc::clone(&route)).unwrap();
        }
        gate.set_limits(Limits::none().connections(2).connections_per_address(2));
        route.set_max(2);
        assert_eq!(gate.enter(now).unwrap_err(), Refused::Connections);
        assert_eq!(permits[3].identify(ip(1)), Err(Refused::Address));
        assert_eq!(permits[3].enter_route(Arc::clone(&route)), Err(Refused::Route));
        assert_eq!((counts(&gate), route.open()), ((4, 1), 3));
        permits.truncate(2);
        assert_eq!(gate.enter(now).unwrap_err(), Refused::Connections);
        permits.truncate(1);
        assert!(gate.enter(now).unwrap().identify(ip(1)).is_ok());
        gate.set_limits(Limits::none());
        permits.extend((0..9).map(|_| gate.enter(now).unwrap()));
        drop(permits);
        assert_eq!((counts(&gate), route.open()), ((0, 0), 0));
    }

    #[test]
    fn the_same_rate_again_brings_no_new_burst() {
        let limits = Limits::none().handshakes(Rate::per_second(1));
        let (gate, now) = gate(limits);
        assert!(gate.enter(now).is_ok());
        gate.set_limits(limits.connections(7));
        assert!(gate.enter(now).is_err());
        gate.set_limits(limits.handshakes(Rate::per_second(2)));
        assert!(gate.enter(now).is_ok());
    }

    #[test]
    fn a_panic_gives_everything_back() {
        let (gate, now) = gate(Limits::default());
        let route = Arc::new(Count::new(1));
        let task = thread::spawn({
            let (gate, route) = (Arc::clone(&gate), Arc::clone(&route));
            move || {
                let mut permit = gate.enter(now).unwrap();
                permit.identify(ip(1)).unwrap();
                permit.enter_route(route).unwrap();
                panic::resume_unwind(Box::new(()));
            }
        });
        assert!(task.join().is_err());
        assert_eq!((counts(&gate), route.open()), ((0, 0), 0));
    }

    #[test]
    fn threads_leave_nothing_behind_and_exceed_no_limit() {
        let limits = Limits::none().connections(6).connections_per_address(3);
        let limits = limits.handshakes(Rate::per_second(1).burst(60_000));
        let (gate, now) = gate(limits);
        let route = Arc::new(Count::new(2));
        let enter_and_drop = |turn: u32| -> Result<(), Refused> {
            let mut permit = gate.enter(now)?;
            assert!(gate.connections.open() <= 6);
            gate.set_limits(limits);
            permit.identify(ip((turn % 3) as u8))?;
            permit.enter_route(Arc::clone(&route))?;
            assert!(route.open() <= 2);
            thread::yield_now();
            Ok(())
        };
        let refused: u64 = thread::scope(|scope| {
            let run = || (0..10_000).filter(|turn| enter_and_drop(*turn).is_err()).count() as u64;
            let threads = [(); 8].map(|()| scope.spawn(run));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(refused >= 20_000);
        assert_eq!(gate.stats(), Stats { connections: 0, addresses: 0, refused });
        assert_eq!(route.open(), 0);
    }

    #[test]
    fn threads_without_limits_all_enter() {
        let (gate, now) = gate(Limits::none().handshakes(Rate::per_second(1).burst(80_000)));
        let enter = |last| move |gate: &Arc<Gate>| gate.enter(now)?.identify(ip(last));
        thread::scope(|scope| {
            for last in 0..8 {
                let gate = &gate;
                scope.spawn(move || (0..10_000).for_each(|_| enter(last)(gate).unwrap()));
            }
        });
        assert_eq!(gate.stats(), Stats::default());
        assert!(gate.enter(now).is_err());
    }
}
