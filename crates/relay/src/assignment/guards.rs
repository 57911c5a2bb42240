//! What stands in the book and is taken out when it is dropped, so that a task that ends, however it ends, leaves no ghost.

use std::sync::Arc;
use std::time::Duration;

use relayserver_core::{ChannelId, CommandId, End, Input, Reason, ServiceName, SessionId};

use super::{Assignments, Reach};

/// A command channel that stands in the book.
pub(crate) struct CommandGuard {
    pub(super) assignments: Arc<Assignments>,
    pub(super) command: CommandId,
}

impl Drop for CommandGuard {
    fn drop(&mut self) {
        self.tell(Input::CommandDown { command: self.command });
    }
}

impl CommandGuard {
    /// The host is gone, and what it serves with it.
    pub(crate) fn gone(&self) {
        self.tell(Input::CommandGone { command: self.command });
    }

    /// The host is leaving.
    pub(crate) fn leaving(&self) {
        self.tell(Input::CommandLeaving { command: self.command });
    }

    /// The host keeps between so many idle channels of `service`.
    pub(crate) fn pool_bounds(&self, service: ServiceName, min: usize, max: usize) {
        self.tell(Input::PoolBounds { command: self.command, service, min, max });
    }

    /// The host has so many idle channels of `service` closed.
    pub(crate) fn pool_surplus(&self, service: ServiceName, idle: usize) {
        self.tell(Input::PoolSurplus { command: self.command, service, idle });
    }

    /// The host has answered a ping after so long.
    pub(crate) fn round_trip(&self, round_trip: Duration) {
        self.tell(Input::RoundTrip { command: self.command, round_trip });
    }

    /// The host was not heard from for a while, or was heard from again.
    pub(crate) fn set_suspect(&self, suspect: bool) {
        let command = self.command;
        let input = if suspect {
            Input::CommandSuspect { command }
        } else {
            Input::CommandWell { command }
        };
        self.tell(input);
    }

    fn tell(&self, input: Input<Reach>) {
        self.assignments.drive(&mut self.assignments.lock(), input);
    }
}

/// A data channel that stands in the book.
pub(crate) struct ChannelGuard {
    pub(super) assignments: Arc<Assignments>,
    pub(crate) channel: ChannelId,
    /// Whether a session has it, as far as is known here.
    pub(super) is_assigned: bool,
}

impl ChannelGuard {
    /// Takes the channel out of the book, unless a client was assigned to it meanwhile.
    pub(crate) fn gone(&self) {
        let input = Input::ChannelGone { channel: self.channel };
        self.assignments.drive(&mut self.assignments.lock(), input);
    }

    /// A client was assigned to the channel: its session is to take it out.
    pub(crate) fn assigned(mut self) {
        self.is_assigned = true;
    }
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        if !self.is_assigned {
            self.gone();
        }
    }
}

/// A client that stands in the book, waiting or in a session. Whatever becomes of it, it is taken out when this is dropped.
pub(crate) struct SessionGuard {
    pub(super) assignments: Arc<Assignments>,
    pub(crate) session: SessionId,
    /// Whether the book knows how it ended.
    pub(super) has_ended: bool,
}

impl SessionGuard {
    pub(crate) fn assignments(&self) -> &Assignments {
        &self.assignments
    }

    /// The session is over.
    pub(crate) fn ended(mut self, end: End) {
        self.has_ended = true;
        self.tell_end(end);
    }

    fn tell_end(&self, end: End) {
        let input = Input::SessionEnded { session: self.session, end };
        self.assignments.drive(&mut self.assignments.lock(), input);
    }

    /// Takes the client out of the book, unless it was assigned meanwhile.
    pub(crate) fn gone(&self) {
        let input = Input::ClientGone { session: self.session };
        self.assignments.drive(&mut self.assignments.lock(), input);
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        if !self.has_ended {
            // One of the two is news to the book: either it waits, or it runs.
            self.gone();
            self.tell_end(End {
                reason: Reason::HostAborted,
                bytes_to_host: 0,
                bytes_to_client: 0,
            });
        }
    }
}
