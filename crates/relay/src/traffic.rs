//! What sessions carry at this moment, by host: to be counted while they run, and so that a host whose command channel is stuck while
//! its sessions run is not taken for a silent one. The data path knows nothing of it: it has counts of its own, which are looked at.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relayserver_core::HostId;
use relayserver_splice::Counts;

/// The counts of the sessions that run, and of those that have ended.
#[derive(Default)]
pub(crate) struct Traffic(Mutex<Books>);

#[derive(Default)]
struct Books {
    hosts: HashMap<HostId, OfHost>,
    ended: Carried,
}

#[derive(Default)]
struct OfHost {
    /// By where their counts are.
    sessions: BTreeMap<usize, Session>,
    /// The arrivals of those that ended while others ran, or somebody watched.
    ended_arrivals: u64,
    watchers: usize,
}

struct Session {
    counts: Arc<Counts>,
    /// What is held back here may come long after its host has sent it.
    is_held_back: bool,
}

/// How many bytes were handed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) to_host: u64,
    pub(crate) to_client: u64,
}

/// A host whose sessions are watched until this is dropped.
pub(crate) struct Watched {
    traffic: Arc<Traffic>,
    host: HostId,
}

/// A session whose counts are looked at until this is dropped.
pub(crate) struct Counted {
    traffic: Arc<Traffic>,
    host: HostId,
    pub(crate) counts: Arc<Counts>,
}

impl Traffic {
    /// Has a session of `host` counted, whose counts are looked at. `is_held_back`: by a rate.
    pub(crate) fn count(self: &Arc<Self>, host: HostId, is_held_back: bool) -> Counted {
        let counts = Arc::new(Counts::default());
        let counted = Counted { traffic: Arc::clone(self), host, counts: Arc::clone(&counts) };
        let mut books = self.lock();
        let sessions = &mut books.hosts.entry(host).or_default().sessions;
        sessions.insert(counted.place(), Session { counts, is_held_back });
        counted
    }

    /// Has what comes from `host` counted on from one session to the next.
    pub(crate) fn watch(self: &Arc<Self>, host: HostId) -> Watched {
        self.lock().hosts.entry(host).or_default().watchers += 1;
        Watched { traffic: Arc::clone(self), host }
    }

    /// How many bytes were handed on since the relay started, those of the sessions that run among them. Costs time in proportion to
    /// the sessions.
    pub(crate) fn carried(&self) -> Carried {
        let books = self.lock();
        let running = books.hosts.values().flat_map(|host| host.sessions.values());
        running.fold(books.ended, |sum, session| sum + session.carried())
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// What no other session has as long as this one is there.
    fn place(&self) -> usize {
        Arc::as_ptr(&self.counts).addr()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut books = self.traffic.lock();
        let Some(host) = books.hosts.get_mut(&self.host) else {
            return;
        };
        let Some(session) = host.sessions.remove(&self.place()) else {
            return;
        };
        host.ended_arrivals += session.arrivals();
        books.forget_unused(self.host);
        books.ended = books.ended + session.carried();
    }
}

impl Watched {
    /// How often something came from the host for its clients: it grows only while the host sends, and never falls.
    pub(crate) fn arrivals(&self) -> u64 {
        let books = self.traffic.lock();
        books.hosts.get(&self.host).map_or(0, |host| {
            host.ended_arrivals + host.sessions.values().map(Session::arrivals).sum::<u64>()
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut books = self.traffic.lock();
        if let Some(host) = books.hosts.get_mut(&self.host) {
            host.watchers -= 1;
        }
        books.forget_unused(self.host);
    }
}

impl Books {
    fn forget_unused(&mut self, host: HostId) {
        let is_unused = |host: &OfHost| host.sessions.is_empty() && host.watchers == 0;
        if self.hosts.get(&host).is_some_and(is_unused) {
            self.hosts.remove(&host);
        }
    }
}

impl std::ops::Add for Carried {
    type Output = Carried;

    fn add(self, more: Carried) -> Carried {
        Carried { to_host: self.to_host + more.to_host, to_client: self.to_client + more.to_client }
    }
}

impl Session {
    fn carried(&self) -> Carried {
        Carried {
            to_host: self.counts.to_host.load(Ordering::Relaxed),
            to_client: self.counts.to_client.load(Ordering::Relaxed),
        }
    }

    fn arrivals(&self) -> u64 {
        if self.is_held_back { 0 } else { self.counts.arrivals.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_carried_stays_counted_when_its_session_ends() {
        let traffic = Arc::new(Traffic::default());
        let host = HostId::Process(1);
        let watched = traffic.watch(host);
        let [one, other, slow] = [1, 2, 3].map(|session| {
            let counted = traffic.count(host, session == 3);
            counted.counts.to_host.store(10 * session, Ordering::Relaxed);
            counted.counts.to_client.store(session, Ordering::Relaxed);
            counted.counts.arrivals.store(1, Ordering::Relaxed);
            counted
        });
        let all = Carried { to_host: 60, to_client: 6 };
        assert_eq!((traffic.carried(), watched.arrivals()), (all, 2));
        drop(other);
        assert_eq!((traffic.carried(), watched.arrivals()), (all, 2));
        drop((one, slow));
        assert_eq!((traffic.carried(), watched.arrivals()), (all, 2));
        let next = traffic.count(host, false);
        next.counts.arrivals.store(1, Ordering::Relaxed);
        assert_eq!(watched.arrivals(), 3, "one session after the other");
        drop(watched);
        assert_eq!(traffic.lock().hosts.len(), 1, "it has a session");
        drop(next);
        assert_eq!(traffic.lock().hosts.len(), 0, "nothing is kept of a host that is gone");
    }
}
