//! The book's part about how many idle channels the hosts of version 2 keep: what is asked for is divided
//! among those that may serve, and what a host says is too many is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Book;
use crate::demand::{Demand, shares};
use crate::ids::{CommandId, ServiceName};
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::{Announcement, Handles, Output};

/// The demand for each service, and when each has to be looked at.
#[derive(Default)]
pub(super) struct Demands {
    by_service: BTreeMap<ServiceName, Demand>,
    due: BTreeSet<(Time, ServiceName)>,
}

impl Demands {
    /// How many idle channels a service is to have.
    pub(super) fn asked(&self, service: &ServiceName) -> usize {
        self.by_service.get(service).map_or(0, Demand::asked)
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Gives whether another number is asked for than before.
    fn change(&mut self, service: &ServiceName, apply: impl FnOnce(&mut Demand)) -> bool {
        let demand = self.by_service.entry(service.clone()).or_default();
        let (asked, due) = (demand.asked(), demand.poll_timeout());
        apply(demand);
        let (asked_now, due_now) = (demand.asked(), demand.poll_timeout());
        if due != due_now {
            due.map(|due| self.due.remove(&(due, service.clone())));
            self.due.extend(due_now.map(|due| (due, service.clone())));
        }
        asked != asked_now
    }
}

impl<H: Handles> Book<H> {
    pub(super) fn pool_bounds(
        &mut self,
        now: Time,
        command: CommandId,
        service: &ServiceName,
        min: usize,
        max: usize,
    ) {
        let Some(host) = self.roster.host_of(command) else {
            return;
        };
        let member = self.roster.member_mut(host);
        if !member.is_some_and(|member| member.set_bounds(service, min, max)) {
            return;
        }
        if max == 0 {
            self.close_idle(host, Reason::Paused, |name| name == service);
        }
        self.ask_hosts(now, service);
        self.assign_waiting(now, service);
    }

    /// Closes as many idle channels of the host as it says, those that would be given out last, but none of those that it is to keep: more may be
    /// wanted by now. One that a client has stays.
    pub(super) fn pool_surplus(&mut self, command: CommandId, service: &ServiceName, idle: usize) {
        let Some(host) = self.roster.host_of(command) else {
            return;
        };
        let Some(member) = self.roster.member_mut(host) else {
            return;
        };
        let kept = member.wanted_of(service);
        let pool = self.services.get_mut(service).map(|service| &mut service.pool);
        let closed = pool.map_or_else(Vec::new, |pool| pool.take_last_of(host, idle, kept));
        self.close_channels(closed, Reason::Surplus);
    }

    pub(super) fn round_trip(&mut self, command: CommandId, round_trip: Duration) {
        let host = self.roster.host_of(command);
        let Some(member) = host.and_then(|host| self.roster.member_mut(host)) else {
            return;
        };
        member.set_round_trip(round_trip);
        for service in &member.services {
            self.demands.change(service, |demand| demand.handle_round_trip(round_trip));
        }
    }

    /// A client of `service` has arrived.
    pub(super) fn arrival(&mut self, now: Time, service: &ServiceName) {
        let waiting = self.queue_len(service);
        if self.demands.change(service, |demand| demand.handle_arrival(now, waiting)) {
            self.ask_hosts(now, service);
        }
    }

    /// A channel of `service` has carried a client and is idle again.
    pub(super) fn came_back(&mut self, now: Time, service: &ServiceName) {
        self.demands.change(service, |demand| demand.handle_return(now));
    }

    pub(super) fn look_at_demands(&mut self, now: Time) {
        while let Some((due, service)) = self.demands.due.first().cloned()
            && due <= now
        {
            if self.demands.change(&service, |demand| demand.handle_timeout(now)) {
                self.ask_hosts(now, &service);
            }
        }
    }

    /// Who may serve what has changed.
    pub(super) fn ask_all_hosts(&mut self, now: Time) {
        let services: Vec<ServiceName> = self.demands.by_service.keys().cloned().collect();
        services.iter().for_each(|service| self.ask_hosts(now, service));
    }

    /// Tells the hosts of `service` how many idle channels each is to keep, where that has changed.
    fn ask_hosts(&mut self, now: Time, service: &ServiceName) {
        let (hosts, bidders): (Vec<_>, Vec<_>) =
            self.roster.bidders(now, service).into_iter().unzip();
        // More would be turned away.
        let asked = self.demands.asked(service).min(self.limits.wanted_max());
        let shares = shares(asked, &bidders);
        for (host, idle) in hosts.into_iter().zip(shares) {
            let is_news =
                self.roster.member_mut(host).is_some_and(|member| member.want(service, idle));
            if is_news && let Some((command, to)) = self.roster.command_of_member(host) {
                let announcement = Announcement::PoolWanted(service.clone(), idle);
                self.outputs.push_back(Output::Announce { command, to, announcement });
            }
        }
    }
}
