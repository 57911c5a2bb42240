//! What may happen, in any order, and under which limits.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use relayserver_core::{Capacity, Limits, Policy, Reason, ServiceLimits, ServiceName};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    CommandUp {
        host: u8,
    },
    MemberUp {
        host: u8,
        token: Option<u8>,
        knows_key: bool,
        services: Vec<&'static str>,
        capacity: Capacity,
    },
    Bounds {
        nth: usize,
        ssh: bool,
        min: usize,
        more: usize,
    },
    Surplus {
        nth: usize,
        ssh: bool,
        idle: usize,
    },
    RoundTrip {
        nth: usize,
        millis: u64,
    },
    CommandDown {
        nth: usize,
    },
    Suspect {
        nth: usize,
    },
    Well {
        nth: usize,
    },
    Gone {
        nth: usize,
    },
    Leaving {
        nth: usize,
    },
    Grant {
        token: u8,
        only_ssh: bool,
        lasts: Option<u64>,
        is_host: bool,
    },
    Revoke {
        token: u8,
    },
    Hello {
        host: u8,
    },
    MemberHello {
        host: u8,
        ssh: bool,
        knows_key: bool,
    },
    Idle {
        nth: usize,
    },
    ChannelGone {
        nth: usize,
    },
    ClientArrives {
        ssh: bool,
    },
    ClientGone {
        nth: usize,
    },
    Accepted {
        nth: usize,
    },
    OfferFailed {
        nth: usize,
        reason: Reason,
    },
    ClientFinished {
        nth: usize,
    },
    HostFinished {
        nth: usize,
    },
    Returned {
        nth: usize,
    },
    SessionEnded {
        nth: usize,
    },
    Pass {
        millis: u64,
    },
    Drain,
    EndAll,
}

/// What happens, one after the other: from nothing, or with a host of version 2 that serves from the start, with a channel that carries its
/// second session or without.
pub(crate) fn history() -> impl Strategy<Value = Vec<Step>> {
    let beginning = prop_oneof![Just(Vec::new()), Just(serving()), Just(returning())];
    (beginning, prop::collection::vec(step(), 1..150))
        .prop_map(|(beginning, steps)| beginning.into_iter().chain(steps).collect())
}

/// A host of version 2 with a session that it has accepted, one that it was offered, and an idle channel.
fn serving() -> Vec<Step> {
    let mut steps = vec![
        Step::Grant { token: 1, only_ssh: false, lasts: None, is_host: true },
        Step::MemberUp {
            host: 1,
            token: Some(1),
            knows_key: true,
            services: vec!["ssh"],
            capacity: Capacity::default(),
        },
        Step::Bounds { nth: 0, ssh: true, min: 1, more: 5 },
    ];
    for _ in 0..3 {
        steps.push(Step::MemberHello { host: 1, ssh: true, knows_key: true });
        steps.push(Step::Idle { nth: 0 });
    }
    steps.push(Step::ClientArrives { ssh: true });
    steps.push(Step::Accepted { nth: 0 });
    steps.push(Step::ClientArrives { ssh: true });
    steps
}

/// The same host; of its sessions one has returned its channel, which carries another by now.
fn returning() -> Vec<Step> {
    let mut steps = serving();
    steps.push(Step::Returned { nth: 0 });
    steps.push(Step::ClientArrives { ssh: true });
    steps.push(Step::ClientArrives { ssh: true });
    steps.push(Step::Accepted { nth: 3 });
    steps
}

