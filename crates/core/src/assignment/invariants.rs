//! What must hold in the book after every input; driven by tests over generated histories.

use super::{Book, Channel, Place};
use crate::ids::ServiceName;
use crate::session::{Phase, Session, State};
use crate::time::Time;
use crate::vocabulary::Handles;

impl<H: Handles> Book<H> {
    /// Checks everything that must hold between inputs. Costs time in proportion to the book's size: for tests.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn check_invariants(&self, now: Time) -> Result<(), String> {
        self.check_services(now)?;
        self.check_limits()?;
        self.check_channels()?;
        self.check_hosts()
    }

    fn check_services(&self, now: Time) -> Result<(), String> {
        for (name, service) in &self.services {
            ensure(
                !self.a_client_waits_in_vain(now, name),
                "no client waits while a channel that it may use is idle",
            )?;
            let limits = self.limits_of(name);
            let returned = |session| self.sessions.get(session).is_some_and(|it| it.came_back());
            let arrived = service.queue.values().filter(|session| !returned(session)).count();
            ensure(arrived <= limits.queue_max, "the queue is bounded")?;
            ensure(
                limits.sessions_max.is_none_or(|max| service.sessions <= max),
                "a service's sessions are bounded",
            )?;
            let of_service = |session: &&Box<_>| self.is_session_of(session, name);
            let counted = self.sessions.values().filter(of_service).count();
            ensure(service.sessions == counted, "a service's sessions are counted")?;
            ensure(
                !(service.queue.is_empty() && service.pool.is_empty() && service.sessions == 0),
                "an empty service is forgotten",
            )?;
        }
        let queued = self.services.values().map(|service| service.queue.len()).sum::<usize>();
        ensure(self.deadlines.len() == queued, "whoever stands in a queue has a deadline")?;
        let waits = |session: &&_| matches!(session, State::Waiting { .. });
        let waiting = self.sessions.values().map(|session| &session.state).filter(waits).count();
        ensure(waiting == queued, "whoever waits stands in a queue")
    }

    fn is_session_of(&self, session: &Session<H>, name: &ServiceName) -> bool {
        session.service == *name && matches!(session.state, State::Assigned { .. })
    }

    fn a_client_waits_in_vain(&self, now: Time, name: &ServiceName) -> bool {
        let Some(service) = self.services.get(name) else {
            return false;
        };
        let full = self.limits_of(name).sessions_max.is_some_and(|max| service.sessions >= max);
        let mut waiting = service.queue.values().filter_map(|session| self.sessions.get(session));
        !full
            && waiting.any(|session| {
                service.pool.hosts().any(|host| {
                    !session.tried.contains(&host) && self.roster.may_serve(now, host, name)
                })
            })
    }

    fn check_limits(&self) -> Result<(), String> {
        let limits = &self.limits;
        ensure(self.channels.len() <= limits.channels_max, "channels are bounded")?;
        ensure(self.sessions.len() <= limits.clients_max, "clients are bounded")?;
        ensure(self.roster.commands() <= limits.commands_max, "command channels are bounded")
    }

    fn check_channels(&self) -> Result<(), String> {
        for (id, channel) in &self.channels {
            if let Place::Assigned(session) = channel.place {
                let carries = self.sessions.get(&session).is_some_and(|session| {
                    matches!(session.state, State::Assigned { channel, .. } if channel == Some(*id))
                });
                ensure(carries, "a channel is assigned to the one session that it carries")?;
            }
        }
        let idle = self.channels.values().filter(|it| matches!(it.place, Place::Idle(_))).count();
        let pooled = self.services.values().map(|service| service.pool.len()).sum::<usize>();
        ensure(idle == pooled, "a channel stands in a pool while it is idle")?;
        let states = || self.sessions.values().map(|session| &session.state);
        let returned = || states().filter(|state| state.has_returned_its_channel());
        ensure(
            returned().all(|state| self.has_served_to_the_end(state)),
            "only a host of version 2 that has served a session to its end has its channel back",
        )?;
        let assigned = self.channels.values().filter(|it| it.is_assigned()).count();
        ensure(
            assigned + returned().count() == self.sessions(),
            "a session has one channel of its own until that is returned",
        )
    }

    fn has_served_to_the_end(&self, state: &State<H>) -> bool {
        let is_by_member =
            matches!(state, State::Assigned { host, .. } if self.roster.is_member(*host));
        is_by_member && state.phase() == Phase::BothFinished
    }

    fn check_hosts(&self) -> Result<(), String> {
        ensure(self.roster.is_consistent(), "the roster agrees with itself")?;
        for (host, channels, sessions, has_command) in self.roster.survey() {
            let own = || self.channels.values().filter(|channel| channel.host == host);
            ensure(channels == own().count(), "a host's channels are counted")?;
            let is_own =
                |state: &State<H>| matches!(state, State::Assigned { host: of, .. } if *of == host);
            let served = self.sessions.values().filter(|session| is_own(&session.state)).count();
            ensure(sessions == served, "a host's sessions are counted")?;
            let is_here = has_command || channels > 0 || sessions > 0;
            ensure(is_here, "a host of whom nothing is left is forgotten")?;
        }
        Ok(())
    }
}

impl Channel {
    fn is_assigned(&self) -> bool {
        matches!(self.place, Place::Assigned(_))
    }
}

fn ensure(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}
