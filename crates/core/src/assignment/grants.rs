//! The book's part about grants: what their change and their end do to the hosts that have them.

use super::Book;
use crate::grant::Grant;
use crate::ids::{GrantId, HostId, ServiceName};
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::{Handles, Output};

impl<H: Handles> Book<H> {
    pub(super) fn grant_changed(&mut self, now: Time, id: GrantId, terms: Option<Grant>) {
        let ends = terms.as_ref().is_none_or(|grant| grant.has_expired(now));
        let reason = if terms.is_none() { Reason::TokenRevoked } else { Reason::TokenExpired };
        self.roster.set_grant(id.clone(), terms);
        for host in self.roster.bearers(&id) {
            if ends {
                self.cut_off(host, reason);
            } else {
                self.close_what_is_not_granted(now, host);
            }
        }
        self.ask_all_hosts(now);
        self.assign_all_waiting(now);
    }

    /// Cuts off the hosts whose grants have expired by now.
    pub(super) fn expire_grants(&mut self, now: Time) {
        while let Some(id) = self.roster.take_expired(now) {
            for host in self.roster.bearers(&id) {
                self.cut_off(host, Reason::TokenExpired);
            }
            self.ask_all_hosts(now);
        }
    }

    /// Ends everything that `host` has: its command channel, its idle channels and its sessions. Those that it has not accepted
    /// go to others.
    fn cut_off(&mut self, host: HostId, reason: Reason) {
        let commands = self.roster.take_commands(host);
        if !commands.is_empty() {
            self.outputs.push_back(Output::HostLeft { host });
        }
        for (_, handle) in commands {
            self.outputs.push_back(Output::CloseCommand { handle, reason });
        }
        for session in self.roster.list_sessions(host) {
            self.withdraw(session, reason);
            self.end(session, reason);
        }
        self.close_idle(host, reason, |_| true);
        self.roster.forget_if_empty(host);
    }

    /// Closes the idle channels of `host` that are for services that it may not serve, or not any more. Sessions go on.
    pub(super) fn close_what_is_not_granted(&mut self, now: Time, host: HostId) {
        let services: Vec<ServiceName> = self.services.keys().cloned().collect();
        for service in services {
            if let Some(reason) = self.roster.refusal_of_service(now, host, &service) {
                self.close_idle(host, reason, |name| *name == service);
            }
        }
    }
}
