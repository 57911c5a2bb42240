//! Who is here, and who may serve what: hosts with their command channels, and the grants of those that have a token.
//!
//! - Hosts of version 1 serve the open service, and nothing else, while any command channel of version 1 is up.
//! - A host of version 2 serves what its grant covers while its own command channel is up and it is not suspect. Its data channels
//!   show the key of that command channel.
//! - It is given none beyond its `sessions_max`, nor any of a service that it has paused.
//! - A host of version 2 that may do without a token serves the open service.

use std::collections::{BTreeMap, BTreeSet};

use super::member::{self, Member};
use super::snapshot::HostSnapshot;
use crate::demand::Bidder;
use crate::grant::Grant;
use crate::ids::{ChannelKey, CommandId, GrantId, HostId, ServiceName, SessionId};
use crate::policy::Policy;
use crate::pool::Load;
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::{Capacity, Handles, Membership};

mod failures;
mod grants;

pub(super) struct Roster<H: Handles> {
    pub(super) policy: Policy,
    grants: BTreeMap<GrantId, Grant>,
    expiries: BTreeSet<(Time, GrantId)>,
    commands: BTreeMap<CommandId, HostId>,
    /// How many of those are of version 1.
    commands_of_v1: usize,
    hosts: BTreeMap<HostId, Host<H>>,
    /// Hosts that have failed of late, and until when that speaks against them.
    failing: BTreeSet<(Time, HostId)>,
}

pub(super) struct Host<H: Handles> {
    commands: BTreeMap<CommandId, H::Command>,
    /// Whether it ever had one: a host of version 1 whose data and command channels come from different addresses has none here.
    had_command: bool,
    member: Option<Member>,
    channels: usize,
    sessions: BTreeSet<SessionId>,
}

impl<H: Handles> Host<H> {
    fn is_failing(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.failing_until.is_some())
    }
}

impl<H: Handles> Default for Host<H> {
    fn default() -> Host<H> {
        Host {
            commands: BTreeMap::new(),
            had_command: false,
            member: None,
            channels: 0,
            sessions: BTreeSet::new(),
        }
    }
}

/// Command channels.
impl<H: Handles> Roster<H> {
    pub(super) fn new(policy: Policy) -> Roster<H> {
        Roster {
            policy,
            grants: BTreeMap::new(),
            expiries: BTreeSet::new(),
            commands: BTreeMap::new(),
            commands_of_v1: 0,
            hosts: BTreeMap::new(),
            failing: BTreeSet::new(),
        }
    }

    /// Why this command channel is not to be taken.
    pub(super) fn refusal_of_command(
        &self,
        now: Time,
        host: HostId,
        membership: Option<&Membership>,
    ) -> Option<Reason> {
        let Some(Membership { grant, last_key, services, .. }) = membership else {
            return self.policy.open_service.is_none().then_some(Reason::Version1Off);
        };
        let known = self.hosts.get(&host).and_then(|host| host.member.as_ref());
        let is_another = known.is_some_and(|member| {
            let knows = |key: ChannelKey| last_key.is_some_and(|last_key| last_key.is(key));
            member.grant != *grant || !(knows(member.key) || member.key_before.is_some_and(knows))
        });
        self.refusal_of_grant(now, grant.as_ref())
            .or_else(|| is_another.then_some(Reason::HostIdTaken))
            .or_else(|| {
                services.iter().find_map(|it| self.refusal_of(now, Some(grant.as_ref()), it))
            })
    }

    /// Takes a command channel. Gives the one that it replaces, and whether the host is here only now.
    pub(super) fn command_up(
        &mut self,
        command: CommandId,
        host: HostId,
        membership: Option<Membership>,
        handle: H::Command,
    ) -> (Option<(CommandId, H::Command)>, bool) {
        let entry = self.hosts.entry(host).or_default();
        let replaced = match membership {
            Some(membership) => {
                entry.member = Some(Member::new(membership, entry.member.as_ref()));
                entry.commands.pop_first()
            }
            None => {
                self.commands_of_v1 += 1;
                None
            }
        };
        let joined = entry.commands.is_empty() && replaced.is_none();
        entry.had_command = true;
        entry.commands.insert(command, handle);
        self.commands.insert(command, host);
        if let Some((replaced, _)) = &replaced {
            self.commands.remove(replaced);
        }
        (replaced, joined)
    }

