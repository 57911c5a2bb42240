//! The book's part about offers: sessions of hosts of version 2 between their assignment and the host's word.

use super::Book;
use crate::ids::SessionId;
use crate::limits::OFFERS_MAX;
use crate::reason::Reason;
use crate::session::{Acceptance, State};
use crate::time::Time;
use crate::vocabulary::{Handles, Output};

impl<H: Handles> Book<H> {
    /// The host serves it. What was asked back because the host may be lost stays with it, since it is not: given to another it would
    /// run twice.
    pub(super) fn accepted(&mut self, session: SessionId, stop: H::Stop) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let State::Assigned { host, progress, .. } = &mut entry.state else {
            return;
        };
        match progress.acceptance {
            Acceptance::Offered => {}
            Acceptance::Withdrawn { late_word_counts: true } => entry.stop = Some(stop),
            Acceptance::Withdrawn { late_word_counts: false } | Acceptance::Accepted => return,
        }
        progress.acceptance = Acceptance::Accepted;
        let host = *host;
        if self.roster.recovered(host) {
            self.reweigh(host);
        }
    }

    /// Asks for the client of a session that its host has not accepted.
    pub(super) fn withdraw(&mut self, session: SessionId, reason: Reason) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let late_word_counts = matches!(reason, Reason::HostSuspect | Reason::Replaced);
        if !late_word_counts {
            entry.state.void_late_word();
        }
        if let State::Assigned { progress, .. } = &mut entry.state
            && progress.acceptance == Acceptance::Offered
            && let Some(stop) = entry.stop.take()
        {
            progress.acceptance = Acceptance::Withdrawn { late_word_counts };
            self.outputs.push_back(Output::Withdraw { session, reason, stop });
        }
    }

    /// The client is back: it stands in the queue again, where it stood before, for as long as a client that comes now.
    pub(super) fn offer_failed(
        &mut self,
        now: Time,
        session: SessionId,
        reason: Reason,
        client: H::Client,
        stop: H::Stop,
    ) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            self.outputs.push_back(Output::Refused { session, reason, client });
            return;
        };
        let State::Assigned { channel, host, progress } = entry.state else {
            return;
        };
        if progress.acceptance == Acceptance::Accepted {
            return;
        }
        if !was_lost_on_the_way(reason) || !entry.lost.insert(host) {
            entry.tried.insert(host);
        }
        entry.last_failure = Some(reason);
        entry.stop = Some(stop);
        entry.state = State::Waiting { since: now, client };
        let (service, turn, tried) = (entry.service.clone(), entry.turn, entry.tried.clone());
        let offers = entry.tried.len() + entry.lost.len();
        let limits = self.limits_of(&service);
        self.deadlines.insert((now + limits.assign_timeout, session));
        let queue = &mut self.services.entry(service.clone()).or_default();
        queue.queue.insert(turn, session);
        queue.sessions -= 1;
        self.roster.session_removed(host, session);
        if is_the_hosts_doing(reason) {
            self.roster.failed(now, host, reason);
        }
        self.reweigh(host);
        if let Some(channel) = channel {
            self.forget_channel(channel);
        }
        // A client that so many hosts have failed may be what they failed of.
        if offers >= OFFERS_MAX {
            self.refuse_waiting(session, reason);
        }
        // Its place in the service's sessions is free, for it or for another.
        self.assign_where_room_is(now, host, &service);
        self.arrival(now, &service);
        // A host that turned it down would again. One that was lost may come back as another process.
        let was_turned_down = matches!(reason, Reason::Rejected | Reason::TargetUnreachable);
        let hopeless = was_turned_down && !self.roster.anybody_is_here(now, &service, &tried);
        if self.draining {
            self.refuse_waiting(session, Reason::Draining);
        } else if hopeless || limits.assign_timeout.is_zero() {
            self.refuse_waiting(session, reason);
        }
    }
}

/// Whether the host may not even have had the session: its channel failed, or all that it had was taken back.
fn was_lost_on_the_way(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::HostAborted | Reason::HostSuspect | Reason::HostLost | Reason::Replaced
    )
}

/// Whether the next session would fare no better there, so that others come first. A channel that was reset says nothing of that: so does a
/// host that stood still with what it may not serve any more, and is well again.
fn is_the_hosts_doing(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Rejected | Reason::TargetUnreachable | Reason::NotAccepted | Reason::Malformed
    )
}
