//! Steps of hosts: their command channels, their grants, and their data channels until a client is assigned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use relayserver_core::{
    Capacity, ChannelId, ChannelKey, CommandId, Grant, GrantId, HostId, Input, Membership, Output,
    Reason, ServiceName, SessionId,
};

use crate::perform::WRONG_KEY;
use crate::world::{Bounds, Channel, Member, Named, World, is_member};

impl World {
    pub(crate) fn command_up(&mut self, host: HostId) {
        let refusal = self
            .refusal_of_any_command()
            .or_else(|| self.policy.open_service.is_none().then_some(Reason::Version1Off));
        let command = CommandId(self.number());
        let joins = !self.has_command(host);
        if refusal.is_none() {
            self.commands.insert(command, host);
            self.had_command.insert(host);
        }
        let outputs =
            self.tell(Input::CommandUp { command, host, membership: None, handle: command });
        assert_taken(&outputs, command, refusal, joins.then_some(host), None);
    }

    pub(crate) fn member_up(
        &mut self,
        host: HostId,
        grant: Option<GrantId>,
        knows_key: bool,
        services: BTreeSet<ServiceName>,
        capacity: Capacity,
    ) {
        let own = self.members.get(&host).cloned();
        // Its last key, or, now and then, the one before: the answer with the last was lost.
        let was_lost = self.next_number.is_multiple_of(3);
        let known = own.as_ref().map(|it| it.key_before.filter(|_| was_lost).unwrap_or(it.key));
        let last_key = if knows_key { known } else { Some(WRONG_KEY) };
        let is_another = own.is_some_and(|it| it.grant != grant || !knows_key);
        let replaced = self.commands.iter().find(|(_, it)| **it == host).map(|(id, _)| *id);
        let refusal = self
            .refusal_of_any_command()
            // One in the place of another is none too many.
            .filter(|reason| *reason != Reason::CommandLimit || replaced.is_none())
            .or_else(|| self.refusal_of_grant(grant.as_ref()))
            .or_else(|| is_another.then_some(Reason::HostIdTaken))
            .or_else(|| services.iter().find_map(|it| self.refusal_of_member(grant.as_ref(), it)));
        let (command, key) = (CommandId(self.number()), u128::from(self.number()));
        if refusal.is_none() {
            replaced.map(|replaced| self.commands.remove(&replaced));
            self.commands.insert(command, host);
            self.had_command.insert(host);
            let (grant, services) = (grant.clone(), services.clone());
            let before = self.members.get(&host);
            let member = Member {
                grant,
                key,
                key_before: last_key.filter(|_| before.is_some()),
                services,
                capacity,
                pools: BTreeMap::new(),
                suspect_since: None,
                leaving: false,
                round_trip: before.and_then(|it| it.round_trip),
                last_failure: before.and_then(|it| it.last_failure),
                failing_until: before.and_then(|it| it.failing_until),
            };
            self.members.insert(host, member);
        }
        let last_key = last_key.map(ChannelKey::new);
        let key = ChannelKey::new(key);
        let membership = Some(Membership { grant, services, key, last_key, capacity });
        let outputs = self.tell(Input::CommandUp { command, host, membership, handle: command });
        let joined = replaced.is_none().then_some(host);
        if replaced.is_some() && refusal.is_none() {
            self.assert_has_begun_all(host);
        }
        assert_taken(&outputs, command, refusal, joined, replaced);
    }

    /// What `host` has not begun to serve is not its any more.
    fn assert_has_begun_all(&self, host: HostId) {
        for session in self.running() {
            let it = &self.sessions[&session];
            assert!(
                it.accepted || it.asked_to_end || self.host_serving(session) != host,
                "it keeps no session that it has not accepted"
            );
        }
    }

    pub(crate) fn refusal_of_any_command(&self) -> Option<Reason> {
        if self.draining {
            Some(Reason::Draining)
        } else if self.commands.len() >= self.limits.commands_max {
            Some(Reason::CommandLimit)
        } else {
            None
        }
    }

    pub(crate) fn command_down(&mut self, command: CommandId) {
        self.commands.remove(&command).unwrap();
        let outputs = self.tell(Input::CommandDown { command });
        for session in self.running() {
            let (it, host) = (&self.sessions[&session], self.host_serving(session));
            if self.is_lost(host) && it.host_finished && it.channel.is_some() {
                assert!(it.asked_to_end, "nobody is left to read what the client sends");
            }
        }
        let is_lost = |output: &Output<Named>| match output {
            Output::EndSession { reason, .. } => *reason == Reason::HostLost,
            output => matches!(output, Output::HostLeft { .. }),
        };
        assert!(outputs.iter().all(is_lost));
    }

