//! The book's part about hosts: their command channels, and their data channels until a client is assigned.

use super::{Book, Channel, Place};
use crate::ids::{ChannelId, CommandId, HostId, ServiceName};
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::{Handles, Output};

impl<H: Handles> Book<H> {
    pub(super) fn command_up(
        &mut self,
        now: Time,
        command: CommandId,
        host: HostId,
        handle: H::Command,
    ) {
        if self.draining || self.commands.len() >= self.limits.commands_max {
            let reason = if self.draining { Reason::Draining } else { Reason::CommandLimit };
            self.outputs.push_back(Output::CloseCommand { handle, reason });
            return;
        }
        self.commands.insert(command, host);
        let entry = self.hosts.entry(host).or_default();
        entry.had_command = true;
        entry.commands.insert(command, handle);
        if entry.commands.len() == 1 {
            self.outputs.push_back(Output::HostJoined { host });
        }
        if self.commands.len() == 1 {
            let services: Vec<ServiceName> = self.services.keys().cloned().collect();
            services.into_iter().for_each(|service| self.assign_waiting(now, &service));
        }
    }

    pub(super) fn command_down(&mut self, command: CommandId) {
        let Some(host) = self.commands.remove(&command) else {
            return;
        };
        let Some(entry) = self.hosts.get_mut(&host) else {
            return;
        };
        entry.commands.remove(&command);
        if !entry.commands.is_empty() {
            return;
        }
        self.outputs.push_back(Output::HostLeft { host });
        // A host without command channels of its own was reached through all of them: it is lost with the last.
        let lost: Vec<HostId> = if self.commands.is_empty() {
            self.hosts.keys().copied().collect()
        } else {
            vec![host]
        };
        for host in lost {
            let finished = self.hosts.get(&host).map(|entry| entry.finished.clone());
            finished.into_iter().flatten().for_each(|session| self.end(session, Reason::HostLost));
            self.forget_host_if_empty(host);
        }
    }

    pub(super) fn reserve(
        &mut self,
        host: HostId,
        service: ServiceName,
    ) -> Result<ChannelId, Reason> {
        if self.draining {
            return Err(Reason::Draining);
        }
        if self.channels.len() >= self.limits.channels_max {
            return Err(Reason::ChannelLimit);
        }
        let channel = self.ids.reserve();
        self.channels.insert(channel, Channel { host, service, place: Place::Reserved });
        self.hosts.entry(host).or_default().channels += 1;
        Ok(channel)
    }

    pub(super) fn channel_idle(&mut self, now: Time, channel: ChannelId, handle: H::Channel) {
        let Some(entry) = self.channels.get_mut(&channel) else {
            return;
        };
        if entry.place != Place::Reserved {
            return;
        }
        if self.draining {
            self.outputs.push_back(Output::CloseChannel {
                channel,
                reason: Reason::Draining,
                handle,
            });
            self.forget_channel(channel);
            return;
        }
        let turn = self.turn.next();
        entry.place = Place::Idle(turn);
        let (host, service) = (entry.host, entry.service.clone());
        let sessions = self.sessions_of(host);
        let pool = &mut self.services.entry(service.clone()).or_default().pool;
        pool.add(host, sessions, turn, channel, handle);
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

    pub(super) fn forget_channel(&mut self, channel: ChannelId) {
        let Some(entry) = self.channels.remove(&channel) else {
            return;
        };
        self.ids.release(channel);
        if let Some(host) = self.hosts.get_mut(&entry.host) {
            host.channels -= 1;
        }
        self.forget_host_if_empty(entry.host);
        self.forget_service_if_empty(&entry.service);
    }

    pub(super) fn forget_host_if_empty(&mut self, host: HostId) {
        if self.hosts.get(&host).is_some_and(|host| host.commands.is_empty() && host.channels == 0)
        {
            self.hosts.remove(&host);
        }
    }

    pub(super) fn forget_service_if_empty(&mut self, service: &ServiceName) {
        if self
            .services
            .get(service)
            .is_some_and(|service| service.pool.is_empty() && service.queue.is_empty())
        {
            self.services.remove(service);
        }
    }
}
