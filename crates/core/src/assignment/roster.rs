//! Who is here, and who may serve what: hosts with their command channels, and the grants of those that have a token.
//!
//! - Hosts of version 1 serve the open service, and nothing else, while any command channel of version 1 is up.
//! - A host of version 2 serves what its grant covers while its own command channel is up and it is not suspect. Its data channels
//!   show the key of that command channel.
//! - A host of version 2 that may do without a token serves the open service.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::snapshot::{HostSnapshot, MemberSnapshot};
use crate::grant::{Grant, Role};
use crate::ids::{ChannelKey, CommandId, GrantId, HostId, ServiceName, SessionId};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::{Handles, Membership};

pub(super) struct Roster<H: Handles> {
    pub(super) policy: Policy,
    grants: BTreeMap<GrantId, Grant>,
    expiries: BTreeSet<(Time, GrantId)>,
    commands: HashMap<CommandId, HostId>,
    /// How many of those are of version 1.
    commands_of_v1: usize,
    hosts: BTreeMap<HostId, Host<H>>,
}

pub(super) struct Host<H: Handles> {
    commands: BTreeMap<CommandId, H::Command>,
    /// Whether it ever had one: a host of version 1 whose data and command channels come from different addresses has none here.
    had_command: bool,
    member: Option<Member>,
    channels: usize,
    sessions: BTreeSet<SessionId>,
}

/// What the roster knows of a host of version 2.
struct Member {
    grant: Option<GrantId>,
    /// Of its command channel, or of the last one that it had.
    key: ChannelKey,
    /// The one that it showed when it got that: all that it knows, where the answer was lost.
    key_before: Option<ChannelKey>,
    /// What its command channel's hello named.
    services: BTreeSet<ServiceName>,
    suspect: bool,
    /// It finishes what it serves, and takes nothing new.
    leaving: bool,
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
            commands: HashMap::new(),
            commands_of_v1: 0,
            hosts: BTreeMap::new(),
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
            Some(Membership { grant, services, key, last_key }) => {
                let (suspect, leaving) = (false, false);
                // Of a host that is new here, whatever it shows proves nothing.
                let key_before = last_key.filter(|_| entry.member.is_some());
                entry.member = Some(Member { grant, key, key_before, services, suspect, leaving });
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

    pub(super) fn set_suspect(&mut self, host: HostId, suspect: bool) {
        if let Some(member) = self.hosts.get_mut(&host).and_then(|host| host.member.as_mut()) {
            member.suspect = suspect;
        }
    }

    pub(super) fn set_leaving(&mut self, host: HostId) {
        if let Some(member) = self.hosts.get_mut(&host).and_then(|host| host.member.as_mut()) {
            member.leaving = true;
        }
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
        let is_here = match &entry.member {
            Some(member) => !entry.commands.is_empty() && !member.suspect,
            None => self.commands_of_v1 > 0,
        };
        is_here && self.refusal_of_service(now, host, service).is_none()
    }

    /// Whether a host that is here may serve `service`, `except` those.
    pub(super) fn anybody_may_serve(
        &self,
        now: Time,
        service: &ServiceName,
        except: &BTreeSet<HostId>,
    ) -> bool {
        let mut others = self.hosts.keys().filter(|host| !except.contains(host));
        let of_v1 = self.commands_of_v1 > 0
            && self.policy.open_service.as_ref() == Some(service)
            && except.is_empty();
        of_v1 || others.any(|host| self.may_serve(now, *host, service))
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
    }

    /// How many sessions `host` has.
    pub(super) fn sessions_of(&self, host: HostId) -> usize {
        self.hosts.get(&host).map_or(0, |host| host.sessions.len())
    }

    /// The sessions of `host`, in a fixed order.
    pub(super) fn list_sessions(&self, host: HostId) -> Vec<SessionId> {
        self.hosts.get(&host).into_iter().flat_map(|host| host.sessions.iter().copied()).collect()
    }

    pub(super) fn forget_if_empty(&mut self, host: HostId) {
        let is_empty = |it: &Host<H>| it.commands.is_empty() && it.channels == 0;
        if self.hosts.get(&host).is_some_and(is_empty) {
            self.hosts.remove(&host);
        }
    }
}

/// Grants.
impl<H: Handles> Roster<H> {
    /// Why nothing is allowed under this grant, or without one.
    fn refusal_of_grant(&self, now: Time, grant: Option<&GrantId>) -> Option<Reason> {
        let Some(id) = grant else {
            return self.policy.open_service.is_none().then_some(Reason::TokenRequired);
        };
        match self.grants.get(id) {
            // Whoever shows a token has been checked against the grants: this one went meanwhile.
            None => Some(Reason::TokenRevoked),
            Some(grant) if grant.has_expired(now) => Some(Reason::TokenExpired),
            Some(grant) if grant.role != Role::Host => Some(Reason::RoleNotGranted),
            Some(_) => None,
        }
    }

    /// Changes a grant, or strikes it out.
    pub(super) fn set_grant(&mut self, id: GrantId, terms: Option<Grant>) {
        let before = self.grants.remove(&id).and_then(|grant| grant.expires);
        if let Some(expires) = before {
            self.expiries.remove(&(expires, id.clone()));
        }
        if let Some(grant) = terms {
            if let Some(expires) = grant.expires {
                self.expiries.insert((expires, id.clone()));
            }
            self.grants.insert(id, grant);
        }
    }

    /// When the next grant expires.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.expiries.first().map(|(expires, _)| *expires)
    }

    /// The next grant that has expired, once.
    pub(super) fn take_expired(&mut self, now: Time) -> Option<GrantId> {
        let is_due = self.next_expiry().is_some_and(|expires| expires <= now);
        if is_due { self.expiries.pop_first().map(|(_, id)| id) } else { None }
    }

    /// The hosts that have this grant.
    pub(super) fn bearers(&self, id: &GrantId) -> Vec<HostId> {
        let bears = |host: &Host<H>| {
            host.member.as_ref().is_some_and(|member| member.grant.as_ref() == Some(id))
        };
        self.hosts.iter().filter(|(_, host)| bears(host)).map(|(id, _)| *id).collect()
    }
}

/// For [`Book::snapshot`](super::Book::snapshot).
impl<H: Handles> Roster<H> {
    /// Every host with what is known of it here.
    pub(super) fn snapshot(&self) -> BTreeMap<HostId, HostSnapshot> {
        let of = |host: &Host<H>| HostSnapshot {
            has_command: !host.commands.is_empty(),
            member: host.member.as_ref().map(|member| MemberSnapshot {
                grant: member.grant.clone(),
                services: member.services.clone(),
                suspect: member.suspect,
                leaving: member.leaving,
            }),
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
    }
}