    /// Strikes a command channel out. Gives its host, and whether that was its last.
    pub(super) fn command_down(&mut self, command: CommandId) -> Option<(HostId, bool)> {
        let host = self.commands.remove(&command)?;
        let entry = self.hosts.get_mut(&host)?;
        entry.commands.remove(&command);
        if entry.member.is_none() {
            self.commands_of_v1 -= 1;
        }
        Some((host, entry.commands.is_empty()))
    }

    /// Strikes every command channel of `host` out, and gives them.
    pub(super) fn take_commands(&mut self, host: HostId) -> Vec<(CommandId, H::Command)> {
        let entry = self.hosts.get_mut(&host);
        let taken: Vec<_> =
            entry.map(|it| std::mem::take(&mut it.commands)).into_iter().flatten().collect();
        for (command, _) in &taken {
            self.commands.remove(command);
        }
        taken
    }

    /// Whose command channel this is.
    pub(super) fn host_of(&self, command: CommandId) -> Option<HostId> {
        self.commands.get(&command).copied()
    }

    pub(super) fn member_mut(&mut self, host: HostId) -> Option<&mut Member> {
        self.hosts.get_mut(&host).and_then(|host| host.member.as_mut())
    }

    /// The command channels that announcements about channels of `host`, of version 1, go to.
    pub(super) fn audience(&self, host: HostId) -> Vec<(CommandId, H::Command)> {
        let own = self.hosts.get(&host).map(|host| &host.commands).filter(|own| !own.is_empty());
        let listed = |(id, handle): (&CommandId, &H::Command)| (*id, handle.clone());
        match own {
            Some(own) => own.iter().map(listed).collect(),
            None => {
                let of_v1 = self.hosts.values().filter(|host| host.member.is_none());
                of_v1.flat_map(|host| &host.commands).map(listed).collect()
            }
        }
    }

    /// The command channel of a host of version 2.
    pub(super) fn command_of_member(&self, host: HostId) -> Option<(CommandId, H::Command)> {
        let entry = self.hosts.get(&host).filter(|host| host.member.is_some())?;
        entry.commands.first_key_value().map(|(id, handle)| (*id, handle.clone()))
    }

    /// Whether nobody speaks for `host` any more.
    pub(super) fn is_lost(&self, host: HostId) -> bool {
        match self.hosts.get(&host) {
            Some(host) if host.had_command => host.commands.is_empty(),
            _ => self.commands_of_v1 == 0,
        }
    }

    /// Those that are lost with the last command channel of `host`: itself, and, where it was the last of version 1, hosts of
    /// version 1 without command channels of their own, which were reached through all of them.
    pub(super) fn lost_with(&self, host: HostId) -> Vec<HostId> {
        if self.is_member(host) || self.commands_of_v1 > 0 {
            return vec![host];
        }
        let of_v1 = self.hosts.iter().filter(|(_, host)| host.member.is_none());
        of_v1.map(|(host, _)| *host).collect()
    }

    pub(super) fn commands(&self) -> usize {
        self.commands.len()
    }

    pub(super) fn hosts_present(&self) -> usize {
        self.hosts.values().filter(|host| !host.commands.is_empty()).count()
    }
}

/// Channels and sessions.
impl<H: Handles> Roster<H> {
    /// The policy's own copy of a service's name: each hello brings one, and so many channels that wait would keep as many.
    pub(super) fn own_name(&self, service: ServiceName) -> ServiceName {
        let known = self.policy.services.get_key_value(&service);
        known.map(|(name, _)| name.clone()).unwrap_or(service)
    }

    /// Why `host` may not have a channel for `service` that shows `key`.
    pub(super) fn refusal_of_channel(
        &self,
        now: Time,
        host: HostId,
        service: &ServiceName,
        key: Option<ChannelKey>,
    ) -> Option<Reason> {
        if let HostId::Process(_) = host {
            let entry = self.hosts.get(&host).filter(|entry| !entry.commands.is_empty());
            let member = entry.and_then(|entry| entry.member.as_ref());
            let belongs = member.zip(key).is_some_and(|(member, key)| key.is(member.key));
            if !belongs {
                return Some(Reason::ChannelKeyUnknown);
            }
        }
        self.refusal_of_service(now, host, service)
    }

