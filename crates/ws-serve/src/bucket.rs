//! [`Bucket`]: a token bucket, which lets bursts through and holds the average to a [`Rate`].
//!
//! Not its business: what a token stands for, and the clock. It is told the time, as the time since
//! a moment that its owner chose, because that takes half the room of an `Instant`.

use std::time::Duration;

/// So many a second on average, and so many at once.
///
/// ```
/// use ws_serve::Rate;
/// const CONNECTIONS: Rate = Rate::per_second(100).burst(1_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// `1 <= per_second`
    per_second: u32,
    /// `1 <= burst`
    burst: u32,
}

impl Rate {
    /// At least one a second; a second's worth may come at once.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        Self { per_second: at_least_one(count), burst: at_least_one(count) }
    }

    /// How many may come at once, after a pause; at least one.
    #[must_use]
    pub const fn burst(mut self, count: u32) -> Self {
        self.burst = at_least_one(count);
        self
    }

    pub(crate) fn in_a_second(&self) -> u32 {
        self.per_second
    }

    /// How long it takes to pay back what was used beyond the burst.
    fn wait(&self, used: u64) -> Duration {
        let excess = used.saturating_sub(u64::from(self.burst) * TOKEN);
        Duration::from_nanos(excess.div_ceil(u64::from(self.per_second)))
    }
}

/// A token bucket, full to begin with.
///
/// The sums are exact. A billionth of a token is the unit, so that a nanosecond refills a whole
/// number of them at any rate, and no rounding adds up. The rate is an argument, because thousands
/// of buckets share one; what was used under one rate is paid back at the next, so a bucket whose
/// rate was cut down is better replaced by a new one.
///
/// A clock that jumps forward fills it, and one that jumps back does not stop it from filling.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket {
    /// Billionths of tokens that are missing from a full bucket; beyond the burst they are a debt.
    used: u64,
    /// When it was last refilled, in nanoseconds.
    at: u64,
}

impl Bucket {
    /// Takes this much if it is there.
    ///
    /// # Errors
    /// How long until it would be there, with nothing taken; [`Duration::MAX`] if it is more than
    /// the burst, which is never there.
    pub(crate) fn take(&mut self, rate: &Rate, amount: u64, now: Duration) -> Result<(), Duration> {
        if amount > u64::from(rate.burst) {
            return Err(Duration::MAX);
        }
        self.refill(rate, now);
        let used = self.used.saturating_add(amount * TOKEN);
        let wait = rate.wait(used);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.used = used;
        Ok(())
    }

    /// Takes this much even if it is not there, and answers how long it takes to pay the debt: for
    /// what has happened already, such as bytes received. After that wait the bucket is empty.
    ///
    /// A debt ends at 18 billion; what is beyond is forgiven.
    #[must_use = "the wait is what slows the sender down"]
    pub(crate) fn debit(&mut self, rate: &Rate, amount: u64, now: Duration) -> Duration {
        self.refill(rate, now);
        self.used = self.used.saturating_add(amount.saturating_mul(TOKEN));
        rate.wait(self.used)
    }

    fn refill(&mut self, rate: &Rate, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let refilled = now.saturating_sub(self.at).saturating_mul(u64::from(rate.per_second));
        self.used = self.used.saturating_sub(refilled);
        // Threads that share a bucket may be a little late with a time they looked up before; to go
        // back for them would refill the same moment twice.
        if now > self.at || self.at - now > LATE {
            self.at = now;
        }
    }
}

/// `Ord::max` is not const.
const fn at_least_one(count: u32) -> u32 {
    if count == 0 { 1 } else { count }
}

/// As there are nanoseconds in a second, at one token a second each brings one of these parts. The
/// largest burst is a quarter of what a `u64` holds of them.
const TOKEN: u64 = 1_000_000_000;

