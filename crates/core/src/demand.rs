//! How many idle channels a service is to have, by how its clients arrive: enough for those that come while the channels are replaced
//! that others have taken and do not give back. The [`Book`](crate::Book) tells of each arrival and comes back at [`Demand::poll_timeout`]; which host
//! is to keep how many of them is not decided here but by [`shares`].
//!
//! It rises at once, beyond what is needed, so that a growing crowd changes it seldom. It falls by half, after a while in which a
//! quarter was enough: how arrivals fall into the spans that are counted makes a factor of two, and the room beyond the rest. So a
//! crowd that comes evenly changes nothing.

use std::time::Duration;

use crate::time::Time;

/// How long a quarter must have been enough before half is asked for. A burst that comes back within minutes finds its channels.
pub(crate) const FALL_AFTER: Duration = Duration::from_secs(60);

/// What a channel takes to be replaced, beside round trips: two handshakes on a busy machine.
const REFILL_MIN: Duration = Duration::from_millis(50);

/// How many round trips that takes: the word that the channel is taken, TCP, TLS, the hello and its answer.
const REFILL_ROUND_TRIPS: u32 = 4;

/// A host further away than this is no measure for the others.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);

/// A service's demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// When the span began that is counted, how many have come in it, and in the one before.
    span_began: Time,
    arrivals: usize,
    arrivals_before: usize,
    /// The longest round trip of its hosts, of late.
    round_trip: Duration,
    asked: usize,
    /// The most that was needed since then.
    highest: usize,
    since: Time,
}

impl Demand {
    /// A client has arrived; `waiting` have found no channel.
    pub(crate) fn handle_arrival(&mut self, now: Time, waiting: usize) {
        self.turn_span(now);
        self.arrivals += 1;
        let needed = (self.arrivals + self.arrivals_before).max(waiting);
        self.highest = self.highest.max(needed);
        if needed > self.asked {
            self.asked = with_room(needed);
            self.since = now;
        }
    }

    /// A channel that a client of late had taken is back, and need not be replaced.
    pub(crate) fn handle_return(&mut self, now: Time) {
        self.turn_span(now);
        let counted =
            if self.arrivals > 0 { &mut self.arrivals } else { &mut self.arrivals_before };
        *counted = counted.saturating_sub(1);
    }

    /// A host has answered after `round_trip`.
    pub(crate) fn handle_round_trip(&mut self, round_trip: Duration) {
        let round_trip = round_trip.min(ROUND_TRIP_MAX);
        let fallen = self.round_trip - self.round_trip.saturating_sub(round_trip) / 64;
        self.round_trip = fallen.max(round_trip);
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        if self.highest * 4 <= self.asked {
            self.asked /= 2;
        }
        self.turn_span(now);
        (self.since, self.highest) = (now, self.arrivals + self.arrivals_before);
    }

    /// When to call [`handle_timeout`](Demand::handle_timeout); `None` where nothing is asked for.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        (self.asked > 0).then_some(self.since + FALL_AFTER)
    }

    /// How many idle channels it is to have.
    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    fn turn_span(&mut self, now: Time) {
        let span = REFILL_MIN + self.round_trip * REFILL_ROUND_TRIPS;
        let passed = now - self.span_began;
        if passed >= span {
            self.arrivals_before = if passed < span * 2 { self.arrivals } else { 0 };
            (self.arrivals, self.span_began) = (0, now);
        }
    }
}

/// A quarter more.
fn with_room(needed: usize) -> usize {
    needed + needed.div_ceil(4)
}

/// What one host of several may keep of something, and how much it weighs among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bidder {
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) weight: u32,
}

