//! The book's part about returns: channels that can carry another session after one that has ended in order on both sides. That one
//! stays in the book for as long as its client takes to read the last byte; nothing in here waits for it.

use super::Book;
use crate::ids::{ChannelId, SessionId};
use crate::reason::Reason;
use crate::session::{Acceptance, State};
use crate::time::Time;
use crate::vocabulary::{Handles, Output};

impl<H: Handles> Book<H> {
    pub(super) fn channel_returned(&mut self, now: Time, session: SessionId, handle: H::Channel) {
        let Some(State::Assigned { channel: Some(channel), progress, .. }) =
            self.sessions.get(&session).map(|session| &session.state)
        else {
            // Late news, of a channel that has no name here any more: it is closed by the drop of its handle.
            return;
        };
        let channel = *channel;
        let refusal = if progress.acceptance == Acceptance::Accepted {
            self.refusal_of_return(now, channel)
        } else {
            Some(Reason::NotAccepted)
        };
        if let Some(reason) = refusal {
            // The session takes it along when it ends.
            self.outputs.push_back(Output::CloseChannel { channel, reason, handle });
            return;
        }
        self.let_go_of_channel(session);
        if let Some(service) = self.channels.get(&channel).map(|entry| entry.service.clone()) {
            self.came_back(now, &service);
        }
        self.put_into_pool(now, channel, handle);
    }

    /// Whether the session has no channel any more, and asks nothing of its host.
    pub(super) fn has_returned_its_channel(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|it| it.state.has_returned_its_channel())
    }

    /// Why this channel, which has carried a session, may not wait for another.
    fn refusal_of_return(&self, now: Time, channel: ChannelId) -> Option<Reason> {
        if self.draining {
            return Some(Reason::Draining);
        }
        let entry = self.channels.get(&channel)?;
        self.roster.refusal_of_return(now, entry.host, &entry.service, entry.key)
    }

    /// Both sides of the session have ended, whatever was told of that before; what carried it is not its own from now on.
    fn let_go_of_channel(&mut self, session: SessionId) {
        if let Some(entry) = self.sessions.get_mut(&session)
            && let State::Assigned { channel, progress, .. } = &mut entry.state
        {
            *channel = None;
            (progress.client_finished, progress.host_finished) = (true, true);
        }
    }
}
