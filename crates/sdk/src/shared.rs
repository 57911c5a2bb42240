//! What a listener, its driver, its channels and its sessions share.

use std::any::Any;
use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use relayserver_core::keeper::PoolBounds;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::channels::Channels;
use crate::contact::Contact;
use crate::events::{DropReason, EVENTS_MAX, Event};
use crate::link::Link;
use crate::report::Hopeless;
use crate::status::Status;
use crate::{Session, SessionId};

pub(crate) struct Shared {
    pub(crate) link: Link,
    pub(crate) channels: Channels,
    /// When the relay was last heard of.
    contact: Mutex<Arc<Contact>>,
    /// Where what sessions leave unsent is still sent.
    pub(crate) runtime: Handle,
    /// What ends that runtime when it is dropped, where the listener has one of its own.
    pub(crate) runtime_owner: OnceLock<Weak<dyn Any + Send + Sync>>,
    /// What ended the listener, where waiting could not have mended it.
    pub(crate) failure: OnceLock<Hopeless>,
    pub(crate) status: watch::Sender<Status>,
    /// One for each service, in the order of the link's.
    pub(crate) pools: watch::Sender<Vec<PoolState>>,
    /// How often the machine's network has changed.
    pub(crate) network: watch::Sender<u64>,
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
    /// What serves the sessions that come, in the tasks of their channels; without it they wait to be accepted.
    serving: Mutex<Option<Serve>>,
    events: broadcast::Sender<Event>,
    told: Mutex<Told>,
}

/// Serves a session to its end.
pub(crate) type Serve = Arc<dyn Fn(Session) -> Serving + Send + Sync>;
pub(crate) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Has sessions served until this is dropped.
pub(crate) struct ServingGuard {
    shared: Arc<Shared>,
    serve: Serve,
}

impl Drop for ServingGuard {
    fn drop(&mut self) {
        let mut serving = self.shared.serving.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have come after it.
        if serving.as_ref().is_some_and(|serve| Arc::ptr_eq(serve, &self.serve)) {
            *serving = None;
        }
    }
}

/// How many idle channels of a service there may be, and whether there are to be any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolState {
    pub(crate) bounds: PoolBounds,
    pub(crate) is_available: bool,
}

impl PoolState {
    /// The least and the most, as the relay is told.
    pub(crate) fn announced(&self) -> (u32, u32) {
        let number = |idle| u32::try_from(idle).unwrap_or(u32::MAX);
        let PoolBounds { min, max } = self.bounds;
        if self.is_available { (number(min), number(max)) } else { (0, 0) }
    }
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
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(crate) fn new(link: Link, pools: &[PoolBounds]) -> Shared {
        let pool = |bounds: &PoolBounds| PoolState { bounds: *bounds, is_available: true };
        let connecting = Status::Connecting { last_error: None, next_try: None };
        Shared {
            link,
            channels: Channels::new(pools),
            contact: Mutex::new(Arc::new(Contact::new())),
            runtime: Handle::current(),
            runtime_owner: OnceLock::new(),
            failure: OnceLock::new(),
            status: watch::Sender::new(connecting),
            pools: watch::Sender::new(pools.iter().map(pool).collect()),
            network: watch::Sender::new(0),
            leaving: CancellationToken::new(),
            over: CancellationToken::new(),
            aborted: CancellationToken::new(),
            unaccepted: AtomicUsize::new(0),
            accepted: Notify::new(),
            sessions: watch::Sender::new(0),
            serving: Mutex::new(None),
            events: broadcast::Sender::new(EVENTS_MAX),
            told: Mutex::new(Told::default()),
        }
    }

    /// That with the relay which new channels are dialled to.
    pub(crate) fn contact(&self) -> Arc<Contact> {
        Arc::clone(&self.contact.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The relay leaves. What is dialled from now on is another's; what is there keeps its contact with the one that leaves.
    pub(crate) fn begin_contact_anew(&self) {
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        *contact = Arc::new(Contact::new());
    }

    /// Whether sessions of the service at this place are to be had. Gives `false` where there is none there.
    pub(crate) fn set_available(&self, index: usize, is_available: bool) -> bool {
        let mut is_known = false;
        self.pools.send_if_modified(|pools| {
            let Some(pool) = pools.get_mut(index) else { return false };
            is_known = true;
            std::mem::replace(&mut pool.is_available, is_available) != is_available
        });
        is_known
    }

    /// Has the sessions that come from now on served by `serve`.
    pub(crate) fn serve_with(self: &Arc<Self>, serve: &Serve) -> ServingGuard {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        *serving = Some(Arc::clone(serve));
        ServingGuard { shared: Arc::clone(self), serve: Arc::clone(serve) }
    }

    /// What serves the sessions that come.
    pub(crate) fn serving(&self) -> Option<Serve> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// The relay's word how a session ended.
    pub(crate) fn session_ended(
        &self,
        id: SessionId,
        reason: String,
        bytes_to_host: u64,
        bytes_to_client: u64,
    ) {
        self.send(Event::Ended { id, reason, bytes_to_host, bytes_to_client });
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
