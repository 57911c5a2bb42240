//! The grants of those that have a token: what is allowed under each, and until when.

use super::{Host, Roster};
use crate::grant::{Grant, Role};
use crate::ids::{GrantId, HostId};
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::Handles;

impl<H: Handles> Roster<H> {
    /// Why nothing is allowed under this grant, or without one.
    pub(super) fn refusal_of_grant(&self, now: Time, grant: Option<&GrantId>) -> Option<Reason> {
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
    pub(in crate::assignment) fn set_grant(&mut self, id: GrantId, terms: Option<Grant>) {
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
    pub(in crate::assignment) fn next_expiry(&self) -> Option<Time> {
        self.expiries.first().map(|(expires, _)| *expires)
    }

    /// The next grant that has expired, once.
    pub(in crate::assignment) fn take_expired(&mut self, now: Time) -> Option<GrantId> {
        let is_due = self.next_expiry().is_some_and(|expires| expires <= now);
        if is_due { self.expiries.pop_first().map(|(_, id)| id) } else { None }
    }

    /// The hosts that have this grant.
    pub(in crate::assignment) fn bearers(&self, id: &GrantId) -> Vec<HostId> {
        let bears = |host: &Host<H>| {
            host.member.as_ref().is_some_and(|member| member.grant.as_ref() == Some(id))
        };
        self.hosts.iter().filter(|(_, host)| bears(host)).map(|(id, _)| *id).collect()
    }
}
