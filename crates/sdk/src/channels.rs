//! The keeper under its lock, with how the channels' tasks are reached. What happens on each session's way is told it here, by those it
//! happens to; what it wants done is the driver's to do, who is woken for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relayserver_core::Time;
use relayserver_core::keeper::{Keeper, PoolBounds, PoolIndex, Slot};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::channel::Open;

/// A listener's channels.
pub(crate) struct Channels {
    /// When the keeper's time began.
    pub(crate) started: Instant,
    state: Mutex<State>,
    /// Of each pool, whether a channel whose session ends now is to carry another.
    wants_back: Vec<Arc<AtomicBool>>,
    /// Notified when the keeper wants something done, or wants to be asked sooner.
    pub(crate) due: Notify,
}

/// What the keeper knows, and by which it reaches whom it reckons with.
pub(crate) struct State {
    pub(crate) keeper: Keeper,
    /// Reaches the tasks of channels that no session has opened on. Dropping a sender closes the channel.
    verdicts: HashMap<Slot, oneshot::Sender<Open>>,
}

impl Channels {
    pub(crate) fn new(pools: &[PoolBounds]) -> Channels {
        let keeper = Keeper::new(pools, Box::new(|| fastrand::u64(..)));
        Channels {
            started: Instant::now(),
            state: Mutex::new(State { keeper, verdicts: HashMap::new() }),
            wants_back: pools.iter().map(|_| Arc::default()).collect(),
            due: Notify::new(),
        }
    }

    /// The time as the keeper is told it.
    pub(crate) fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Set as long as a channel of this pool whose session ends is to carry another.
    pub(crate) fn wants_back(&self, pool: PoolIndex) -> Option<Arc<AtomicBool>> {
        self.wants_back.get(pool).cloned()
    }

    /// Where the task of a new channel hears what becomes of it.
    pub(crate) fn enter(&self, slot: Slot) -> oneshot::Receiver<Open> {
        self.lock().enter(slot)
    }

    /// The relay, of version 2, has answered the channel.
    pub(crate) fn answered(&self, slot: Slot, channel_id: i32) {
        self.tell(|state, now| state.keeper.handle_answered(now, slot, channel_id));
        // It may be what the listener waited for.
        self.due.notify_one();
    }

    /// A session has opened on the channel, by its first byte. So many wait to be accepted, this one among them where it has to.
    pub(crate) fn opened(&self, slot: Slot, unaccepted: usize) {
        self.tell(|state, now| {
            state.verdicts.remove(&slot);
            state.keeper.handle_first_byte(now, slot);
            state.keeper.handle_backlog(now, unaccepted);
        });
    }

    /// Keeps a channel that has carried a session for another, where it is of use.
    pub(crate) fn returned(
        &self,
        pool: PoolIndex,
        channel_id: i32,
    ) -> Option<(Slot, oneshot::Receiver<Open>)> {
        self.tell(|state, now| {
            let slot = state.keeper.handle_returned(now, pool, channel_id)?;
            Some((slot, state.enter(slot)))
        })
    }

    /// Has the channels know which of them are to come back.
    pub(crate) fn publish(&self, state: &State) {
        for (pool, wants_back) in self.wants_back.iter().enumerate() {
            wants_back.store(state.keeper.wants_back(pool), Ordering::Relaxed);
        }
    }

    /// Tells the keeper, and wakes the driver where there is something for it to do.
    fn tell<R>(&self, tell: impl FnOnce(&mut State, Time) -> R) -> R {
        let mut state = self.lock();
        // Under the lock: the keeper's time goes forward.
        let now = self.now();
        let due_before = state.keeper.poll_timeout();
        let told = tell(&mut state, now);
        self.publish(&state);
        let due = state.keeper.poll_timeout();
        let is_nearer = due.is_some_and(|due| due_before.is_none_or(|before| due < before));
        if is_nearer || state.keeper.has_output() {
            self.due.notify_one();
        }
        told
    }
}

impl State {
    fn enter(&mut self, slot: Slot) -> oneshot::Receiver<Open> {
        let (sender, verdict) = oneshot::channel();
        self.verdicts.insert(slot, sender);
        verdict
    }

    /// Reaches the channel's task for the last time.
    pub(crate) fn take_verdict(&mut self, slot: Slot) -> Option<oneshot::Sender<Open>> {
        self.verdicts.remove(&slot)
    }
}