    /// Why a channel of `host` for `service` that showed `key` may not wait for another client, once it has carried one.
    pub(super) fn refusal_of_return(
        &self,
        now: Time,
        host: HostId,
        service: &ServiceName,
        key: Option<ChannelKey>,
    ) -> Option<Reason> {
        // Hosts of version 1 have no keys, and return nothing.
        let Some(member) = self.hosts.get(&host).and_then(|host| host.member.as_ref()) else {
            return Some(Reason::ChannelKeyUnknown);
        };
        self.refusal_of_channel(now, host, service, key)
            .or_else(|| member.suspect_since.is_some().then_some(Reason::HostSuspect))
            .or_else(|| member.has_paused(service).then_some(Reason::Paused))
    }

    /// Why `host` may not serve `service`, wherever its command channel is.
    pub(super) fn refusal_of_service(
        &self,
        now: Time,
        host: HostId,
        service: &ServiceName,
    ) -> Option<Reason> {
        let member = self.hosts.get(&host).and_then(|host| host.member.as_ref());
        let refusal = self.refusal_of(now, member.map(|member| member.grant.as_ref()), service);
        refusal.or_else(|| match member {
            Some(member) if !member.services.contains(service) => Some(Reason::ServiceNotGranted),
            Some(member) if member.leaving => Some(Reason::Draining),
            _ => None,
        })
    }

    /// Why `service` may not be served under this grant, or without one; by a host of version 1 where there is not even a place for
    /// a grant.
    pub(super) fn refusal_of(
        &self,
        now: Time,
        grant: Option<Option<&GrantId>>,
        service: &ServiceName,
    ) -> Option<Reason> {
        let Policy { services, open_service, mixed } = &self.policy;
        if !services.contains_key(service) {
            return Some(Reason::ServiceUnknown);
        }
        let is_open = open_service.as_ref() == Some(service);
        let Some(Some(id)) = grant else {
            let without = if grant.is_some() { Reason::TokenRequired } else { Reason::Version1Off };
            return (!is_open).then_some(without);
        };
        let covered = self.grants.get(id).is_some_and(|grant| grant.covers(service));
        self.refusal_of_grant(now, Some(id)).or_else(|| {
            if !covered {
                Some(Reason::ServiceNotGranted)
            } else if is_open && !mixed {
                Some(Reason::ServiceOfVersion1)
            } else {
                None
            }
        })
    }

    /// Whether a client of `service` may be given to `host` now.
    pub(super) fn may_serve(&self, now: Time, host: HostId, service: &ServiceName) -> bool {
        let Some(entry) = self.hosts.get(&host) else {
            return false;
        };
        self.is_here(now, host, service)
            && entry.member.as_ref().is_none_or(|it| it.has_room(entry.sessions.len()))
    }

    /// Whether a client of `service` could be given to `host` now if it had room for another session.
    fn is_here(&self, now: Time, host: HostId, service: &ServiceName) -> bool {
        let Some(entry) = self.hosts.get(&host) else {
            return false;
        };
        let is_here = match &entry.member {
            Some(member) => {
                !entry.commands.is_empty()
                    && member.suspect_since.is_none()
                    && !member.has_paused(service)
            }
            None => self.commands_of_v1 > 0,
        };
        is_here && self.refusal_of_service(now, host, service).is_none()
    }

    /// Whether a host that is here may serve `service`, `except` those, when it has room for another session.
    pub(super) fn anybody_is_here(
        &self,
        now: Time,
        service: &ServiceName,
        except: &BTreeSet<HostId>,
    ) -> bool {
        let mut others = self.hosts.keys().filter(|host| !except.contains(host));
        let of_v1 = self.commands_of_v1 > 0
            && self.policy.open_service.as_ref() == Some(service)
            && except.is_empty();
        of_v1 || others.any(|host| self.is_here(now, *host, service))
    }

    /// Whether one of those has room for another session.
    pub(super) fn anybody_has_room(&self, now: Time, service: &ServiceName) -> bool {
        let of_v1 = self.commands_of_v1 > 0 && self.policy.open_service.as_ref() == Some(service);
        of_v1 || self.hosts.keys().any(|host| self.may_serve(now, *host, service))
    }

    pub(super) fn is_member(&self, host: HostId) -> bool {
        self.hosts.get(&host).is_some_and(|host| host.member.is_some())
    }