/// Divides `total` among hosts by their weights, in their order: each within its bounds, and all together no less than `total` as long
/// as their bounds allow.
pub(crate) fn shares(total: usize, bidders: &[Bidder]) -> Vec<usize> {
    let weight_of = |bidder: &Bidder| u64::from(bidder.weight.max(1));
    let mut order: Vec<(usize, &Bidder)> = bidders.iter().enumerate().collect();
    // Those first that reach their upper bound first: what they cannot take is divided among the others.
    order
        .sort_by_key(|(_, bidder)| (bidder.max as u64).saturating_mul(1 << 20) / weight_of(bidder));
    let mut weight_left: u64 = bidders.iter().map(weight_of).sum();
    let mut left = total as u64;
    let mut shares = vec![0; bidders.len()];
    for (index, bidder) in order {
        let share = left.saturating_mul(weight_of(bidder)).div_ceil(weight_left.max(1));
        let share = usize::try_from(share).unwrap_or(usize::MAX).clamp(bidder.min, bidder.max);
        left = left.saturating_sub(share as u64);
        weight_left -= weight_of(bidder);
        if let Some(place) = shares.get_mut(index) {
            *place = share;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Lets time pass to `now`, and gives each change of what is asked for.
    fn pass(demand: &mut Demand, now: Time) -> Vec<usize> {
        let mut changes = Vec::new();
        while let Some(due) = demand.poll_timeout().filter(|due| *due <= now) {
            let before = demand.asked();
            demand.handle_timeout(due);
            if demand.asked() != before {
                changes.push(demand.asked());
            }
        }
        changes
    }

    #[test]
    fn a_burst_is_asked_for_at_once_and_forgotten_within_the_hour() {
        let mut demand = Demand::default();
        let mut asked = Vec::new();
        for waiting in 0..500 {
            demand.handle_arrival(millis(1000 + waiting / 100), waiting as usize);
            assert!(demand.asked() > waiting as usize, "each has a channel to come");
            asked.push(demand.asked());
        }
        asked.dedup();
        assert!(asked.len() < 40, "a few words to the hosts: {asked:?}");
        assert!(demand.asked() <= 625);
        assert_eq!(pass(&mut demand, millis(50_000)), [0; 0], "it does not fall at once");
        let fallen = pass(&mut demand, millis(3_600_000));
        assert!(fallen.is_sorted_by(|before, after| before >= after));
        assert_eq!(demand.asked(), 0);
        assert_eq!(demand.poll_timeout(), None, "what rests costs nothing");
    }

    #[test]
    fn half_of_it_goes_a_minute_at_most() {
        let mut demand = Demand::default();
        for _ in 0..800 {
            demand.handle_arrival(millis(1), 0);
        }
        let mut before = demand.asked();
        for asked in pass(&mut demand, millis(10_000_000)) {
            assert!(asked >= before / 2, "{asked} after {before}");
            before = asked;
        }
    }

    #[test]
    fn those_who_wait_are_asked_for_however_slowly_they_came() {
        let mut demand = Demand::default();
        for waiting in 1..=100 {
            demand.handle_arrival(millis(waiting as u64 * 1000), waiting);
            assert!(demand.asked() >= waiting);
        }
    }

    #[test]
    fn who_gives_its_channel_back_soon_needs_no_other() {
        let mut demand = Demand::default();
        // A thousand a second, of which sixteen are there at a time.
        for now in 0..10_000 {
            demand.handle_arrival(millis(now), 0);
            if now >= 16 {
                demand.handle_return(millis(now));
            }
        }
        assert!((16..=40).contains(&demand.asked()), "{}", demand.asked());
    }

    #[test]
    fn who_is_further_away_is_asked_for_more() {
        let asked_at = |round_trip| {
            let mut demand = Demand::default();
            demand.handle_round_trip(Duration::from_millis(round_trip));
            (0..1000).for_each(|n| demand.handle_arrival(millis(n * 10), 0));
            demand.asked()
        };
        let (near, far) = (asked_at(0), asked_at(100));
        assert!((5..=15).contains(&near), "100 a second, 50 ms: {near}");
        assert!((45..=130).contains(&far), "100 a second, 450 ms: {far}");
    }

    #[test]
    fn a_host_that_has_come_nearer_is_believed_in_time() {
        let mut demand = Demand::default();
        demand.handle_round_trip(Duration::from_millis(400));
        (0..1000).for_each(|_| demand.handle_round_trip(Duration::from_millis(10)));
        assert!(demand.round_trip < Duration::from_millis(11), "{:?}", demand.round_trip);
    }

    proptest! {
        /// However they are spread: an even crowd changes it while it is new, and then hardly ever.
        #[test]
        fn it_converges_and_does_not_oscillate(
            gaps in prop::collection::vec(1..2000_u64, 10..40),
            round_trip in 0..300_u64,
        ) {
            let mut demand = Demand::default();
            demand.handle_round_trip(Duration::from_millis(round_trip));
            let (mut now, mut rounds, mut changes) = (0, 0, Vec::new());
            // The same gaps again and again, for an hour.
            while now < 3_600_000 {
                for gap in &gaps {
                    now += gap;
                    let changed = pass(&mut demand, millis(now));
                    let before = demand.asked();
                    demand.handle_arrival(millis(now), 0);
                    let risen = (demand.asked() != before).then_some(demand.asked());
                    if now > 300_000 {
                        changes.extend(changed.into_iter().chain(risen));
                    }
                }
                rounds += 1;
            }
            prop_assert!(changes.len() <= 2, "{changes:?} in {rounds} rounds");
        }

        #[test]
        fn it_is_never_less_than_what_comes_while_a_channel_is_replaced(
            gaps in prop::collection::vec(0..100_u64, 1..300),
        ) {
            let mut demand = Demand::default();
            let (mut now, mut arrivals) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                pass(&mut demand, millis(now));
                demand.handle_arrival(millis(now), 0);
                arrivals.push(now);
                let refill = u64::try_from(REFILL_MIN.as_millis()).unwrap();
                let recent = arrivals.iter().filter(|it| **it + refill > now).count();
                prop_assert!(demand.asked() >= recent);
            }
        }

        #[test]
        fn shares_keep_to_bounds_and_come_to_the_total(
            total in 0..5000_usize,
            bidders in prop::collection::vec((0..50_usize, 0..400_usize, 1..300_u32), 0..20),
        ) {
            let bidders: Vec<Bidder> = bidders
                .into_iter()
                .map(|(min, more, weight)| Bidder { min, max: min + more, weight })
                .collect();
            let shares = shares(total, &bidders);
            for (share, bidder) in shares.iter().zip(&bidders) {
                prop_assert!((bidder.min..=bidder.max).contains(share));
            }
            let all: usize = shares.iter().sum();
            let most: usize = bidders.iter().map(|it| it.max).sum();
            let least: usize = bidders.iter().map(|it| it.min).sum();
            prop_assert!(all >= total.min(most), "{shares:?}");
            prop_assert!(all <= total.max(least) + least + bidders.len(), "{shares:?}");
        }

        #[test]
        fn who_weighs_more_keeps_more(weights in prop::collection::vec(1..300_u32, 2..10)) {
            let bidder = |weight: &u32| Bidder { min: 0, max: 100_000, weight: *weight };
            let bidders: Vec<Bidder> = weights.iter().map(bidder).collect();
            let shares = shares(10_000, &bidders);
            let sum: u32 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                let fair = 10_000.0 * f64::from(*weight) / f64::from(sum);
                prop_assert!((*share as f64 - fair).abs() <= 10.0, "{shares:?} for {weights:?}");
            }
        }
    }
}
