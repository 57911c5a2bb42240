//! Places for connections that have not said who they are. The rules are `core`'s; this performs them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relayserver_core::{Admission, Limits, Ticket};
use tokio::sync::oneshot;

/// The relay's places, shared by all connections.
pub(crate) struct Places(Mutex<Admission<oneshot::Sender<Lost>>>);

/// Nothing is ever sent: dropping the sender says that the place is lost.
enum Lost {}

/// A connection's place. Gives itself back when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    ticket: Ticket,
    lost: oneshot::Receiver<Lost>,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Places {
        Places(Mutex::new(Admission::new(limits)))
    }

    /// A place for a connection from `address`. Another connection may lose its own for it.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let (handle, lost) = oneshot::channel();
        let (ticket, evicted) = self.lock().enter(address, handle);
        drop(evicted);
        Place { places: Arc::clone(self), ticket, lost }
    }

    fn lock(&self) -> MutexGuard<'_, Admission<oneshot::Sender<Lost>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves when the place was lost to a newcomer.
    pub(crate) async fn lost(&mut self) {
        match (&mut self.lost).await {
            Ok(never) => match never {},
            Err(_dropped) => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().leave(self.ticket);
    }
}
