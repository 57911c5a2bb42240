//! Steps of clients and of their sessions.

use std::collections::BTreeSet;

use relayserver_core::{Announcement, End, HostId, Input, Output, Reason, ServiceName, SessionId};

use crate::world::{Named, Session, World};

const END: End = End { reason: Reason::Finished, bytes_to_host: 1, bytes_to_client: 2 };

impl World {
    pub(crate) fn client_arrives(&mut self, service: ServiceName) {
        let session = SessionId(u128::from(self.number()));
        let too_many = self.sessions.len() >= self.limits.clients_max;
        let arrived = Session {
            service: service.clone(),
            since: self.now,
            host: None,
            channel: None,
            tried: BTreeSet::new(),
            lost: BTreeSet::new(),
            accepted: false,
            withdrawn: false,
            late_word_counts: false,
            client_finished: false,
            host_finished: false,
            asked_to_end: false,
        };
        self.sessions.insert(session, arrived);
        let is_served = self.next_match(&service).is_some();
        let limits = self.policy.services[&service];
        let queued =
            self.waiting().iter().filter(|it| self.sessions[it].service == service).count();
        let input = Input::ClientArrived { session, service, client: session, stop: session };
        let refused = self.tell(input).iter().find_map(|output| match output {
            Output::Refused { session: refused, reason, .. } if *refused == session => {
                Some(*reason)
            }
            _ => None,
        });
        match refused {
            Some(Reason::Draining) => assert!(self.draining),
            Some(Reason::ClientLimit) => assert!(!self.draining && too_many),
            Some(Reason::QueueFull) => assert!(!is_served && queued > limits.queue_max),
            Some(_) => assert!(!is_served && limits.assign_timeout.is_zero()),
            None if is_served => {}
            None => {
                assert!(!self.draining && !too_many);
                assert!(queued <= limits.queue_max && !limits.assign_timeout.is_zero());
            }
        }
    }

    pub(crate) fn client_gone(&mut self, session: SessionId) {
        let waited = self.sessions[&session].host.is_none();
        let refused = !self.tell(Input::ClientGone { session }).is_empty();
        assert_eq!(refused, waited);
    }

    pub(crate) fn accepted(&mut self, session: SessionId) {
        let it = self.sessions.get_mut(&session).unwrap();
        let is_late = it.withdrawn && it.late_word_counts;
        let is_first = !it.accepted && (!it.withdrawn || is_late);
        it.accepted |= is_first;
        if is_late {
            // It runs, and may be asked to end like any other.
            (it.withdrawn, it.asked_to_end) = (false, false);
        }
        let host = self.host_serving(session);
        if let Some(member) = self.members.get_mut(&host).filter(|_| is_first) {
            member.failing_until = None;
        }
        assert!(self.tell(Input::Accepted { session, stop: session }).is_empty());
    }

    pub(crate) fn offer_failed(&mut self, session: SessionId, reason: Reason) {
        let input = Input::OfferFailed { session, reason, client: session, stop: session };
        if self.sessions[&session].accepted {
            assert!(self.tell(input).is_empty(), "after it was accepted, never");
            return;
        }
        let host = self.host_serving(session);
        let now = self.now;
        let it = self.sessions.get_mut(&session).unwrap();
        let channel = it.channel.take().unwrap();
        it.host = None;
        let on_the_way = matches!(reason, Reason::HostAborted | Reason::HostSuspect);
        if !on_the_way || !it.lost.insert(host) {
            assert!(it.tried.insert(host), "never offered to a host that turned it down");
        }
        let offers = it.tried.len() + it.lost.len();
        let until = now + relayserver_core::limits::FAILING_TIME;
        if let Some(member) = self.members.get_mut(&host).filter(|_| !on_the_way) {
            (member.failing_until, member.last_failure) = (Some(until), Some((now, reason)));
        }
        let it = self.sessions.get_mut(&session).unwrap();
        (it.since, it.withdrawn, it.asked_to_end) = (now, false, false);
        (it.client_finished, it.host_finished) = (false, false);
        let (tried, service) = (it.tried.clone(), it.service.clone());
        self.channels.remove(&channel).unwrap();
        self.tell(input);
        let turned_down = matches!(reason, Reason::Rejected | Reason::TargetUnreachable);
        let others = |host| !tried.contains(&host) && self.is_here(host, &service);
        let hopeless = (turned_down && !self.anybody(others))
            || offers >= relayserver_core::limits::OFFERS_MAX
            || self.policy.services[&service].assign_timeout.is_zero();
        match self.sessions.get(&session).map(|it| it.host) {
            Some(Some(_)) => {}
            Some(None) => assert!(!hopeless && !self.draining, "it waits in vain"),
            None => assert!(hopeless || self.draining, "it could have been served yet"),
        }
    }

    pub(crate) fn client_finished(&mut self, session: SessionId) {
        let it = self.sessions.get_mut(&session).unwrap();
        let told = it.host.is_some() && !it.client_finished && !it.host_finished;
        it.client_finished |= it.host.is_some();
        let mut expected = Vec::new();
        if let Some(channel) = self.sessions[&session].channel
            && told
            && let host @ HostId::Address(_) = self.host_serving(session)
        {
            expected = self.audience(host).into_iter().map(|to| (to, channel)).collect();
        }
        let outputs = self.tell(Input::ClientFinished { session });
        let dropped = |output: &Output<Named>| match output {
            Output::Announce { to, announcement: Announcement::Drop(channel), .. } => {
                (*to, *channel)
            }
            _ => panic!("unexpected output"),
        };
        let mut announced: Vec<_> = outputs.iter().map(dropped).collect();
        announced.sort_unstable();
        assert_eq!(announced, expected, "a drop is announced once, unless the host ended first");
    }

    pub(crate) fn host_finished(&mut self, session: SessionId) {
        let asked_before = self.sessions[&session].asked_to_end;
        let lost = self.is_lost(self.host_serving(session));
        let it = self.sessions.get_mut(&session).unwrap();
        let first = !std::mem::replace(&mut it.host_finished, true);
        let ended = !self.tell(Input::HostFinished { session }).is_empty();
        assert_eq!(ended, first && lost && !asked_before);
    }

    pub(crate) fn session_ended(&mut self, session: SessionId) {
        let host = self.host_serving(session);
        let told = self.commands.iter().find(|(_, it)| **it == host).map(|(id, _)| *id);
        let ended = self.sessions.remove(&session).unwrap();
        if let Some(channel) = ended.channel {
            self.channels.remove(&channel).unwrap();
        }
        let outputs = self.tell(Input::SessionEnded { session, end: END });
        match (outputs.as_slice(), host) {
            ([], HostId::Address(_)) => {}
            ([], HostId::Process(_)) => assert_eq!(told, None),
            ([Output::Announce { to, announcement, .. }], HostId::Process(_)) => {
                assert_eq!(Some(*to), told);
                assert_eq!(*announcement, Announcement::Ended(session, END));
            }
            _ => panic!("unexpected outputs"),
        }
        assert_eq!(self.book.phase(session), None);
    }
}
