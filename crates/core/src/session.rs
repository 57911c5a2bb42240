//! A session as the book knows it: which phase it is in, and on which host.

use crate::ids::{ChannelId, HostId, ServiceName};
use crate::pool::Turn;
use crate::time::Time;
use crate::vocabulary::Handles;

/// Where a client stands between its arrival and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No channel yet.
    Waiting,
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
    /// Asks the running session, or the waiting client, to end. Taken when that was asked, so it is asked once.
    pub(crate) stop: Option<H::Stop>,
    pub(crate) state: State<H>,
}

pub(crate) enum State<H: Handles> {
    Waiting { since: Time, turn: Turn, client: H::Client },
    Assigned { channel: ChannelId, host: HostId, client_finished: bool, host_finished: bool },
}

impl<H: Handles> State<H> {
    pub(crate) fn phase(&self) -> Phase {
        match self {
            State::Waiting { .. } => Phase::Waiting,
            State::Assigned { client_finished, host_finished, .. } => {
                match (client_finished, host_finished) {
                    (false, false) => Phase::Open,
                    (true, false) => Phase::ClientFinished,
                    (false, true) => Phase::HostFinished,
                    (true, true) => Phase::BothFinished,
                }
            }
        }
    }
}
