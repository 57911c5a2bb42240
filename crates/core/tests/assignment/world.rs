//! The rules read plainly: lists, searched from the front.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use relayserver_core::{
    Book, BookSnapshot, Capacity, ChannelId, ChannelKey, CommandId, Grant, GrantId, Handles,
    HostId, HostSnapshot, Limits, MemberSnapshot, Phase, Policy, Reason, Role, ServiceName,
    ServiceSnapshot, SessionId, Time,
};

/// Handles that say whose they are, so that a mix-up shows.
pub(crate) struct Named;

impl Handles for Named {
    type Command = CommandId;
    type Channel = ChannelId;
    type Client = SessionId;
    type Stop = SessionId;
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) grant: Option<GrantId>,
    pub(crate) key: u128,
    /// The one that it showed for that.
    pub(crate) key_before: Option<u128>,
    /// What its hello named.
    pub(crate) services: BTreeSet<ServiceName>,
    pub(crate) capacity: Capacity,
    pub(crate) pools: BTreeMap<ServiceName, Bounds>,
    pub(crate) suspect_since: Option<Time>,
    pub(crate) leaving: bool,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) last_failure: Option<(Time, Reason)>,
    pub(crate) failing_until: Option<Time>,
}

/// What a host may keep idle of a service, and what it keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) told: Option<usize>,
}

impl Bounds {
    pub(crate) fn kept(&self) -> usize {
        self.told.map_or(self.min, |told| told.clamp(self.min, self.max))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) host: HostId,
    pub(crate) service: ServiceName,
    /// What it showed.
    pub(crate) key: Option<ChannelKey>,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) service: ServiceName,
    /// Of its arrival, or of its return from a host.
    pub(crate) since: Time,
    /// Whom it was given to. `None`: it waits.
    pub(crate) host: Option<HostId>,
    /// What carries it, until that is returned.
    pub(crate) channel: Option<ChannelId>,
    pub(crate) tried: BTreeSet<HostId>,
    /// Hosts that were lost with it, once.
    pub(crate) lost: BTreeSet<HostId>,
    pub(crate) accepted: bool,
    pub(crate) withdrawn: bool,
    /// Whether its host's word still counts although it was withdrawn.
    pub(crate) late_word_counts: bool,
    pub(crate) client_finished: bool,
    pub(crate) host_finished: bool,
    pub(crate) asked_to_end: bool,
}

pub(crate) struct World {
    pub(crate) book: Book<Named>,
    pub(crate) limits: Limits,
    pub(crate) policy: Policy,
    pub(crate) now: Time,
    pub(crate) draining: bool,
    pub(crate) next_number: u64,
    pub(crate) grants: BTreeMap<GrantId, Grant>,
    /// Those whose end was dealt with.
    pub(crate) expired: BTreeSet<GrantId>,
    pub(crate) commands: BTreeMap<CommandId, HostId>,
    pub(crate) had_command: BTreeSet<HostId>,
    pub(crate) members: BTreeMap<HostId, Member>,
    pub(crate) channels: BTreeMap<ChannelId, Channel>,
    pub(crate) reserved: Vec<ChannelId>,
    /// In the order of their arrival in the pool.
    pub(crate) idle: Vec<ChannelId>,
    /// When a host was given a client of a service last, or the first of its idle channels came.
    turns: BTreeMap<(HostId, ServiceName), u64>,
    /// The one whose return the book is being told.
    pub(crate) returning: Option<ChannelId>,
    /// By the order of their arrival: session ids ascend.
    pub(crate) sessions: BTreeMap<SessionId, Session>,
}

pub(crate) fn host_of_v1(host: u8) -> HostId {
    HostId::from_address(Ipv4Addr::new(127, 0, 0, host).into())
}

pub(crate) fn member(host: u8) -> HostId {
    HostId::Process(u128::from(host))
}

/// Whether it is of version 2.
pub(crate) fn is_member(host: HostId) -> bool {
    matches!(host, HostId::Process(_))
}

pub(crate) fn grant_id(token: u8) -> GrantId {
    GrantId::new(&format!("token-{token}"))
}

