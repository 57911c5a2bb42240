//! Connections that have not said who they are: the rules one by one, and over generated histories.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use relayserver_core::{Admission, Limits, SILENCE_MAX, Ticket, Time, Verdict};

fn admission(in_all: usize, per_address: usize) -> Admission<u32> {
    Admission::new(&Limits {
        handshakes_max: in_all,
        handshakes_per_address_max: per_address,
        ..Limits::default()
    })
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn outputs(admission: &mut Admission<u32>) -> Vec<Verdict<u32>> {
    std::iter::from_fn(|| admission.poll_output()).collect()
}

const START: Time = Time::ZERO;

#[test]
fn whoever_comes_while_there_is_room_is_admitted_at_once() {
    let mut admission = admission(4, 2);
    admission.enter(START, address(1), 1);
    admission.enter(START, address(1), 2);
    assert_eq!(outputs(&mut admission), [Verdict::Admitted(1), Verdict::Admitted(2)]);
}

#[test]
fn beyond_the_bound_they_wait_and_are_served_in_turn_over_addresses() {
    let mut admission = admission(8, 2);
    let first = admission.enter(START, address(1), 1);
    let second = admission.enter(START, address(1), 2);
    for number in 3..6 {
        admission.enter(START, address(1), number);
    }
    assert_eq!(outputs(&mut admission), [Verdict::Admitted(1), Verdict::Admitted(2)]);
    assert_eq!((admission.admitted(), admission.waiting()), (2, 3));
    // Another address has places of its own.
    admission.enter(START, address(2), 20);
    assert_eq!(outputs(&mut admission), [Verdict::Admitted(20)]);
    admission.leave(START, second);
    admission.leave(START, second);
    assert_eq!(outputs(&mut admission), [Verdict::Admitted(3)]);
    admission.leave(START, first);
    assert_eq!(outputs(&mut admission), [Verdict::Admitted(4)]);
}

#[test]
fn when_all_places_are_taken_addresses_take_turns() {
    let mut admission = admission(4, 4);
    admission.host_joined(START, address(1));
    admission.host_joined(START, address(2));
    let held: Vec<Ticket> =
        (0..4).map(|number| admission.enter(START, address(1), number)).collect();
    for number in [10, 11] {
        admission.enter(START, address(1), number);
    }
    for number in [20, 21] {
        admission.enter(START, address(2), number);
    }
    outputs(&mut admission);
    for ticket in held {
        admission.leave(START, ticket);
    }
    let admitted = outputs(&mut admission);
    assert_eq!(admitted, [20, 10, 21, 11].map(Verdict::Admitted), "one each, in turn");
}

#[test]
fn a_quarter_is_kept_for_addresses_with_an_authenticated_host() {
    let mut admission = admission(8, 8);
    for number in 0..20 {
        admission.enter(START, address(1), number);
    }
    assert_eq!(admission.admitted(), 6);
    admission.host_joined(START, address(2));
    outputs(&mut admission);
    admission.enter(START, address(2), 100);
    assert_eq!(outputs(&mut admission), [Verdict::Admitted(100)]);
    admission.host_joined(START, address(1));
    assert_eq!(admission.admitted(), 8, "now it has a host, too");
}

#[test]
fn while_somebody_waits_the_silent_lose_their_places() {
    let mut admission = admission(8, 2);
    let speaker = admission.enter(START, address(1), 1);
    admission.enter(START, address(1), 2);
    admission.spoke(speaker);
    let later = Time::ZERO + SILENCE_MAX;
    admission.handle_timeout(later);
    assert_eq!(admission.admitted(), 2, "nobody waits");
    outputs(&mut admission);
    assert_eq!(admission.poll_timeout(), None);
    admission.enter(later, address(1), 3);
    assert_eq!(outputs(&mut admission), [Verdict::Closed(2), Verdict::Admitted(3)]);
    admission.enter(later, address(1), 4);
    assert_eq!(outputs(&mut admission), []);
    let last = later + SILENCE_MAX;
    assert_eq!(admission.poll_timeout(), Some(last));
    admission.handle_timeout(last);
    assert_eq!(outputs(&mut admission), [Verdict::Closed(3), Verdict::Admitted(4)]);
}

#[test]
fn the_punished_never_take_all_places_of_an_address_with_a_host() {
    let mut admission = admission(100, 8);
    admission.host_joined(START, address(1));
    for number in 0..8 {
        let ticket = admission.enter(START, address(1), number);
        admission.punish(ticket);
    }
    let closed = (4..8).map(Verdict::Closed);
    let told = outputs(&mut admission).into_iter().filter(|it| matches!(it, Verdict::Closed(_)));
    assert_eq!(told.collect::<Vec<_>>(), closed.collect::<Vec<_>>());
    // Elsewhere they may.
    for number in 10..18 {
        let ticket = admission.enter(START, address(2), number);
        admission.punish(ticket);
    }
    assert!(outputs(&mut admission).iter().all(|it| matches!(it, Verdict::Admitted(_))));
}

#[test]
fn those_who_wait_are_bounded_and_the_fullest_address_loses_its_oldest() {
    let mut admission = admission(4, 1);
    for number in 0..5 {
        admission.enter(START, address(1), number);
    }
    admission.enter(START, address(2), 10);
    outputs(&mut admission);
    admission.enter(START, address(2), 11);
    assert_eq!(outputs(&mut admission), [Verdict::Closed(1)]);
    assert_eq!(admission.waiting(), 4);
}

#[test]
fn one_ipv6_network_is_one_address() {
    let mut admission = admission(10, 1);
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    admission.enter(START, address("2001:db8::1"), 1);
    admission.enter(START, address("2001:db8::2"), 2);
    admission.enter(START, address("2001:db8:0:1::1"), 3);
    assert_eq!(outputs(&mut admission), [Verdict::Admitted(1), Verdict::Admitted(3)]);
}

#[derive(Clone, Debug)]
enum Step {
    Enter { address: u8 },
    Spoke { nth: usize },
    Punish { nth: usize },
    Leave { nth: usize },
    HostJoined { address: u8 },
    HostLeft { address: u8 },
    Pass { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let nth = || 0..64_usize;
    let address = || 1..5_u8;
    prop_oneof![
        10 => address().prop_map(|address| Step::Enter { address }),
        3 => nth().prop_map(|nth| Step::Spoke { nth }),
        2 => nth().prop_map(|nth| Step::Punish { nth }),
        5 => nth().prop_map(|nth| Step::Leave { nth }),
        1 => address().prop_map(|address| Step::HostJoined { address }),
        1 => address().prop_map(|address| Step::HostLeft { address }),
        2 => (0..1_500_u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

#[derive(Default)]
struct World {
    now: Time,
    next: u32,
    hosts: BTreeMap<u8, usize>,
    /// By number: where from, its ticket, and whether it was admitted.
    present: BTreeMap<u32, (u8, Ticket, bool)>,
    spoke: BTreeSet<u32>,
    since: BTreeMap<u32, Time>,
}

impl World {
    fn take_step(&mut self, admission: &mut Admission<u32>, step: Step) {
        let numbers: Vec<u32> = self.present.keys().copied().collect();
        let pick = |nth: usize| (!numbers.is_empty()).then(|| numbers[nth % numbers.len()]);
        match step {
            Step::Enter { address: from } => {
                let ticket = admission.enter(self.now, address(from), self.next);
                self.present.insert(self.next, (from, ticket, false));
                self.next += 1;
            }
            Step::Spoke { nth } => {
                if let Some(number) = pick(nth).filter(|number| self.present[number].2) {
                    self.spoke.insert(number);
                    admission.spoke(self.present[&number].1);
                }
            }
            Step::Punish { nth } => {
                if let Some(number) = pick(nth).filter(|number| self.present[number].2) {
                    self.spoke.insert(number);
                    admission.punish(self.present[&number].1);
                }
            }
            Step::Leave { nth } => {
                if let Some(number) = pick(nth) {
                    admission.leave(self.now, self.present[&number].1);
                    self.present.remove(&number);
                }
            }
            Step::HostJoined { address: at } => {
                *self.hosts.entry(at).or_default() += 1;
                admission.host_joined(self.now, address(at));
            }
            Step::HostLeft { address: at } => {
                let hosts = self.hosts.entry(at).or_default();
                if *hosts > 0 {
                    *hosts -= 1;
                    admission.host_left(address(at));
                }
            }
            Step::Pass { millis } => {
                self.now = self.now + Duration::from_millis(millis);
                admission.handle_timeout(self.now);
            }
        }
        while let Some(verdict) = admission.poll_output() {
            match verdict {
                Verdict::Admitted(number) => {
                    let (_, _, admitted) = self.present.get_mut(&number).unwrap();
                    assert!(!std::mem::replace(admitted, true), "admitted once");
                    self.since.insert(number, self.now);
                }
                Verdict::Closed(number) => {
                    let (_, ticket, _) = self.present.remove(&number).unwrap();
                    admission.leave(self.now, ticket);
                }
            }
        }
    }

    fn admitted_at(&self, from: u8) -> usize {
        self.present.values().filter(|(at, _, admitted)| *at == from && *admitted).count()
    }

    fn check(&self, admission: &Admission<u32>, in_all: usize, per_address: usize) {
        let admitted = self.present.values().filter(|(_, _, admitted)| *admitted).count();
        assert_eq!(admission.admitted(), admitted);
        assert_eq!(admission.waiting(), self.present.len() - admitted);
        assert!(admitted <= in_all && admission.waiting() <= in_all);
        let has_host = |from: u8| self.hosts.get(&from).is_some_and(|hosts| *hosts > 0);
        let unknown: usize =
            (1..5).filter(|from| !has_host(*from)).map(|from| self.admitted_at(from)).sum();
        let share = (in_all - in_all / 4).max(1);
        for (number, (from, _, was_admitted)) in &self.present {
            assert!(self.admitted_at(*from) <= per_address);
            if !was_admitted {
                let is_full = self.admitted_at(*from) == per_address || admitted == in_all;
                assert!(
                    is_full || (!has_host(*from) && unknown >= share),
                    "{number} waits in vain"
                );
            }
        }
        for (number, (from, _, was_admitted)) in &self.present {
            let wanted = |(at, _, admitted): &&(u8, Ticket, bool)| {
                !admitted && (at == from || self.admitted_at(*at) < per_address)
            };
            if *was_admitted
                && !self.spoke.contains(number)
                && self.present.values().any(|it| wanted(&it))
            {
                assert!(self.since[number] + SILENCE_MAX > self.now, "the silent make room");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn nobody_waits_in_vain_and_all_is_bounded(
        in_all in 1..10_usize,
        per_address in 1..6_usize,
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut admission = admission(in_all, per_address);
        let mut world = World::default();
        for step in steps {
            world.take_step(&mut admission, step);
            world.check(&admission, in_all, per_address);
        }
    }
}
