//! What has happened since a relay started, counted. Every label that a count can have comes from a closed list: the services that
//! the operator has set up, and the reasons.

use std::collections::BTreeMap;
use std::time::Duration;

use relayserver_core::{Reason, ServiceName};

/// How often each reason came up; one that never did is missing.
pub type ReasonCounts = BTreeMap<Reason, u64>;

/// What has happened since a relay started. Each session and each refusal is counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of each service that had a client.
    pub services: BTreeMap<ServiceName, ServiceCounts>,
    /// Connections on the ports of hosts that were taken.
    pub taken_hosts: u64,
    /// Connections on the ports of hosts that were refused, for what reason.
    pub refused_hosts: ReasonCounts,
    /// How many bytes sessions have handed to hosts, those that run among them.
    pub bytes_to_host: u64,
    /// And to clients.
    pub bytes_to_client: u64,
}

/// What has happened to the clients of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// Sessions that were opened: a host has accepted them, or they have ended before one did.
    pub opened: u64,
    /// Sessions that have ended, for what reason.
    pub ended: ReasonCounts,
    /// Clients that were refused, for what reason.
    pub refused_clients: ReasonCounts,
    /// How long clients waited until they got a channel.
    pub waits: Waits,
}

/// How long something took, how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// How often it took no longer than each of [`Waits::BOUNDS`], and longer than the one before.
    pub buckets: [u64; Waits::BOUNDS.len()],
    /// How often it was measured.
    pub count: u64,
    /// How long it took, all together.
    pub sum: Duration,
}

impl Counts {
    /// Sessions that have ended, of all services.
    pub fn ended(&self) -> ReasonCounts {
        sum(self.services.values().map(|service| &service.ended))
    }

    /// Clients that were refused, of all services.
    pub fn refused_clients(&self) -> ReasonCounts {
        sum(self.services.values().map(|service| &service.refused_clients))
    }

    pub(crate) fn service(&mut self, name: &ServiceName) -> &mut ServiceCounts {
        self.services.entry(name.clone()).or_default()
    }
}

impl Waits {
    /// From what a free channel takes to what no client waits for.
    pub const BOUNDS: [Duration; 10] = [
        Duration::from_millis(1),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_secs(5),
        Duration::from_secs(10),
    ];

    pub(crate) fn add(&mut self, waited: Duration) {
        let bucket =
            Waits::BOUNDS.iter().zip(&mut self.buckets).find(|(bound, _)| waited <= **bound);
        if let Some((_, bucket)) = bucket {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += waited;
    }
}

pub(crate) fn count(counts: &mut ReasonCounts, reason: Reason) {
    *counts.entry(reason).or_default() += 1;
}

fn sum<'a>(all: impl Iterator<Item = &'a ReasonCounts>) -> ReasonCounts {
    let mut sum = ReasonCounts::new();
    for (reason, times) in all.flatten() {
        *sum.entry(*reason).or_default() += times;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_counted_in_the_first_bucket_that_holds_it() {
        let mut waits = Waits::default();
        for millis in [0, 1, 2, 10_000, 10_001] {
            waits.add(Duration::from_millis(millis));
        }
        assert_eq!(waits.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((waits.count, waits.sum), (5, Duration::from_millis(20_004)));
    }
}