fn step() -> impl Strategy<Value = Step> {
    let nth = || 0..64_usize;
    let host = || 1..4_u8;
    let token = || 1..3_u8;
    let flag = any::<bool>;
    // Mostly right.
    let knows = || prop::bool::weighted(0.8);
    let failure = prop::sample::select(vec![
        Reason::Rejected,
        Reason::TargetUnreachable,
        Reason::HostAborted,
        Reason::HostSuspect,
        Reason::NotAccepted,
    ]);
    let of_hosts = prop_oneof![
        3 => host().prop_map(|host| Step::CommandUp { host }),
        8 => (host(), prop::option::weighted(0.9, token()), knows(), services(), capacity())
            .prop_map(|(host, token, knows_key, services, capacity)| {
                Step::MemberUp { host, token, knows_key, services, capacity }
            }),
        5 => (nth(), flag(), 0..4_usize, 0..8_usize)
            .prop_map(|(nth, ssh, min, more)| Step::Bounds { nth, ssh, min, more }),
        5 => (nth(), flag(), 0..4_usize)
            .prop_map(|(nth, ssh, idle)| Step::Surplus { nth, ssh, idle }),
        2 => (nth(), 0..800_u64).prop_map(|(nth, millis)| Step::RoundTrip { nth, millis }),
        3 => nth().prop_map(|nth| Step::CommandDown { nth }),
        2 => nth().prop_map(|nth| Step::Suspect { nth }),
        3 => nth().prop_map(|nth| Step::Well { nth }),
        1 => nth().prop_map(|nth| Step::Gone { nth }),
        1 => nth().prop_map(|nth| Step::Leaving { nth }),
        3 => (token(), flag(), prop::option::weighted(0.3, 0..4_000_u64), prop::bool::weighted(0.9))
            .prop_map(|(token, only_ssh, lasts, is_host)| Step::Grant { token, only_ssh, lasts, is_host }),
        1 => token().prop_map(|token| Step::Revoke { token }),
        8 => host().prop_map(|host| Step::Hello { host }),
        12 => (host(), flag(), knows())
            .prop_map(|(host, ssh, knows_key)| Step::MemberHello { host, ssh, knows_key }),
        18 => nth().prop_map(|nth| Step::Idle { nth }),
        3 => nth().prop_map(|nth| Step::ChannelGone { nth }),
    ];
    let of_clients = prop_oneof![
        14 => flag().prop_map(|ssh| Step::ClientArrives { ssh }),
        3 => nth().prop_map(|nth| Step::ClientGone { nth }),
        6 => nth().prop_map(|nth| Step::Accepted { nth }),
        6 => (nth(), failure).prop_map(|(nth, reason)| Step::OfferFailed { nth, reason }),
        4 => nth().prop_map(|nth| Step::ClientFinished { nth }),
        4 => nth().prop_map(|nth| Step::HostFinished { nth }),
        6 => nth().prop_map(|nth| Step::Returned { nth }),
        5 => nth().prop_map(|nth| Step::SessionEnded { nth }),
    ];
    prop_oneof![
        60 => of_hosts,
        45 => of_clients,
        8 => (0..3_000_u64).prop_map(|millis| Step::Pass { millis }),
        1 => (0..200_000_u64).prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Drain),
        1 => Just(Step::EndAll),
    ]
}

/// What a hello may name: mostly what there is, and what a token covers.
fn services() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        6 => Just(vec!["ssh"]),
        4 => Just(vec!["default", "ssh"]),
        2 => Just(vec!["default"]),
        1 => prop::sample::subsequence(vec!["default", "no-such", "ssh"], 1..=3),
    ]
}

fn capacity() -> impl Strategy<Value = Capacity> {
    let weight = prop::sample::select(vec![50, 100, 200]);
    (weight, prop::option::weighted(0.3, 1..4_usize))
        .prop_map(|(weight, sessions_max)| Capacity { weight, sessions_max })
}

pub(crate) fn ssh() -> ServiceName {
    ServiceName::new("ssh")
}

/// The limits, and the services: `default`, which is open, and `ssh`.
pub(crate) fn setting() -> impl Strategy<Value = (Limits, Policy)> {
    let service = || {
        let timeout = prop_oneof![Just(0_u64), Just(2_000), Just(3_000)];
        (timeout, 0..6_usize, prop::option::weighted(0.3, 1..4_usize)).prop_map(
            |(timeout, queue_max, sessions_max)| ServiceLimits {
                assign_timeout: Duration::from_millis(timeout),
                queue_max,
                sessions_max,
            },
        )
    };
    let policy = (service(), service(), any::<bool>(), prop::bool::weighted(0.8)).prop_map(
        |(open, other, mixed, is_open)| Policy {
            services: BTreeMap::from([(ServiceName::default(), open), (ssh(), other)]),
            open_service: is_open.then(ServiceName::default),
            mixed,
        },
    );
    let limits = (1..12_usize, 1..20_usize, 1..6_usize).prop_map(
        |(clients_max, channels_max, commands_max)| Limits {
            clients_max,
            channels_max,
            commands_max,
            ..Limits::default()
        },
    );
    (limits, policy)
}