/// Chosen, because a thread is late by milliseconds; more is a clock that was set back.
const LATE: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NANOSECOND: Duration = Duration::from_nanos(1);
    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn is_small() {
        assert_eq!(size_of::<Bucket>(), 16);
    }

    #[test]
    fn lets_a_burst_through_and_then_the_rate() {
        let rate = Rate::per_second(3).burst(2);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(&rate, 2, SECOND), Ok(()));
        // A third of a second, rounded up.
        let wait = Duration::from_nanos(333_333_334);
        assert_eq!(bucket.take(&rate, 1, SECOND), Err(wait));
        assert_eq!(bucket.take(&rate, 1, SECOND + wait - NANOSECOND), Err(NANOSECOND));
        assert_eq!(bucket.take(&rate, 1, SECOND + wait), Ok(()));
        // The rounding is not lost: three tokens take a second, not three rounded thirds.
        assert_eq!(bucket.take(&rate, 2, SECOND * 2 - NANOSECOND), Err(NANOSECOND));
        assert_eq!(bucket.take(&rate, 2, SECOND * 2), Ok(()));
    }

    #[test]
    fn what_is_more_than_the_burst_never_fits() {
        let rate = Rate::per_second(10).burst(5);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(&rate, 6, DAY), Err(Duration::MAX));
        assert_eq!(bucket.take(&rate, u64::MAX, DAY), Err(Duration::MAX));
        assert_eq!(bucket.take(&rate, 5, DAY), Ok(()));
    }

    #[test]
    fn takes_nothing_while_in_debt() {
        let rate = Rate::per_second(10).burst(5);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.debit(&rate, 25, SECOND), SECOND * 2);
        assert_eq!(bucket.take(&rate, 0, SECOND * 2), Err(SECOND));
        assert_eq!(bucket.take(&rate, 0, SECOND * 3), Ok(()));
        assert_eq!(bucket.take(&rate, 1, SECOND * 3), Err(SECOND / 10));
    }

    #[test]
    fn the_largest_debt_stays_the_largest() {
        let rate = Rate::per_second(1_000_000_000).burst(1);
        let longest = rate.wait(u64::MAX);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.debit(&rate, u64::MAX, SECOND), longest);
        assert_eq!(bucket.debit(&rate, u64::MAX, SECOND), longest);
        assert_eq!(bucket.debit(&rate, 1, SECOND), longest);
        assert_eq!(bucket.take(&rate, 1, SECOND), Err(longest));
    }

    #[test]
    fn a_clock_set_back_does_not_stop_it() {
        let rate = Rate::per_second(10).burst(10);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(&rate, 10, DAY * 2), Ok(()));
        assert_eq!(bucket.take(&rate, 10, DAY), Err(SECOND));
        assert_eq!(bucket.take(&rate, 10, DAY + SECOND), Ok(()));
    }

    #[test]
    fn a_late_thread_does_not_refill_twice() {
        let rate = Rate::per_second(10).burst(10);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(&rate, 10, SECOND * 9), Ok(()));
        for _ in 0..100 {
            let late = SECOND * 9 - Duration::from_millis(500);
            assert_eq!(bucket.take(&rate, 1, late), Err(SECOND / 10));
            assert_eq!(bucket.take(&rate, 1, SECOND * 9), Err(SECOND / 10));
        }
    }

    #[test]
    fn rates_are_at_least_one() {
        let rate = Rate::per_second(0).burst(0);
        assert_eq!(rate, Rate { per_second: 1, burst: 1 });
    }

    fn rates() -> impl Strategy<Value = Rate> {
        let sizes = || prop_oneof![1..10_u32, 1..100_000_u32, any::<u32>()];
        (sizes(), sizes()).prop_map(|(rate, burst)| Rate::per_second(rate).burst(burst))
    }

    /// Amounts around the burst, and others.
    fn amounts() -> impl Strategy<Value = u64> {
        prop_oneof![0..10_u64, 0..100_000_u64, 0..=u64::from(u32::MAX)]
    }

    /// Pauses from none to a day, in nanoseconds.
    fn pauses() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), 0..1_000_u64, 0..1_000_000_000_u64, 0..86_400_000_000_000_u64]
    }

    fn refilled(rate: &Rate, time: Duration) -> u128 {
        time.as_nanos() * u128::from(rate.per_second)
    }

    proptest! {
        #[test]
        fn no_window_exceeds_burst_and_rate(
            rate in rates(),
            steps in prop::collection::vec((pauses(), amounts()), 1..60),
        ) {
            let mut bucket = Bucket::default();
            let mut now = Duration::ZERO;
            let mut granted = Vec::new();
            for (pause, amount) in steps {
                now += Duration::from_nanos(pause);
                // Greedy: as much as fits of it, for windows at their limit.
                let amount = amount.min(u64::from(rate.burst));
                let part = [amount, amount / 2, 1].into_iter()
                    .find(|part| bucket.take(&rate, *part, now).is_ok());
                granted.push((now, u128::from(part.unwrap_or(0)) * u128::from(TOKEN)));
            }
            let burst = u128::from(rate.burst) * u128::from(TOKEN);
            for (first, (from, _)) in granted.iter().enumerate() {
                let mut sum = 0;
                for (to, amount) in &granted[first..] {
                    sum += amount;
                    prop_assert!(sum <= burst + refilled(&rate, *to - *from));
                }
            }
        }

        #[test]
        fn agrees_with_unlimited_sums(
            rate in rates(),
            steps in prop::collection::vec((pauses(), amounts(), any::<bool>()), 1..60),
        ) {
            let burst = u128::from(rate.burst) * u128::from(TOKEN);
            let mut bucket = Bucket::default();
            let (mut now, mut used) = (Duration::ZERO, 0_u128);
            for (pause, amount, debit) in steps {
                // The debts of these sizes that one step may leave stay below the largest.
                let amount = amount % 100_000_000;
                let pause = Duration::from_nanos(pause);
                now += pause;
                used = used.saturating_sub(refilled(&rate, pause));
                let after = used + u128::from(amount) * u128::from(TOKEN);
                let wait = after.saturating_sub(burst).div_ceil(u128::from(rate.per_second));
                let wait = Duration::from_nanos(u64::try_from(wait).unwrap());
                if debit {
                    prop_assert_eq!(bucket.debit(&rate, amount, now), wait);
                    used = after;
                } else if amount > u64::from(rate.burst) {
                    prop_assert_eq!(bucket.take(&rate, amount, now), Err(Duration::MAX));
                } else if wait.is_zero() {
                    prop_assert_eq!(bucket.take(&rate, amount, now), Ok(()));
                    used = after;
                } else {
                    prop_assert_eq!(bucket.take(&rate, amount, now), Err(wait));
                }
            }
        }

        #[test]
        fn long_idleness_brings_exactly_the_burst(
            rate in rates(),
            debts in prop::collection::vec(amounts(), 0..4),
        ) {
            let mut bucket = Bucket::default();
            for debt in debts {
                let _ = bucket.debit(&rate, debt, SECOND);
            }
            let later = Duration::from_secs(1 << 34);
            prop_assert_eq!(bucket.take(&rate, u64::from(rate.burst), later), Ok(()));
            prop_assert!(bucket.take(&rate, 1, later).is_err());
        }

        #[test]
        fn debts_are_paid_exactly(
            rate in rates(),
            parts in prop::collection::vec(amounts(), 1..4),
            pause in pauses(),
        ) {
            let now = Duration::from_nanos(pause);
            let mut whole = Bucket::default();
            let wait = whole.debit(&rate, parts.iter().sum(), now);
            let mut sum = Bucket::default();
            let waits: Vec<_> = parts.iter().map(|part| sum.debit(&rate, *part, now)).collect();
            prop_assert_eq!(waits.last(), Some(&wait));
            prop_assert_eq!(whole.take(&rate, 0, now + wait), Ok(()));
            if !wait.is_zero() {
                prop_assert_eq!(sum.take(&rate, 0, now + wait - NANOSECOND), Err(NANOSECOND));
                // What the rounding of the wait has left is less than a nanosecond's worth.
                let left = u64::from(rate.burst) * TOKEN - whole.used;
                prop_assert!(left < u64::from(rate.per_second));
            }
        }

        #[test]
        fn no_amount_and_no_clock_overflows(
            rate in rates(),
            steps in prop::collection::vec((any::<u64>(), any::<u64>(), any::<bool>()), 1..60),
            last in 0..u64::MAX / 2,
        ) {
            let mut bucket = Bucket::default();
            for (seconds, amount, debit) in steps {
                let now = Duration::new(seconds, 999_999_999);
                let wait = if debit {
                    bucket.debit(&rate, amount, now)
                } else {
                    bucket.take(&rate, amount, now).err().unwrap_or_default()
                };
                prop_assert!(wait <= Duration::from_nanos(u64::MAX) || wait == Duration::MAX);
            }
            // Whatever the clock did, the wait that it asks for is enough; a second more for one who
            // is late.
            let last = Duration::from_nanos(last);
            match bucket.take(&rate, 1, last) {
                Err(wait) if wait < DAY => {
                    prop_assert_eq!(bucket.take(&rate, 1, last + wait + SECOND), Ok(()));
                }
                _ => {}
            }
        }
    }
}
