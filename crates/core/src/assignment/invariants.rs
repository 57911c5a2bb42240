//! What must hold in the book after every input; driven by tests over generated histories.

use super::{Book, Channel, Place};
use crate::session::State;
use crate::vocabulary::Handles;

impl<H: Handles> Book<H> {
    /// Checks everything that must hold between inputs. Costs time in proportion to the book's size: for tests.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_services()?;
        self.check_limits()?;
        self.check_channels()?;
        self.check_hosts()
    }

    fn check_services(&self) -> Result<(), String> {
        for service in self.services.values() {
            ensure(
                service.queue.is_empty() || service.pool.is_empty() || self.commands.is_empty(),
                "no client waits while a channel that it may use is idle",
            )?;
            ensure(service.queue.len() <= self.limits.queue_max, "the queue is bounded")?;
            ensure(
                !(service.queue.is_empty() && service.pool.is_empty()),
                "an empty service is forgotten",
            )?;
        }
        let queued = self.services.values().map(|service| service.queue.len()).sum::<usize>();
        ensure(self.waiting == queued, "whoever waits stands in a queue")
    }

    fn check_limits(&self) -> Result<(), String> {
        let limits = &self.limits;
        ensure(self.channels.len() <= limits.channels_max, "channels are bounded")?;
        ensure(self.sessions.len() <= limits.clients_max, "clients are bounded")?;
        ensure(self.commands.len() <= limits.commands_max, "command channels are bounded")
    }

    fn check_channels(&self) -> Result<(), String> {
        ensure(self.ids.len() == self.channels.len(), "an id is in use while its channel lives")?;
        for (id, channel) in &self.channels {
            if let Place::Assigned(session) = channel.place {
                let carries = self.sessions.get(&session).is_some_and(|session| {
                    matches!(session.state, State::Assigned { channel, .. } if channel == *id)
                });
                ensure(carries, "a channel is assigned to the one session that it carries")?;
            }
        }
        let assigned = self.channels.values().filter(|it| it.is_assigned()).count();
        ensure(
            assigned == self.sessions.len() - self.waiting,
            "a session has one channel of its own",
        )
    }

    fn check_hosts(&self) -> Result<(), String> {
        for (key, host) in &self.hosts {
            let own = || self.channels.values().filter(|channel| channel.host == *key);
            ensure(host.channels == own().count(), "a host's channels are counted")?;
            let sessions = own().filter(|channel| channel.is_assigned()).count();
            ensure(host.sessions == sessions, "a host's sessions are counted")?;
            ensure(
                !host.commands.is_empty() || host.channels > 0,
                "a host of whom nothing is left is forgotten",
            )?;
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
