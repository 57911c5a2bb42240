//! The book's part about clients: their arrival, their wait, their assignment, and their sessions' ends.

use super::{Book, Place};
use crate::ids::{ChannelId, HostId, ServiceName, SessionId};
use crate::reason::Reason;
use crate::session::{Phase, Session, State};
use crate::time::Time;
use crate::vocabulary::{Announcement, Assignment, Handles, Output};

impl<H: Handles> Book<H> {
    pub(super) fn client_arrived(
        &mut self,
        now: Time,
        session: SessionId,
        service: ServiceName,
        client: H::Client,
        stop: H::Stop,
    ) {
        if let Some(reason) = self.refusal() {
            self.outputs.push_back(Output::Refused { session, reason, client });
            return;
        }
        let turn = self.turn.next();
        self.services.entry(service.clone()).or_default().queue.insert(turn, session);
        let state = State::Waiting { since: now, turn, client };
        self.sessions
            .insert(session, Session { service: service.clone(), stop: Some(stop), state });
        self.waiting += 1;
        self.assign_waiting(now, &service);
        if self.limits.assign_timeout.is_zero() {
            self.refuse_waiting(session, self.why_none_is_free());
        } else if self.queue_len(&service) > self.limits.queue_max {
            self.refuse_waiting(session, Reason::QueueFull);
        }
    }

    /// Why a client that arrives now may not even wait.
    pub(super) fn refusal(&self) -> Option<Reason> {
        if self.draining {
            Some(Reason::Draining)
        } else if self.sessions.len() >= self.limits.clients_max {
            Some(Reason::ClientLimit)
        } else {
            None
        }
    }

    pub(super) fn queue_len(&self, service: &ServiceName) -> usize {
        self.services.get(service).map_or(0, |service| service.queue.len())
    }

    pub(super) fn why_none_is_free(&self) -> Reason {
        if self.commands.is_empty() { Reason::NoHost } else { Reason::NoChannel }
    }

    /// Gives idle channels to waiting clients while there are both.
    pub(super) fn assign_waiting(&mut self, now: Time, service_name: &ServiceName) {
        while !self.commands.is_empty() {
            let Some(service) = self.services.get_mut(service_name) else {
                break;
            };
            let Some((&turn, &session)) = service.queue.first_key_value() else {
                break;
            };
            let Some((host, channel, channel_handle)) = service.pool.take() else {
                break;
            };
            service.queue.remove(&turn);
            self.assign(now, session, host, channel, channel_handle);
        }
        self.forget_service_if_empty(service_name);
    }

    pub(super) fn assign(
        &mut self,
        now: Time,
        session: SessionId,
        host: HostId,
        channel: ChannelId,
        channel_handle: H::Channel,
    ) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let assigned =
            State::Assigned { channel, host, client_finished: false, host_finished: false };
        let State::Waiting { since, client, .. } = std::mem::replace(&mut entry.state, assigned)
        else {
            return;
        };
        let service = entry.service.clone();
        self.waiting -= 1;
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.place = Place::Assigned(session);
        }
        self.change_sessions(host, |sessions| sessions + 1);
        self.announce(host, Announcement::Open(channel));
        let waited = now.since(since);
        let assignment = Assignment { session, service, host, channel, waited };
        self.outputs.push_back(Output::Assigned { assignment, client, channel_handle });
    }

    /// Takes a client out of the queue, for `reason`.
    pub(super) fn refuse_waiting(&mut self, session: SessionId, reason: Reason) {
        if self.phase(session) != Some(Phase::Waiting) {
            return;
        }
        let Some(entry) = self.sessions.remove(&session) else {
            return;
        };
        let State::Waiting { turn, client, .. } = entry.state else {
            return;
        };
        self.waiting -= 1;
        if let Some(service) = self.services.get_mut(&entry.service) {
            service.queue.remove(&turn);
        }
        self.forget_service_if_empty(&entry.service);
        self.outputs.push_back(Output::Refused { session, reason, client });
    }

    pub(super) fn client_finished(&mut self, session: SessionId) {
        let Some(State::Assigned { channel, host, client_finished, host_finished }) =
            self.sessions.get_mut(&session).map(|session| &mut session.state)
        else {
            return;
        };
        if std::mem::replace(client_finished, true) || *host_finished {
            return;
        }
        let (host, channel) = (*host, *channel);
        self.announce(host, Announcement::Drop(channel));
    }

    pub(super) fn host_finished(&mut self, session: SessionId) {
        let Some(State::Assigned { host, host_finished, .. }) =
            self.sessions.get_mut(&session).map(|session| &mut session.state)
        else {
            return;
        };
        if std::mem::replace(host_finished, true) {
            return;
        }
        let host = *host;
        if let Some(entry) = self.hosts.get_mut(&host) {
            entry.finished.insert(session);
        }
        if self.is_lost(host) {
            self.end(session, Reason::HostLost);
        }
    }

    pub(super) fn session_ended(&mut self, session: SessionId) {
        if !self.sessions.get(&session).is_some_and(|it| it.state.phase() != Phase::Waiting) {
            return;
        }
        let Some(entry) = self.sessions.remove(&session) else {
            return;
        };
        let State::Assigned { channel, host, .. } = entry.state else {
            return;
        };
        if let Some(host) = self.hosts.get_mut(&host) {
            host.finished.remove(&session);
        }
        self.change_sessions(host, |sessions| sessions - 1);
        self.forget_channel(channel);
    }

    pub(super) fn time_passed(&mut self, now: Time) {
        let timeout = self.limits.assign_timeout;
        let overdue: Vec<SessionId> = self
            .services
            .values()
            .flat_map(|service| {
                // The queue is in the order of arrival, and all wait equally long.
                service.queue.values().copied().take_while(|session| {
                    self.waiting_since(session).is_some_and(|since| since + timeout <= now)
                })
            })
            .collect();
        let reason = self.why_none_is_free();
        overdue.into_iter().for_each(|session| self.refuse_waiting(session, reason));
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
        let waiting: Vec<SessionId> =
            self.services.values().flat_map(|service| service.queue.values().copied()).collect();
        waiting.into_iter().for_each(|session| self.refuse_waiting(session, Reason::Draining));
        let mut closed = Vec::new();
        for service in self.services.values_mut() {
            closed.extend(service.pool.take_all());
        }
        for (channel, handle) in closed {
            self.outputs.push_back(Output::CloseChannel {
                channel,
                reason: Reason::Draining,
                handle,
            });
            self.forget_channel(channel);
        }
    }

    pub(super) fn end_all(&mut self, reason: Reason) {
        let mut running: Vec<SessionId> = self.sessions.keys().copied().collect();
        // The map's order is random; a replay must end them in the same order.
        running.sort_unstable();
        running.retain(|session| self.phase(*session) != Some(Phase::Waiting));
        running.into_iter().for_each(|session| self.end(session, reason));
    }
}
