//! Hosts that have failed to serve a session of late: for a while they get clients only where there is no other host.

use super::Roster;
use crate::ids::HostId;
use crate::limits::FAILING_TIME;
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::Handles;

impl<H: Handles> Roster<H> {
    /// `host` has failed to serve a session.
    pub(in crate::assignment) fn failed(&mut self, now: Time, host: HostId, reason: Reason) {
        let until = now + FAILING_TIME;
        self.set_failing(host, Some(until));
        if let Some(member) = self.member_mut(host) {
            member.last_failure = Some((now, reason));
        }
    }

    /// What `host` has failed before speaks against it no longer. Gives whether anything did.
    pub(in crate::assignment) fn recovered(&mut self, host: HostId) -> bool {
        let did = self.member_mut(host).is_some_and(|member| member.failing_until.is_some());
        if did {
            self.set_failing(host, None);
        }
        did
    }

    /// When the next host has failed long enough ago.
    pub(in crate::assignment) fn next_recovery(&self) -> Option<Time> {
        self.failing.first().map(|(until, _)| *until)
    }

    /// The next host that has failed long enough ago.
    pub(in crate::assignment) fn take_recovered(&mut self, now: Time) -> Option<HostId> {
        let (_, host) = *self.failing.first().filter(|(until, _)| *until <= now)?;
        self.set_failing(host, None);
        Some(host)
    }

    pub(super) fn set_failing(&mut self, host: HostId, until: Option<Time>) {
        let Some(member) = self.hosts.get_mut(&host).and_then(|host| host.member.as_mut()) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut member.failing_until, until) {
            self.failing.remove(&(before, host));
        }
        self.failing.extend(until.map(|until| (until, host)));
    }
}
