//! The book's part about clients: their arrival, their wait, their assignment, and their sessions' ends.

use std::collections::BTreeSet;

use super::{Book, Place};
use crate::ids::{ChannelId, HostId, ServiceName, SessionId};
use crate::pool::Turn;
use crate::reason::Reason;
use crate::session::{Acceptance, Progress, Session, State};
use crate::time::Time;
use crate::vocabulary::{Announcement, Assignment, End, Handles, Output};

/// A client, and the channel that it is to get.
struct Match<C> {
    turn: Turn,
    session: SessionId,
    host: HostId,
    channel: ChannelId,
    channel_handle: C,
}

impl<H: Handles> Book<H> {
    pub(super) fn client_arrived(
        &mut self,
        now: Time,
        session: SessionId,
        service: ServiceName,
        client: H::Client,
        stop: H::Stop,
    ) {
        if let Some(reason) = self.refusal(&service) {
            self.outputs.push_back(Output::Refused { session, reason, client });
            return;
        }
        let turn = self.turn.next();
        let limits = self.limits_of(&service);
        self.services.entry(service.clone()).or_default().queue.insert(turn, session);
        let arrived = Session {
            service: service.clone(),
            turn,
            tried: BTreeSet::new(),
            lost: BTreeSet::new(),
            last_failure: None,
            stop: Some(stop),
            state: State::Waiting { since: now, client },
        };
        self.sessions.insert(session, Box::new(arrived));
        self.deadlines.insert((now + limits.assign_timeout, session));
        self.assign_waiting(now, &service);
        self.arrival(now, &service);
        if limits.assign_timeout.is_zero() {
            self.refuse_unassigned(now, session);
        } else if self.queue_len(&service) > limits.queue_max {
            self.refuse_waiting(session, Reason::QueueFull);
        }
    }

    /// Why a client that arrives now may not even wait.
    fn refusal(&self, service: &ServiceName) -> Option<Reason> {
        if self.draining {
            Some(Reason::Draining)
        } else if !self.roster.policy.services.contains_key(service) {
            Some(Reason::ServiceUnknown)
        } else if self.sessions.len() >= self.limits.clients_max {
            Some(Reason::ClientLimit)
        } else {
            None
        }
    }

    pub(super) fn queue_len(&self, service: &ServiceName) -> usize {
        self.services.get(service).map_or(0, |service| service.queue.len())
    }

    fn is_full(&self, service: &ServiceName) -> bool {
        let sessions = self.services.get(service).map_or(0, |service| service.sessions);
        self.limits_of(service).sessions_max.is_some_and(|max| sessions >= max)
    }

    /// Gives idle channels to waiting clients of every service.
    pub(super) fn assign_all_waiting(&mut self, now: Time) {
        let services: Vec<ServiceName> = self.services.keys().cloned().collect();
        services.into_iter().for_each(|service| self.assign_waiting(now, &service));
    }

    /// Gives idle channels to waiting clients while there are both.
    pub(super) fn assign_waiting(&mut self, now: Time, service: &ServiceName) {
        while !self.is_full(service)
            && let Some(matched) = self.next_match(now, service)
        {
            self.assign(now, service, matched);
        }
        self.forget_service_if_empty(service);
    }

    /// There is room for a session again, of `service` and at `host`.
    pub(super) fn assign_where_room_is(&mut self, now: Time, host: HostId, service: &ServiceName) {
        if self.roster.is_bounded(host) {
            self.assign_all_waiting(now);
        } else {
            self.assign_waiting(now, service);
        }
    }

    /// The next client in turn, with the next channel among those that it may have.
    fn next_match(&mut self, now: Time, name: &ServiceName) -> Option<Match<H::Channel>> {
        let Book { services, sessions, roster, turn: turns, .. } = self;
        let service = services.get_mut(name)?;
        if service.pool.is_empty() {
            return None;
        }
        for (&turn, &session) in &service.queue {
            let tried = &sessions.get(&session)?.tried;
            let may_serve =
                |host: HostId| !tried.contains(&host) && roster.may_serve(now, host, name);
            if let Some((host, channel, channel_handle)) = service.pool.take(turns, may_serve) {
                return Some(Match { turn, session, host, channel, channel_handle });
            }
            // Whoever has tried nobody yet would have taken any.
            if tried.is_empty() {
                return None;
            }
        }
        None
    }

