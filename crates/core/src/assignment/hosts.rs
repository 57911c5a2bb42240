//! The book's part about hosts: their command channels, and their data channels until a client is assigned.

use super::{Book, Channel, Place};
use crate::ids::{ChannelId, ChannelKey, CommandId, HostId, ServiceName};
use crate::pool::Order;
use crate::reason::Reason;
use crate::session::State;
use crate::time::Time;
use crate::vocabulary::{Handles, Membership, Output};

impl<H: Handles> Book<H> {
    pub(super) fn command_up(
        &mut self,
        now: Time,
        command: CommandId,
        host: HostId,
        membership: Option<Membership>,
        handle: H::Command,
    ) {
        let refusal = if self.draining {
            Some(Reason::Draining)
        } else if self.roster.commands() >= self.limits.commands_max
            && self.roster.command_of_member(host).is_none()
        {
            Some(Reason::CommandLimit)
        } else {
            self.roster.refusal_of_command(now, host, membership.as_ref())
        };
        if let Some(reason) = refusal {
            self.outputs.push_back(Output::CloseCommand { handle, reason });
            return;
        }
        let is_member = membership.is_some();
        let (replaced, joined) = self.roster.command_up(command, host, membership, handle);
        self.outputs.push_back(Output::CommandTaken { command });
        if let Some((_, handle)) = replaced {
            self.outputs.push_back(Output::CloseCommand { handle, reason: Reason::Replaced });
            // It has lost what had not ended here: its address was changed under it, most often.
            self.take_back(host, Reason::Replaced);
        }
        if joined {
            self.outputs.push_back(Output::HostJoined { host });
        }
        if is_member {
            // What this hello does not name any more waits in vain.
            self.close_what_is_not_granted(now, host);
            self.reweigh(host);
            // Until it has said what it keeps, others keep its part.
            self.ask_all_hosts(now);
        }
        self.assign_all_waiting(now);
    }

    pub(super) fn command_down(&mut self, now: Time, command: CommandId) {
        let Some((host, was_last)) = self.roster.command_down(command) else {
            return;
        };
        if was_last {
            self.outputs.push_back(Output::HostLeft { host });
            for lost in self.roster.lost_with(host) {
                self.host_lost(lost);
            }
            self.ask_all_hosts(now);
        }
    }

    /// Nobody speaks for `host` any more: what it has finished ends, unless its channel was returned, when nothing is asked of the host any
    /// more. What it has not accepted stays with it: its word may be on its way, ahead of the end of the channel that carries it, and
    /// where the host has died that channel ends too.
    fn host_lost(&mut self, host: HostId) {
        for session in self.roster.list_sessions(host) {
            let progress = match self.sessions.get(&session).map(|it| &it.state) {
                Some(State::Assigned { channel: Some(_), progress, .. }) => *progress,
                _ => continue,
            };
            if progress.host_finished {
                self.end(session, Reason::HostLost);
            }
        }
        self.roster.forget_if_empty(host);
    }

    pub(super) fn command_suspect(&mut self, now: Time, command: CommandId) {
        if let Some(host) = self.roster.host_of(command)
            && let Some(member) = self.roster.member_mut(host)
        {
            member.suspect_since = Some(now);
            self.take_back(host, Reason::HostSuspect);
            self.ask_all_hosts(now);
        }
    }

    /// What `host` has not begun to serve goes to others: its channels may lead nowhere.
    fn take_back(&mut self, host: HostId, reason: Reason) {
        for session in self.roster.list_sessions(host) {
            self.withdraw(session, reason);
        }
        self.close_idle(host, reason, |_| true);
    }

    pub(super) fn command_well(&mut self, now: Time, command: CommandId) {
        if let Some(host) = self.roster.host_of(command)
            && let Some(member) = self.roster.member_mut(host)
        {
            member.suspect_since = None;
            self.ask_all_hosts(now);
            self.assign_all_waiting(now);
        }
    }

    pub(super) fn command_gone(&mut self, now: Time, command: CommandId) {
        let Some(host) = self.roster.host_of(command) else {
            return;
        };
        let is_member = self.roster.is_member(host);
        self.command_down(now, command);
        if !is_member {
            return;
        }
        for session in self.roster.list_sessions(host) {
            if !self.has_returned_its_channel(session) {
                self.withdraw(session, Reason::HostLost);
                self.end(session, Reason::HostLost);
            }
        }
        self.close_idle(host, Reason::HostLost, |_| true);
    }

    pub(super) fn command_leaving(&mut self, now: Time, command: CommandId) {
        if let Some(host) = self.roster.host_of(command)
            && let Some(member) = self.roster.member_mut(host)
        {
            member.leaving = true;
            self.close_idle(host, Reason::Draining, |_| true);
            self.ask_all_hosts(now);
        }
    }

