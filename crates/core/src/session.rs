//! A session as the book knows it: which phase it is in, and on which host.

use std::collections::BTreeSet;

use crate::ids::{ChannelId, HostId, ServiceName};
use crate::pool::Turn;
use crate::reason::Reason;
use crate::time::Time;
use crate::vocabulary::Handles;

/// Where a client stands between its arrival and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No channel yet.
    Waiting,
    /// Assigned to a host that has not accepted it yet.
    Offered,
    /// To be taken back from that host.
    Withdrawn,
    /// Both directions open.
    Open,
    /// The client has sent its last byte (or was reset).
    ClientFinished,
    /// The host has sent its last byte first.
    HostFinished,
    /// Both have sent their last byte; what is left is being handed over.
    BothFinished,
}

/// A client and, once assigned, its channel.
pub(crate) struct Session<H: Handles> {
    pub(crate) service: ServiceName,
    /// Its place in the order of arrival, which it keeps when it is taken back from a host.
    pub(crate) turn: Turn,
    /// The hosts that it was offered to in vain.
    pub(crate) tried: BTreeSet<HostId>,
    /// The hosts that were lost with it, once: another channel of theirs, or a later one, may bring it through.
    pub(crate) lost: BTreeSet<HostId>,
    /// Why the last of them did not serve it.
    pub(crate) last_failure: Option<Reason>,
    /// Reaches the session. Taken when it was asked to end, or to give its client back, so it is asked once.
    pub(crate) stop: Option<H::Stop>,
    pub(crate) state: State<H>,
}

impl<H: Handles> Session<H> {
    /// Whether it was offered in vain before.
    pub(crate) fn came_back(&self) -> bool {
        !self.tried.is_empty() || !self.lost.is_empty()
    }
}

pub(crate) enum State<H: Handles> {
    Waiting {
        since: Time,
        client: H::Client,
    },
    /// With the channel that carries it, until that is returned.
    Assigned {
        channel: Option<ChannelId>,
        host: HostId,
        progress: Progress,
    },
}

/// How far an assigned session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) acceptance: Acceptance,
    pub(crate) client_finished: bool,
    pub(crate) host_finished: bool,
}

/// What the host has said to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// Nothing yet.
    Offered,
    /// Nothing, and its client was asked for. Whether its word still counts, if it comes before its client has gone to another.
    Withdrawn { late_word_counts: bool },
    /// It serves it. Hosts of version 1 are not asked.
    Accepted,
}

impl<H: Handles> State<H> {
    /// Whatever its host says from now on comes too late, where it was asked to give the session back.
    pub(crate) fn void_late_word(&mut self) {
        if let State::Assigned { progress, .. } = self
            && let Acceptance::Withdrawn { late_word_counts } = &mut progress.acceptance
        {
            *late_word_counts = false;
        }
    }

    /// Whether it has ended in order on both sides and has no channel any more: nothing but its client is left to it.
    pub(crate) fn has_returned_its_channel(&self) -> bool {
        matches!(self, State::Assigned { channel: None, .. })
    }

    pub(crate) fn phase(&self) -> Phase {
        match self {
            State::Waiting { .. } => Phase::Waiting,
            State::Assigned { progress, .. } => match progress.acceptance {
                Acceptance::Offered => Phase::Offered,
                Acceptance::Withdrawn { .. } => Phase::Withdrawn,
                Acceptance::Accepted => match (progress.client_finished, progress.host_finished) {
                    (false, false) => Phase::Open,
                    (true, false) => Phase::ClientFinished,
                    (false, true) => Phase::HostFinished,
                    (true, true) => Phase::BothFinished,
                },
            },
        }
    }
}
