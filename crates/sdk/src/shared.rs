//! What a listener, its driver, its channels and its sessions share.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use relayserver_transport::HostPort;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::SessionId;
use crate::events::{DropReason, EVENTS_MAX, Event};
use crate::status::Status;

/// What a listener was told to be.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) hosts: HostPort,
    pub(crate) command: HostPort,
    pub(crate) pool_size: usize,
    pub(crate) bind_addr: Option<IpAddr>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) status: watch::Sender<Status>,
    /// The listener leaves the pool.
    pub(crate) leaving: CancellationToken,
    /// And its last session has gone.
    pub(crate) over: CancellationToken,
    /// Sessions are reset when they are dropped from now on.
    pub(crate) aborted: CancellationToken,
    /// Sessions in the queue of those that nobody has accepted.
    pub(crate) unaccepted: AtomicUsize,
    /// A session was accepted.
    pub(crate) accepted: Notify,
    /// How many sessions there are, accepted or not.
    pub(crate) sessions: watch::Sender<usize>,
    events: broadcast::Sender<Event>,
    told: Mutex<Told>,
}

/// The book of what watchers have been told.
#[derive(Default)]
struct Told {
    /// Sessions whose `Dropped` has not been sent.
    ids: HashSet<SessionId>,
    /// Drops that were announced before their session's task came to open it: a client that comes and leaves at once.
    early_drops: VecDeque<SessionId>,
}

/// A client that leaves at once is some microseconds ahead of its session's task.
const EARLY_DROPS_MAX: usize = 64;

impl Shared {
    pub(crate) fn new(config: Config) -> Shared {
        let connecting = Status::Connecting { last_error: None, next_try: None };
        Shared {
            config,
            status: watch::Sender::new(connecting),
            leaving: CancellationToken::new(),
            over: CancellationToken::new(),
            aborted: CancellationToken::new(),
            unaccepted: AtomicUsize::new(0),
            accepted: Notify::new(),
            sessions: watch::Sender::new(0),
            events: broadcast::Sender::new(EVENTS_MAX),
            told: Mutex::new(Told::default()),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(crate) fn session_opened(&self, id: SessionId) {
        self.sessions.send_modify(|sessions| *sessions += 1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(Event::Opened { id });
        match told.early_drops.iter().position(|early| *early == id) {
            Some(position) => {
                told.early_drops.remove(position);
                self.send(Event::Dropped { id, reason: DropReason::ClientLeft });
            }
            None => drop(told.ids.insert(id)),
        }
    }

    /// Says that a session is dropped, unless that was said.
    pub(crate) fn session_dropped(&self, id: SessionId, reason: DropReason) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.ids.remove(&id) {
            self.send(Event::Dropped { id, reason });
        } else if reason == DropReason::ClientLeft {
            // Its task has not come to open it yet; or the id is another host's, or one that was dropped.
            if told.early_drops.len() == EARLY_DROPS_MAX {
                told.early_drops.pop_front();
            }
            told.early_drops.push_back(id);
        }
    }

    /// A session's last half is gone.
    pub(crate) fn session_gone(&self) {
        self.sessions.send_modify(|sessions| *sessions -= 1);
    }

    pub(crate) fn session_accepted(&self) {
        self.unaccepted.fetch_sub(1, Ordering::AcqRel);
        self.accepted.notify_one();
    }

    fn send(&self, event: Event) {
        // Nobody watches: nobody is told.
        let _watched = self.events.send(event);
    }
}