    pub(super) fn reserve(
        &mut self,
        now: Time,
        host: HostId,
        service: ServiceName,
        key: Option<ChannelKey>,
    ) -> Result<ChannelId, Reason> {
        if self.draining {
            return Err(Reason::Draining);
        }
        if self.channels.len() >= self.limits.channels_max {
            return Err(Reason::ChannelLimit);
        }
        if let Some(reason) = self.roster.refusal_of_channel(now, host, &service, key) {
            return Err(reason);
        }
        let channel = self.ids.next_free(|id| self.channels.contains_key(&id));
        let service = self.roster.own_name(service);
        let entry = Channel { host, service, key, place: Place::Reserved };
        self.channels.insert(channel, Box::new(entry));
        self.roster.channel_added(host);
        Ok(channel)
    }

    pub(super) fn channel_idle(&mut self, now: Time, channel: ChannelId, handle: H::Channel) {
        let Some(entry) = self.channels.get(&channel) else {
            return;
        };
        if entry.place != Place::Reserved {
            return;
        }
        let (host, service) = (entry.host, entry.service.clone());
        let refusal = if self.draining {
            Some(Reason::Draining)
        } else {
            self.roster.refusal_of_service(now, host, &service)
        };
        if let Some(reason) = refusal {
            self.outputs.push_back(Output::CloseChannel { channel, reason, handle });
            self.forget_channel(channel);
            return;
        }
        self.put_into_pool(now, channel, handle);
    }

    /// The channel waits for a client from now on.
    pub(super) fn put_into_pool(&mut self, now: Time, channel: ChannelId, handle: H::Channel) {
        let Some(entry) = self.channels.get_mut(&channel) else {
            return;
        };
        let turn = self.turn.next();
        entry.place = Place::Idle(turn);
        let (host, service) = (entry.host, entry.service.clone());
        let load = self.roster.load_of(host);
        let order = if self.roster.is_member(host) { Order::LastIdle } else { Order::LongestIdle };
        let pool = &mut self.services.entry(service.clone()).or_default().pool;
        pool.add(host, load, order, turn, channel, handle);
        self.assign_waiting(now, &service);
    }

    pub(super) fn channel_gone(&mut self, channel: ChannelId) {
        let Some(entry) = self.channels.get(&channel) else {
            return;
        };
        match entry.place {
            // Assigned meanwhile: the session finds out for itself.
            Place::Assigned(_) => return,
            Place::Reserved => {}
            Place::Idle(turn) => {
                if let Some(service) = self.services.get_mut(&entry.service) {
                    service.pool.remove(entry.host, turn);
                }
            }
        }
        self.forget_channel(channel);
    }

    /// Closes the idle channels of `host`, for `reason`: those for which `is_meant` holds.
    pub(super) fn close_idle(
        &mut self,
        host: HostId,
        reason: Reason,
        is_meant: impl Fn(&ServiceName) -> bool,
    ) {
        let meant = self.services.iter_mut().filter(|(name, _)| is_meant(name));
        let closed: Vec<_> =
            meant.flat_map(|(_, service)| service.pool.take_all_of(host)).collect();
        self.close_channels(closed, reason);
    }

    /// Closes channels that are out of their pool, for `reason`.
    pub(super) fn close_channels(&mut self, closed: Vec<(ChannelId, H::Channel)>, reason: Reason) {
        for (channel, handle) in closed {
            self.outputs.push_back(Output::CloseChannel { channel, reason, handle });
            self.forget_channel(channel);
        }
    }

    pub(super) fn forget_channel(&mut self, channel: ChannelId) {
        let Some(entry) = self.channels.remove(&channel) else {
            return;
        };
        self.roster.channel_removed(entry.host);
        self.forget_service_if_empty(&entry.service);
    }

    pub(super) fn forget_service_if_empty(&mut self, service: &ServiceName) {
        let is_empty = self.services.get(service).is_some_and(|service| {
            service.pool.is_empty() && service.queue.is_empty() && service.sessions == 0
        });
        if is_empty {
            self.services.remove(service);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChannelIds;
    use crate::limits::Limits;
    use crate::policy::Policy;
    use crate::record::Plain;

    #[test]
    fn a_channel_that_lives_keeps_its_id_when_all_others_had_their_turn() {
        let first = ChannelId::new(7).unwrap();
        let mut book = Book::<Plain>::new(Limits::default(), Policy::default(), first);
        let host = HostId::from_address("192.0.2.1".parse().unwrap());
        let reserve = |book: &mut Book<_>| {
            // As if all ids had had their turn since.
            book.ids = ChannelIds::starting_at(first);
            book.reserve(Time::ZERO, host, ServiceName::default(), None).unwrap().get()
        };
        assert_eq!([reserve(&mut book), reserve(&mut book)], [7, 8]);
        book.forget_channel(first);
        assert_eq!([reserve(&mut book), reserve(&mut book)], [7, 9]);
    }
}