impl World {
    pub(crate) fn new((limits, policy): (Limits, Policy)) -> World {
        let first = ChannelId::new(i32::MAX - 2).unwrap();
        World {
            book: Book::new(limits, policy.clone(), first),
            limits,
            policy,
            now: Time::ZERO,
            draining: false,
            next_number: 1,
            grants: BTreeMap::new(),
            expired: BTreeSet::new(),
            commands: BTreeMap::new(),
            had_command: BTreeSet::new(),
            members: BTreeMap::new(),
            channels: BTreeMap::new(),
            reserved: Vec::new(),
            idle: Vec::new(),
            turns: BTreeMap::new(),
            returning: None,
            sessions: BTreeMap::new(),
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn waiting(&self) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, it)| it.host.is_none()).map(|(id, _)| *id).collect()
    }

    pub(crate) fn running(&self) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, it)| it.host.is_some()).map(|(id, _)| *id).collect()
    }

    pub(crate) fn host_serving(&self, session: SessionId) -> HostId {
        self.sessions[&session].host.unwrap()
    }

    pub(crate) fn sessions_of(&self, host: HostId) -> usize {
        self.running().into_iter().filter(|it| self.host_serving(*it) == host).count()
    }

    pub(crate) fn has_command(&self, host: HostId) -> bool {
        self.commands.values().any(|it| *it == host)
    }

    pub(crate) fn commands_of_v1(&self) -> Vec<CommandId> {
        let of_v1 = |host: &HostId| matches!(host, HostId::Address(_));
        self.commands.iter().filter(|(_, host)| of_v1(host)).map(|(id, _)| *id).collect()
    }

    /// Where an announcement about a channel of `host`, of version 1, must go.
    pub(crate) fn audience(&self, host: HostId) -> Vec<CommandId> {
        let own: Vec<CommandId> =
            self.commands.iter().filter(|(_, it)| **it == host).map(|(id, _)| *id).collect();
        if own.is_empty() { self.commands_of_v1() } else { own }
    }

    pub(crate) fn is_lost(&self, host: HostId) -> bool {
        if self.had_command.contains(&host) {
            !self.has_command(host)
        } else {
            self.commands_of_v1().is_empty()
        }
    }

    pub(crate) fn refusal_of_grant(&self, grant: Option<&GrantId>) -> Option<Reason> {
        let Some(id) = grant else {
            return self.policy.open_service.is_none().then_some(Reason::TokenRequired);
        };
        let Some(grant) = self.grants.get(id) else {
            return Some(Reason::TokenRevoked);
        };
        if grant.expires.is_some_and(|expires| expires <= self.now) {
            return Some(Reason::TokenExpired);
        }
        (grant.role == Role::Client).then_some(Reason::RoleNotGranted)
    }

    pub(crate) fn refusal_of_service(&self, host: HostId, service: &ServiceName) -> Option<Reason> {
        let Some(member) = self.members.get(&host) else {
            return self.refusal_without_token(service, Reason::Version1Off);
        };
        let refusal = self.refusal_of_member(member.grant.as_ref(), service);
        if refusal.is_some() {
            refusal
        } else if !member.services.contains(service) {
            Some(Reason::ServiceNotGranted)
        } else {
            member.leaving.then_some(Reason::Draining)
        }
    }

    /// Why a host of version 2 may not serve `service` under this grant, whatever it named.
    pub(crate) fn refusal_of_member(
        &self,
        grant: Option<&GrantId>,
        service: &ServiceName,
    ) -> Option<Reason> {
        let Some(id) = grant else {
            return self.refusal_without_token(service, Reason::TokenRequired);
        };
        if !self.policy.services.contains_key(service) {
            return Some(Reason::ServiceUnknown);
        }
        let refusal = self.refusal_of_grant(grant);
        if refusal.is_some() {
            return refusal;
        }
        let covers = |pattern: &str| pattern == "*" || pattern == service.as_str();
        let mut patterns = self.grants[id].services.iter().map(ToString::to_string);
        if !patterns.any(|pattern| covers(&pattern)) {
            return Some(Reason::ServiceNotGranted);
        }
        (self.is_open(service) && !self.policy.mixed).then_some(Reason::ServiceOfVersion1)
    }

    fn refusal_without_token(&self, service: &ServiceName, not_open: Reason) -> Option<Reason> {
        if !self.policy.services.contains_key(service) {
            Some(Reason::ServiceUnknown)
        } else {
            (!self.is_open(service)).then_some(not_open)
        }
    }

    fn is_open(&self, service: &ServiceName) -> bool {
        self.policy.open_service.as_ref() == Some(service)
    }

    pub(crate) fn is_key_of(&self, host: HostId, key: Option<ChannelKey>) -> bool {
        self.members.get(&host).is_some_and(|it| key.is_some_and(|key| key.bits() == it.key))
    }

    pub(crate) fn may_serve(&self, host: HostId, service: &ServiceName) -> bool {
        let capacity = self.capacity_of(host);
        let has_room = capacity.sessions_max.is_none_or(|max| self.sessions_of(host) < max);
        has_room && self.is_here(host, service)
    }

    fn capacity_of(&self, host: HostId) -> Capacity {
        self.members.get(&host).map_or(Capacity::default(), |member| member.capacity)
    }

    /// The less the better: whether it has failed of late, and its sessions with one more, for its weight.
    fn load(&self, host: HostId) -> (bool, usize) {
        let failing = self.members.get(&host).and_then(|member| member.failing_until);
        let weight = self.capacity_of(host).weight as usize;
        (failing.is_some(), (self.sessions_of(host) + 1) * 10_000 / weight)
    }

    pub(crate) fn is_here(&self, host: HostId, service: &ServiceName) -> bool {
        let paused = |member: &Member| member.pools.get(service).is_some_and(|it| it.max == 0);
        let is_here = match self.members.get(&host) {
            Some(member) => {
                self.has_command(host) && member.suspect_since.is_none() && !paused(member)
            }
            None => !self.commands_of_v1().is_empty(),
        };
        is_here && self.refusal_of_service(host, service).is_none()
    }

    pub(crate) fn is_full(&self, service: &ServiceName) -> bool {
        let running = self.running();
        let sessions = running.iter().filter(|it| self.sessions[it].service == *service).count();
        self.policy.services[service].sessions_max.is_some_and(|max| sessions >= max)
    }

    /// The client of `service` that is to be served next, and the channel that it must get.
    pub(crate) fn next_match(&self, service: &ServiceName) -> Option<(SessionId, ChannelId)> {
        if self.is_full(service) {
            return None;
        }
        self.waiting().into_iter().find_map(|session| {
            let it = &self.sessions[&session];
            if it.service != *service {
                return None;
            }
            let host = |channel: &ChannelId| self.channels[channel].host;
            let may_have = |channel: &&ChannelId| {
                self.channels[channel].service == *service
                    && !it.tried.contains(&host(channel))
                    && self.may_serve(host(channel), service)
            };
            let candidates: Vec<ChannelId> = self.idle.iter().filter(may_have).copied().collect();
            let turn = |host: HostId| self.turns[&(host, service.clone())];
            let rank = |host: HostId| (self.load(host), turn(host));
            let best = candidates.iter().map(host).min_by_key(|host| rank(*host))?;
            let mut its_own = candidates.into_iter().filter(|it| host(it) == best);
            let channel = if is_member(best) { its_own.next_back() } else { its_own.next() };
            Some((session, channel?))
        })
    }

    /// The channel waits for a client from now on.
    pub(crate) fn comes_into_pool(&mut self, channel: ChannelId) {
        let number = self.number();
        let Channel { host, service, .. } = self.channels[&channel].clone();
        let of_pool = |it: &Channel| it.host == host && it.service == service;
        if !self.idle.iter().any(|it| of_pool(&self.channels[it])) {
            self.turns.insert((host, service), number);
        }
        self.idle.push(channel);
    }

    /// The channel is given to a client.
    pub(crate) fn taken_from_pool(&mut self, channel: ChannelId) {
        let number = self.number();
        let Channel { host, service, .. } = self.channels[&channel].clone();
        self.turns.insert((host, service), number);
        self.idle.retain(|it| *it != channel);
    }

    /// A host of whom nothing is left is a new one should it come back.
    fn forget_hosts(&mut self) {
        let present = self.present();
        let World { had_command, members, .. } = self;
        had_command.retain(|host| present.contains(host));
        members.retain(|host, _| present.contains(host));
    }

    /// The hosts that have something here.
    fn present(&self) -> BTreeSet<HostId> {
        let of_channels = self.channels.values().map(|channel| channel.host);
        let of_sessions = self.sessions.values().filter_map(|session| session.host);
        self.commands.values().copied().chain(of_channels).chain(of_sessions).collect()
    }

    fn expected_snapshot(&self) -> BookSnapshot {
        let services = self.policy.services.iter().map(|(name, limits)| {
            let of = |id: &&SessionId| self.sessions[*id].service == *name;
            let idle = self.idle.iter().filter(|it| self.channels[it].service == *name).count();
            let waiting = self.waiting().iter().filter(of).count();
            let sessions = self.running().iter().filter(of).count();
            // What is asked for has its own tests.
            let wanted = self.book.snapshot().services[name].wanted;
            (name.clone(), ServiceSnapshot { idle, waiting, sessions, wanted, limits: *limits })
        });
        let hosts = self.present().into_iter().map(|host| {
            let mut idle = BTreeMap::new();
            for channel in self.idle.iter().map(|it| &self.channels[it]) {
                if channel.host == host {
                    *idle.entry(channel.service.clone()).or_default() += 1;
                }
            }
            let member = self.members.get(&host).map(|it| MemberSnapshot {
                grant: it.grant.clone(),
                services: it.services.clone(),
                capacity: it.capacity,
                suspect_since: it.suspect_since,
                leaving: it.leaving,
                rtt: it.round_trip,
                last_refusal: it.last_failure,
            });
            let pools = self.members.get(&host).map(|it| it.pools.clone()).unwrap_or_default();
            let wanted = pools.into_iter().map(|(name, bounds)| (name, bounds.kept())).collect();
            let (has_command, sessions) = (self.has_command(host), self.sessions_of(host));
            (host, HostSnapshot { has_command, member, idle, wanted, sessions })
        });
        BookSnapshot {
            draining: self.draining,
            limits: self.limits,
            services: services.collect(),
            hosts: hosts.collect(),
        }
    }

    pub(crate) fn check(&mut self) {
        self.forget_hosts();
        // What its lost host has finished was asked to end.
        self.void_late_words(|world, it| {
            world.sessions[&it].host_finished && world.is_lost(world.host_serving(it))
        });
        self.book.check_invariants(self.now).unwrap();
        assert_eq!(self.book.snapshot(), self.expected_snapshot());
        let occupancy = self.book.occupancy();
        assert_eq!(occupancy.idle, self.idle.len());
        assert_eq!(occupancy.waiting, self.waiting().len());
        assert_eq!(occupancy.sessions, self.running().len());
        assert_eq!(occupancy.commands, self.commands.len());
        for (session, it) in &self.sessions {
            let expected = if it.host.is_none() {
                Phase::Waiting
            } else if it.withdrawn {
                Phase::Withdrawn
            } else if !it.accepted {
                Phase::Offered
            } else {
                match (it.client_finished, it.host_finished) {
                    (false, false) => Phase::Open,
                    (true, false) => Phase::ClientFinished,
                    (false, true) => Phase::HostFinished,
                    (true, true) => Phase::BothFinished,
                }
            };
            assert_eq!(self.book.phase(*session), Some(expected));
        }
        for channel in &self.idle {
            let Channel { host, service, .. } = &self.channels[channel];
            let refusal = self.refusal_of_service(*host, service);
            assert_eq!(
                refusal, None,
                "no channel is kept idle whose host may not serve its service"
            );
        }
        for service in self.policy.services.keys() {
            assert_eq!(self.next_match(service), None, "no client waits while it could be served");
            self.check_pools(service);
        }
    }

    /// Each host keeps what it may, and whoever waits has a channel to come, as far as the hosts' bounds allow.
    fn check_pools(&self, service: &ServiceName) {
        let here = self.members.iter().filter(|(host, _)| self.is_here(**host, service));
        let pools: Vec<Bounds> =
            here.filter_map(|(_, member)| member.pools.get(service).copied()).collect();
        let most: usize = pools.iter().map(|bounds| bounds.max).sum();
        let kept: usize = pools.iter().map(Bounds::kept).sum();
        let of_service = |it: &&SessionId| self.sessions[*it].service == *service;
        let waiting = self.waiting().iter().filter(of_service).count();
        let Limits { channels_max, clients_max, .. } = self.limits;
        let asked_max = channels_max.saturating_sub(clients_max).max(channels_max / 2);
        let may_be_asked = most.min(asked_max);
        assert!(kept >= waiting.min(may_be_asked), "{waiting} wait for {kept} of {most}");
    }
}
