//! What stands in the book, as plain data: for whoever wants to look at a relay. It is made under the book's lock and holds at most an
//! entry for each service and each host. Nothing in here decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Book;
use crate::ids::{GrantId, HostId, ServiceName};
use crate::limits::{Limits, ServiceLimits};
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::{Capacity, Handles};

/// What stands in a [`Book`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookSnapshot {
    /// Whether the relay is leaving.
    pub draining: bool,
    /// How many of everything it may have.
    pub limits: Limits,
    /// Every service that clients can ask for.
    pub services: BTreeMap<ServiceName, ServiceSnapshot>,
    /// Every host that has a command channel, a data channel or a session.
    pub hosts: BTreeMap<HostId, HostSnapshot>,
}

/// What a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceSnapshot {
    /// Data channels that wait for a client.
    pub idle: usize,
    /// Clients that wait for a channel.
    pub waiting: usize,
    /// Sessions that run.
    pub sessions: usize,
    /// Idle channels that its hosts are asked for, all together, as far as their bounds allow.
    pub wanted: usize,
    /// How much it may have.
    pub limits: ServiceLimits,
}

/// What a host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSnapshot {
    /// Whether it has a command channel now.
    pub has_command: bool,
    /// What it said of itself; `None` for a host of version 1, which says nothing.
    pub member: Option<MemberSnapshot>,
    /// Its data channels that wait for a client, of each service where there are any.
    pub idle: BTreeMap<ServiceName, usize>,
    /// How many of them the relay asks it for, of each service where it lets the relay choose.
    pub wanted: BTreeMap<ServiceName, usize>,
    /// Its sessions.
    pub sessions: usize,
}

/// What is known of a host of version 2 besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSnapshot {
    /// The grant of its token, where it has one.
    pub grant: Option<GrantId>,
    /// The services that it named.
    pub services: BTreeSet<ServiceName>,
    /// How much it takes.
    pub capacity: Capacity,
    /// Since when it was not heard from for too long: it gets no new sessions. `None`: it is well.
    pub suspect_since: Option<Time>,
    /// It is leaving, and gets no new sessions.
    pub leaving: bool,
    /// How long a round trip to it takes, smoothed.
    pub rtt: Option<Duration>,
    /// When it failed to serve a session last, and why.
    pub last_refusal: Option<(Time, Reason)>,
}

impl<H: Handles> Book<H> {
    /// What stands in the book now. Costs time in proportion to the services and the hosts, not to sessions.
    pub fn snapshot(&self) -> BookSnapshot {
        let names = self.roster.policy.services.keys();
        let mut hosts = self.roster.snapshot();
        for (name, service) in &self.services {
            for (host, idle) in service.pool.idle_by_host() {
                hosts.entry(host).or_default().idle.insert(name.clone(), idle);
            }
        }
        BookSnapshot {
            draining: self.draining,
            limits: self.limits,
            services: names.map(|name| (name.clone(), self.service_snapshot(name))).collect(),
            hosts,
        }
    }

    fn service_snapshot(&self, name: &ServiceName) -> ServiceSnapshot {
        let limits = self.limits_of(name);
        let wanted = self.demands.asked(name);
        let empty = ServiceSnapshot { idle: 0, waiting: 0, sessions: 0, wanted, limits };
        self.services.get(name).map_or(empty, |service| ServiceSnapshot {
            idle: service.pool.len(),
            waiting: service.queue.len(),
            sessions: service.sessions,
            wanted,
            limits,
        })
    }
}
