//! What hosts and clients write down as they live, for the checks.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relayserver_transport::net::simulated as network;

/// Shared by all machines.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Pages>>);

#[derive(Default)]
pub(crate) struct Pages {
    /// Requests that hosts have run.
    pub(crate) runs: Vec<Run>,
    /// What became of clients.
    pub(crate) outcomes: Vec<Outcome>,
}

/// A host has run a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) request: u64,
    pub(crate) host: IpAddr,
    /// When the host said that it serves the session.
    pub(crate) accepted: Duration,
}

/// What a client has seen.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) request: u64,
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) how: How,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The whole answer, and the end.
    Served,
    /// Closed without a byte.
    Refused,
    /// Reset, with what had come until then being right.
    Reset,
    /// The relay could not be reached, or nothing came for long.
    GaveUp,
    /// What must not happen.
    Wrong(String),
}

impl Ledger {
    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of the world.
pub(crate) fn now() -> Duration {
    network::with(|network| network.now())
}