    /// A host of version 2 is gone with all that it has; nobody else loses anything by it.
    pub(crate) fn command_gone(&mut self, command: CommandId) {
        let host = self.commands.remove(&command).unwrap();
        let is_member = self.members.contains_key(&host);
        let others_asked = |world: &World| -> Vec<SessionId> {
            let running = world.running().into_iter();
            running
                .filter(|it| world.host_serving(*it) != host && world.sessions[it].asked_to_end)
                .collect()
        };
        let asked_before = others_asked(self);
        let outputs = self.tell(Input::CommandGone { command });
        let mut reasons = outputs.iter().filter_map(|output| match output {
            Output::EndSession { reason, .. }
            | Output::Withdraw { reason, .. }
            | Output::CloseChannel { reason, .. } => Some(*reason),
            Output::HostLeft { .. } => None,
            _ => panic!("unexpected output"),
        });
        assert!(reasons.all(|reason| reason == Reason::HostLost));
        if is_member {
            self.void_late_words(|world, it| world.host_serving(it) == host);
            let own = |it: &SessionId| {
                self.host_serving(*it) == host && self.sessions[it].channel.is_some()
            };
            let all = |it: SessionId| self.sessions[&it].asked_to_end;
            assert!(self.running().into_iter().filter(own).all(all), "what it serves ends");
            assert!(self.idle.iter().all(|it| self.channels[it].host != host), "so does its pool");
            assert_eq!(others_asked(self), asked_before, "others go on");
        } else {
            let closes = |it: &Output<Named>| matches!(it, Output::CloseChannel { .. });
            assert!(!outputs.iter().any(closes), "version 1 keeps its pool");
        }
    }

    /// A host of version 2 that leaves has nothing idle any more, and keeps what it serves.
    pub(crate) fn command_leaving(&mut self, command: CommandId) {
        let host = self.commands[&command];
        let own_idle = |world: &World| -> Vec<ChannelId> {
            let own = |it: &&ChannelId| world.channels[it].host == host;
            world.idle.iter().filter(own).copied().collect()
        };
        let mut expected = Vec::new();
        if self.members.contains_key(&host) {
            expected = own_idle(self);
        }
        if let Some(member) = self.members.get_mut(&host) {
            member.leaving = true;
        }
        let outputs = self.tell(Input::CommandLeaving { command });
        let closed = |output: &Output<Named>| match output {
            Output::CloseChannel { channel, reason: Reason::Draining, .. } => *channel,
            _ => panic!("unexpected output"),
        };
        let mut closed: Vec<ChannelId> = outputs.iter().map(closed).collect();
        closed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(closed, expected, "its idle channels are closed, and nothing else is done");
    }

    /// A host says between what bounds it keeps a pool.
    pub(crate) fn bounds(
        &mut self,
        command: CommandId,
        service: ServiceName,
        min: usize,
        max: usize,
    ) {
        let host = self.commands[&command];
        let own = self.members.get_mut(&host).filter(|it| it.services.contains(&service));
        let is_own = own.is_some();
        if let Some(member) = own {
            let told = member.pools.get(&service).and_then(|it| it.told);
            member.pools.insert(service.clone(), Bounds { min, max, told });
        }
        let outputs = self.tell(Input::PoolBounds { command, service: service.clone(), min, max });
        assert!(is_own || outputs.is_empty(), "what is not its own is not its to say");
        let pauses = is_own && max == 0;
        let paused =
            |it: &Output<Named>| matches!(it, Output::CloseChannel { reason: Reason::Paused, .. });
        assert!(outputs.iter().all(|it| pauses && paused(it)));
        let idle = |it: &&ChannelId| {
            self.channels[*it].host == host && self.channels[*it].service == service
        };
        assert!(!pauses || self.idle.iter().find(idle).is_none(), "no pool is kept of it");
    }

    /// A host says that so many of its idle channels are too many.
    pub(crate) fn surplus(&mut self, command: CommandId, service: ServiceName, idle: usize) {
        let host = self.commands[&command];
        let own = |it: &&ChannelId| {
            let channel = &self.channels[*it];
            is_member(host) && channel.host == host && channel.service == service
        };
        let kept = self.members.get(&host).and_then(|it| it.pools.get(&service));
        let of_pool = self.idle.iter().filter(own).count();
        let spare = of_pool.saturating_sub(kept.map_or(0, Bounds::kept));
        let closing = self.idle.iter().filter(own).take(idle.min(spare));
        let longest_idle: Vec<ChannelId> = closing.copied().collect();
        let outputs = self.tell(Input::PoolSurplus { command, service, idle });
        let closed: Vec<ChannelId> = outputs
            .iter()
            .map(|output| match output {
                Output::CloseChannel { channel, reason: Reason::Surplus, .. } => *channel,
                _ => panic!("unexpected output"),
            })
            .collect();
        assert_eq!(
            closed, longest_idle,
            "so many, none that it is to keep, and none that would be given out before them"
        );
    }

    pub(crate) fn round_trip(&mut self, command: CommandId, millis: u64) {
        let round_trip = Duration::from_millis(millis);
        if let Some(member) = self.members.get_mut(&self.commands[&command]) {
            let smoothed = |before: Duration| (before * 7 + round_trip) / 8;
            member.round_trip = Some(member.round_trip.map_or(round_trip, smoothed));
        }
        assert!(self.tell(Input::RoundTrip { command, round_trip }).is_empty());
    }