    pub(super) fn channel_added(&mut self, host: HostId) {
        self.hosts.entry(host).or_default().channels += 1;
    }

    pub(super) fn channel_removed(&mut self, host: HostId) {
        if let Some(entry) = self.hosts.get_mut(&host) {
            entry.channels -= 1;
        }
        self.forget_if_empty(host);
    }

    pub(super) fn session_added(&mut self, host: HostId, session: SessionId) {
        if let Some(entry) = self.hosts.get_mut(&host) {
            entry.sessions.insert(session);
        }
    }

    pub(super) fn session_removed(&mut self, host: HostId, session: SessionId) {
        if let Some(entry) = self.hosts.get_mut(&host) {
            entry.sessions.remove(&session);
        }
        self.forget_if_empty(host);
    }

    /// How loaded `host` is.
    pub(super) fn load_of(&self, host: HostId) -> Load {
        let entry = self.hosts.get(&host);
        let sessions = entry.map_or(0, |host| host.sessions.len());
        match entry.and_then(|host| host.member.as_ref()) {
            Some(member) => member.load(sessions),
            None => member::load(false, sessions, Capacity::default().weight),
        }
    }

    /// Whether `host` takes only so many sessions, of all its services together.
    pub(super) fn is_bounded(&self, host: HostId) -> bool {
        let member = self.hosts.get(&host).and_then(|host| host.member.as_ref());
        member.is_some_and(|member| member.capacity.sessions_max.is_some())
    }

    /// Those that may serve `service` and have said how many idle channels they may keep for it.
    pub(super) fn bidders(&self, now: Time, service: &ServiceName) -> Vec<(HostId, Bidder)> {
        let bidder = |(host, entry): (&HostId, &Host<H>)| {
            let bidder = entry.member.as_ref()?.bidder(service)?;
            self.is_here(now, *host, service).then_some((*host, bidder))
        };
        self.hosts.iter().filter_map(bidder).collect()
    }

    /// The sessions of `host`, in a fixed order.
    pub(super) fn list_sessions(&self, host: HostId) -> Vec<SessionId> {
        self.hosts.get(&host).into_iter().flat_map(|host| host.sessions.iter().copied()).collect()
    }

    pub(super) fn forget_if_empty(&mut self, host: HostId) {
        let is_empty =
            |it: &Host<H>| it.commands.is_empty() && it.channels == 0 && it.sessions.is_empty();
        if self.hosts.get(&host).is_some_and(is_empty) {
            self.set_failing(host, None);
            self.hosts.remove(&host);
        }
    }
}

/// For [`Book::snapshot`](super::Book::snapshot).
impl<H: Handles> Roster<H> {
    /// Every host with what is known of it here.
    pub(super) fn snapshot(&self) -> BTreeMap<HostId, HostSnapshot> {
        let of = |host: &Host<H>| HostSnapshot {
            has_command: !host.commands.is_empty(),
            member: host.member.as_ref().map(Member::snapshot),
            wanted: host.member.as_ref().map(Member::wanted).unwrap_or_default(),
            idle: BTreeMap::new(),
            sessions: host.sessions.len(),
        };
        self.hosts.iter().map(|(id, host)| (*id, of(host))).collect()
    }
}

/// For [`Book::check_invariants`](super::Book::check_invariants).
impl<H: Handles> Roster<H> {
    /// Each host with its channels, its sessions, and whether it has a command channel.
    pub(super) fn survey(&self) -> impl Iterator<Item = (HostId, usize, usize, bool)> {
        let of = |(id, host): (&HostId, &Host<H>)| {
            (*id, host.channels, host.sessions.len(), !host.commands.is_empty())
        };
        self.hosts.iter().map(of)
    }

    /// Whether it agrees with itself.
    pub(super) fn is_consistent(&self) -> bool {
        let of_v1 = |host: &HostId| !self.is_member(*host);
        let listed: usize = self.hosts.values().map(|host| host.commands.len()).sum();
        listed == self.commands.len()
            && self.commands.values().filter(|host| of_v1(host)).count() == self.commands_of_v1
            && self.hosts.values().all(|host| host.member.is_none() || host.commands.len() <= 1)
            && self.failing.len() == self.hosts.values().filter(|host| host.is_failing()).count()
            && self.failing.iter().all(|(_, host)| self.hosts.contains_key(host))
    }
}
