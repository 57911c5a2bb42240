//! What a session is called, here and in the relay's log.

use std::fmt;

use tracing::field::{DisplayValue, display};

/// Names a session: with protocol version 2 by the relay's own name for it, `session.id` in its log; with version 1 by the
/// channel's id, `channel.id` there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Name);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Name {
    Channel(i32),
    Session(relayserver_wire::SessionId),
}

impl SessionId {
    pub(crate) fn of_channel(channel_id: i32) -> SessionId {
        SessionId(Name::Channel(channel_id))
    }

    pub(crate) fn of_session(id: relayserver_wire::SessionId) -> SessionId {
        SessionId(Name::Session(id))
    }

    /// For the field `channel.id` of a log line.
    pub(crate) fn channel(self) -> Option<i32> {
        match self.0 {
            Name::Channel(id) => Some(id),
            Name::Session(_) => None,
        }
    }

    /// For the field `session.id` of a log line.
    pub(crate) fn session(self) -> Option<DisplayValue<relayserver_wire::SessionId>> {
        match self.0 {
            Name::Channel(_) => None,
            Name::Session(id) => Some(display(id)),
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Name::Channel(id) => id.fmt(f),
            Name::Session(id) => id.fmt(f),
        }
    }
}