    pub(crate) fn suspect(&mut self, command: CommandId) {
        let host = self.commands[&command];
        if let Some(member) = self.members.get_mut(&host) {
            member.suspect_since = Some(self.now);
        }
        self.tell(Input::CommandSuspect { command });
        if self.members.contains_key(&host) {
            self.assert_has_begun_all(host);
            assert!(self.idle.iter().all(|it| self.channels[it].host != host), "nor a pool");
        }
    }

    pub(crate) fn well(&mut self, command: CommandId) {
        if let Some(member) = self.members.get_mut(&self.commands[&command]) {
            member.suspect_since = None;
        }
        self.tell(Input::CommandWell { command });
    }

    pub(crate) fn grant_changed(&mut self, id: GrantId, terms: Option<Grant>) {
        self.grants.remove(&id);
        self.expired.remove(&id);
        if let Some(grant) = &terms {
            self.grants.insert(id.clone(), grant.clone());
        }
        self.tell(Input::GrantChanged { grant: id, terms });
        self.assert_nobody_acts_without_grant();
    }

    /// Whoever has lost its grant has nothing left.
    pub(crate) fn assert_nobody_acts_without_grant(&mut self) {
        let mut cut_off = Vec::new();
        for (host, it) in &self.members {
            let refusal = it.grant.as_ref().and_then(|id| self.refusal_of_grant(Some(id)));
            let ended = matches!(refusal, Some(Reason::TokenRevoked | Reason::TokenExpired));
            if ended {
                assert!(!self.has_command(*host));
                assert!(self.idle.iter().all(|channel| self.channels[channel].host != *host));
                let running = self.running().into_iter();
                let mut own = running.filter(|it| self.host_serving(*it) == *host);
                assert!(own.all(|it| self.sessions[&it].asked_to_end));
                cut_off.push(*host);
            }
        }
        self.void_late_words(|world, it| cut_off.contains(&world.host_serving(it)));
    }

    pub(crate) fn hello(&mut self, host: HostId, service: ServiceName, key: Option<ChannelKey>) {
        let is_member = is_member(host);
        let belongs = !is_member || (self.has_command(host) && self.is_key_of(host, key));
        let refusal = if self.draining {
            Some(Reason::Draining)
        } else if self.channels.len() >= self.limits.channels_max {
            Some(Reason::ChannelLimit)
        } else if !belongs {
            Some(Reason::ChannelKeyUnknown)
        } else {
            self.refusal_of_service(host, &service)
        };
        let outputs = self.tell(Input::ReserveChannel { host, service: service.clone(), key });
        match (outputs.as_slice(), refusal) {
            ([Output::Reserved { channel }], None) => {
                let known = self.channels.insert(*channel, Channel { host, service, key });
                assert!(known.is_none(), "no id is given out twice");
                self.reserved.push(*channel);
            }
            ([Output::ReserveRefused { reason }], Some(expected)) => assert_eq!(*reason, expected),
            _ => panic!("unexpected outputs, expected {refusal:?}"),
        }
    }

    pub(crate) fn idle(&mut self, channel: ChannelId) {
        self.reserved.retain(|it| *it != channel);
        self.comes_into_pool(channel);
        let Channel { host, service, .. } = self.channels[&channel].clone();
        let refused = self.draining || self.refusal_of_service(host, &service).is_some();
        let outputs = self.tell(Input::ChannelIdle { channel, handle: channel });
        let closed = outputs.iter().any(|it| matches!(it, Output::CloseChannel { .. }));
        assert_eq!(closed, refused, "every channel is authorised when it arrives");
    }

    pub(crate) fn channel_gone(&mut self, channel: ChannelId) {
        if !self.running().iter().any(|it| self.sessions[it].channel == Some(channel)) {
            self.reserved.retain(|it| *it != channel);
            self.idle.retain(|it| *it != channel);
            self.channels.remove(&channel);
        }
        assert!(self.tell(Input::ChannelGone { channel }).is_empty());
    }
}

/// What became of a command channel: refused, or taken, with the host that joined by it and the one that it replaced.
fn assert_taken(
    outputs: &[Output<Named>],
    command: CommandId,
    refusal: Option<Reason>,
    joined: Option<HostId>,
    replaced: Option<CommandId>,
) {
    let mut taken = false;
    let mut seen = (None, None, None);
    for output in outputs {
        match output {
            Output::CommandTaken { command: it } => taken = *it == command,
            Output::CloseCommand { handle, reason } if *handle == command => seen.0 = Some(*reason),
            Output::CloseCommand { handle, reason: Reason::Replaced } => seen.1 = Some(*handle),
            Output::HostJoined { host } => seen.2 = Some(*host),
            // Of services that this hello does not name any more; which, is held against the rules after each step.
            Output::CloseChannel { reason: Reason::ServiceNotGranted, .. } if taken => {}
            // What it has not begun to serve, where it had not noticed that its command channel was lost.
            Output::CloseChannel { reason: Reason::Replaced, .. }
            | Output::Withdraw { reason: Reason::Replaced, .. }
                if seen.1.is_some() => {}
            _ => panic!("unexpected output"),
        }
    }
    assert_eq!(taken, refusal.is_none());
    let expected = if taken { (None, replaced, joined) } else { (refusal, None, None) };
    assert_eq!(seen, expected);
}
