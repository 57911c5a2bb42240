//! Places for connections that have not said who they are. The rules are `core`'s; this performs them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relayserver_core::{Admission, Limits, Ticket, Time, Verdict};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::clock::sleep_until;

/// The relay's places, shared by all connections.
pub(crate) struct Places {
    started: Instant,
    admission: Mutex<Admission<Arc<watch::Sender<Standing>>>>,
    /// Notified when the next timeout may have come nearer.
    changed: Notify,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Waiting,
    Admitted,
    Closed,
}

/// A connection's place, or its wait for one. Gives itself back when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    ticket: Ticket,
    standing: watch::Receiver<Standing>,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Places {
        Places {
            started: Instant::now(),
            admission: Mutex::new(Admission::new(limits)),
            changed: Notify::new(),
        }
    }

    /// Enters a connection from `address`.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let (sender, standing) = watch::channel(Standing::Waiting);
        let handle = Arc::new(sender);
        let ticket = self.change(|admission, now| admission.enter(now, address, handle));
        Place { places: Arc::clone(self), ticket, standing }
    }

    /// Tells that an authenticated host is at `address`, until this is dropped.
    pub(crate) fn host_at(self: &Arc<Self>, address: IpAddr) -> Home {
        self.change(|admission, now| admission.host_joined(now, address));
        Home { places: Arc::clone(self), address }
    }

    /// Makes room as time passes. Runs for as long as the relay.
    pub(crate) async fn keep_time(&self) {
        loop {
            let changed = self.changed.notified();
            let due = self.lock().poll_timeout();
            let due = due.and_then(|due| self.started.checked_add(due.since_start()));
            tokio::select! {
                () = changed => {}
                () = sleep_until(due) => self.change(Admission::handle_timeout),
            }
        }
    }

    fn change<R>(
        &self,
        apply: impl FnOnce(&mut Admission<Arc<watch::Sender<Standing>>>, Time) -> R,
    ) -> R {
        let mut admission = self.lock();
        let before = admission.poll_timeout();
        let result = apply(&mut admission, Time::from_start(self.started.elapsed()));
        while let Some(verdict) = admission.poll_output() {
            match verdict {
                Verdict::Admitted(connection) => connection.send_replace(Standing::Admitted),
                Verdict::Closed(connection) => connection.send_replace(Standing::Closed),
            };
        }
        if admission.poll_timeout() != before {
            self.changed.notify_one();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Admission<Arc<watch::Sender<Standing>>>> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves when the handshake may begin; `false` where it never may.
    pub(crate) async fn admitted(&mut self) -> bool {
        let decided = self.standing.wait_for(|standing| *standing != Standing::Waiting).await;
        decided.is_ok_and(|standing| *standing == Standing::Admitted)
    }

    /// Resolves when the place was lost to others.
    pub(crate) async fn lost(&mut self) {
        // Without the sender it is lost as well.
        let _lost = self.standing.wait_for(|standing| *standing == Standing::Closed).await;
    }

    /// The connection is refused for what it said, and will be told so later.
    pub(crate) fn punish(&self) {
        self.places.change(|admission, _now| admission.punish(self.ticket));
    }

    /// The connection has sent its first byte.
    pub(crate) fn spoke(&self) {
        self.places.lock().spoke(self.ticket);
    }
}

/// Where a host is: its address has a share of the places.
pub(crate) struct Home {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.places.change(|admission, _now| admission.host_left(self.address));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.change(|admission, now| admission.leave(now, self.ticket));
    }
}