    fn assign(&mut self, now: Time, service: &ServiceName, matched: Match<H::Channel>) {
        let Match { turn, session, host, channel, channel_handle } = matched;
        let is_offer = self.roster.is_member(host);
        let acceptance = if is_offer { Acceptance::Offered } else { Acceptance::Accepted };
        let progress = Progress { acceptance, client_finished: false, host_finished: false };
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let assigned = State::Assigned { channel: Some(channel), host, progress };
        let State::Waiting { since, client } = std::mem::replace(&mut entry.state, assigned) else {
            return;
        };
        self.deadlines.remove(&(since + self.limits_of(service).assign_timeout, session));
        if let Some(service) = self.services.get_mut(service) {
            service.queue.remove(&turn);
            service.sessions += 1;
        }
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.place = Place::Assigned(session);
        }
        self.roster.session_added(host, session);
        self.reweigh(host);
        if !is_offer {
            self.announce(host, Announcement::Open(channel));
        }
        let (service, waited) = (service.clone(), now.since(since));
        let assignment = Assignment { session, service, host, channel, waited, is_offer };
        self.outputs.push_back(Output::Assigned { assignment, client, channel_handle });
    }

    /// Takes a client out of the queue, for `reason`. Nothing happens where it does not wait.
    pub(super) fn refuse_waiting(&mut self, session: SessionId, reason: Reason) {
        if !self.is_waiting(session) {
            return;
        }
        let Some(entry) = self.sessions.remove(&session) else {
            return;
        };
        let State::Waiting { since, client } = entry.state else {
            return;
        };
        self.deadlines.remove(&(since + self.limits_of(&entry.service).assign_timeout, session));
        if let Some(service) = self.services.get_mut(&entry.service) {
            service.queue.remove(&entry.turn);
        }
        self.forget_service_if_empty(&entry.service);
        self.outputs.push_back(Output::Refused { session, reason, client });
    }

    /// Takes a client that has waited for long enough out of the queue, for the reason that it found no channel.
    fn refuse_unassigned(&mut self, now: Time, session: SessionId) {
        let Some(entry) = self.sessions.get(&session) else {
            return;
        };
        let reason = if let Some(reason) = entry.last_failure {
            reason
        } else if self.is_full(&entry.service) {
            Reason::SessionLimit
        } else if self.roster.anybody_has_room(now, &entry.service) {
            Reason::NoChannel
        } else if self.roster.anybody_is_here(now, &entry.service, &BTreeSet::new()) {
            Reason::SessionLimit
        } else {
            Reason::NoHost
        };
        self.refuse_waiting(session, reason);
    }

    pub(super) fn client_finished(&mut self, session: SessionId) {
        let Some(State::Assigned { channel, host, progress }) =
            self.sessions.get_mut(&session).map(|session| &mut session.state)
        else {
            return;
        };
        if std::mem::replace(&mut progress.client_finished, true) || progress.host_finished {
            return;
        }
        let (host, channel) = (*host, *channel);
        if let Some(channel) = channel
            && !self.roster.is_member(host)
        {
            self.announce(host, Announcement::Drop(channel));
        }
    }

    pub(super) fn host_finished(&mut self, session: SessionId) {
        let Some(State::Assigned { host, progress, .. }) =
            self.sessions.get_mut(&session).map(|session| &mut session.state)
        else {
            return;
        };
        if std::mem::replace(&mut progress.host_finished, true) {
            return;
        }
        if self.roster.is_lost(*host) {
            self.end(session, Reason::HostLost);
        }
    }

    pub(super) fn session_ended(&mut self, now: Time, session: SessionId, end: End) {
        if self.is_waiting(session) {
            return;
        }
        let Some(entry) = self.sessions.remove(&session) else {
            return;
        };
        let State::Assigned { channel, host, .. } = entry.state else {
            return;
        };
        if let Some((command, to)) = self.roster.command_of_member(host) {
            let announcement = Announcement::Ended(session, end);
            self.outputs.push_back(Output::Announce { command, to, announcement });
        }
        self.roster.session_removed(host, session);
        self.reweigh(host);
        if let Some(service) = self.services.get_mut(&entry.service) {
            service.sessions -= 1;
        }
        if let Some(channel) = channel {
            self.forget_channel(channel);
        }
        self.assign_where_room_is(now, host, &entry.service);
    }

    pub(super) fn time_passed(&mut self, now: Time) {
        self.expire_grants(now);
        while let Some(host) = self.roster.take_recovered(now) {
            self.reweigh(host);
        }
        self.look_at_demands(now);
        while let Some(&(deadline, session)) = self.deadlines.first()
            && deadline <= now
        {
            self.refuse_unassigned(now, session);
        }
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
        self.close_channels(closed, Reason::Draining);
    }

    pub(super) fn end_all(&mut self, reason: Reason) {
        let mut running: Vec<SessionId> = self.sessions.keys().copied().collect();
        // The map's order is random; a replay must end them in the same order.
        running.sort_unstable();
        running.retain(|session| !self.is_waiting(*session));
        running.into_iter().for_each(|session| self.end(session, reason));
    }
}
