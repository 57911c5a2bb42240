//! What the roster knows of one host of version 2. Nothing in here looks at other hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::snapshot::MemberSnapshot;
use crate::demand::Bidder;
use crate::ids::{ChannelKey, GrantId, ServiceName};
use crate::pool::Load;
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::{Capacity, Membership};

pub(super) struct Member {
    pub(super) grant: Option<GrantId>,
    /// Of its command channel, or of the last one that it had.
    pub(super) key: ChannelKey,
    /// The one that it showed when it got that: all that it knows, where the answer was lost.
    pub(super) key_before: Option<ChannelKey>,
    /// What its command channel's hello named.
    pub(super) services: BTreeSet<ServiceName>,
    pub(super) capacity: Capacity,
    /// Its pools, as far as it has said between what bounds they are.
    pools: BTreeMap<ServiceName, Terms>,
    pub(super) suspect_since: Option<Time>,
    /// It finishes what it serves, and takes nothing new.
    pub(super) leaving: bool,
    /// Smoothed.
    round_trip: Option<Duration>,
    /// When it failed to serve a session last, and why.
    pub(super) last_failure: Option<(Time, Reason)>,
    /// Until when that speaks against it.
    pub(super) failing_until: Option<Time>,
}

/// What host and relay have said about one pool of idle channels.
#[derive(Clone, Copy, Debug)]
struct Terms {
    min: usize,
    max: usize,
    /// The last number that it was told.
    told: Option<usize>,
}

impl Member {
    /// As it says hello. Of one that was known `before`, what it did stays known.
    pub(super) fn new(membership: Membership, before: Option<&Member>) -> Member {
        let Membership { grant, services, key, last_key, capacity } = membership;
        Member {
            grant,
            key,
            // Of a host that is new here, whatever it shows proves nothing.
            key_before: last_key.filter(|_| before.is_some()),
            services,
            capacity,
            pools: BTreeMap::new(),
            suspect_since: None,
            leaving: false,
            round_trip: before.and_then(|before| before.round_trip),
            last_failure: before.and_then(|before| before.last_failure),
            failing_until: before.and_then(|before| before.failing_until),
        }
    }

    /// How much speaks against giving it another session, when it has so many.
    pub(super) fn load(&self, sessions: usize) -> Load {
        load(self.failing_until.is_some(), sessions, self.capacity.weight)
    }

    pub(super) fn has_room(&self, sessions: usize) -> bool {
        self.capacity.sessions_max.is_none_or(|max| sessions < max)
    }

    /// It says between what bounds it keeps a pool. Gives whether that is one of its own.
    pub(super) fn set_bounds(&mut self, service: &ServiceName, min: usize, max: usize) -> bool {
        let is_own = self.services.contains(service);
        if is_own {
            let terms = self.pools.entry(service.clone());
            let terms = terms.or_insert(Terms { min, max, told: None });
            (terms.min, terms.max) = (min.min(max), max);
        }
        is_own
    }

    /// Whether it takes no sessions of `service` for now.
    pub(super) fn has_paused(&self, service: &ServiceName) -> bool {
        self.pools.get(service).is_some_and(|terms| terms.max == 0)
    }

    /// What it may keep of `service`; `None` where it has not said so.
    pub(super) fn bidder(&self, service: &ServiceName) -> Option<Bidder> {
        let Terms { min, max, .. } = *self.pools.get(service)?;
        Some(Bidder { min, max, weight: self.capacity.weight })
    }

    /// It is to keep so many. Gives whether it has to be told.
    pub(super) fn want(&mut self, service: &ServiceName, idle: usize) -> bool {
        let Some(terms) = self.pools.get_mut(service) else {
            return false;
        };
        let is_news = terms.wanted() != idle;
        if is_news {
            terms.told = Some(idle);
        }
        is_news
    }

    /// A round trip to it took so long.
    pub(super) fn set_round_trip(&mut self, round_trip: Duration) {
        // As TCP does it (RFC 6298): an eighth of what is new.
        let smoothed = self.round_trip.map(|smoothed| (smoothed * 7 + round_trip) / 8);
        self.round_trip = Some(smoothed.unwrap_or(round_trip));
    }

    pub(super) fn snapshot(&self) -> MemberSnapshot {
        MemberSnapshot {
            grant: self.grant.clone(),
            services: self.services.clone(),
            capacity: self.capacity,
            suspect_since: self.suspect_since,
            leaving: self.leaving,
            rtt: self.round_trip,
            last_refusal: self.last_failure,
        }
    }

    /// How many idle channels it is to keep of `service`; none where it has not said between what bounds it does.
    pub(super) fn wanted_of(&self, service: &ServiceName) -> usize {
        self.pools.get(service).map_or(0, Terms::wanted)
    }

    /// How many idle channels it keeps of each service, as far as the relay knows.
    pub(super) fn wanted(&self) -> BTreeMap<ServiceName, usize> {
        self.pools.iter().map(|(name, terms)| (name.clone(), terms.wanted())).collect()
    }
}

impl Terms {
    /// How many it keeps.
    fn wanted(&self) -> usize {
        self.told.map_or(self.min, |told| told.clamp(self.min, self.max))
    }
}

/// How loaded a host of this weight is.
pub(super) fn load(has_failed: bool, sessions: usize, weight: u32) -> Load {
    let sessions = (sessions as u64 + 1).saturating_mul(1 << 20) / u64::from(weight.max(1));
    Load { has_failed, sessions }
}
