//! What sessions carry at this moment, by host: to be counted while they run, and so that a host whose command channel is stuck while
//! its sessions run is not taken for a silent one. The data path knows nothing of it: it has counts of its own, which are looked at.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relayserver_core::HostId;
use relayserver_splice::Counts;

/// The counts of the sessions that run, and of those that have ended.
#[derive(Default)]
pub(crate) struct Traffic(Mutex<Books>);

#[derive(Default)]
struct Books {
    hosts: BTreeMap<HostId, OfHost>,
    ended: Carried,
}

struct OfHost {
    whose: Arc<Whose>,
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

/// Whose traffic it is, and where that is kept. One for all sessions of a host: each keeps a pointer to it instead of both.
struct Whose {
    traffic: Arc<Traffic>,
    host: HostId,
}

/// A host whose sessions are watched until this is dropped.
pub(crate) struct Watched(Arc<Whose>);

/// A session whose counts are looked at until this is dropped.
pub(crate) struct Counted {
    whose: Arc<Whose>,
    pub(crate) counts: Arc<Counts>,
}

impl Traffic {
    /// Has a session of `host` counted, whose counts are looked at. `is_held_back`: by a rate.
    pub(crate) fn count(self: &Arc<Self>, host: HostId, is_held_back: bool) -> Counted {
        let counts = Arc::new(Counts::default());
        let mut books = self.lock();
        let of_host = books.of(host, self);
        let whose = Arc::clone(&of_host.whose);
        let session = Session { counts: Arc::clone(&counts), is_held_back };
        of_host.sessions.insert(place(&counts), session);
        Counted { whose, counts }
    }

    /// Has what comes from `host` counted on from one session to the next.
    pub(crate) fn watch(self: &Arc<Self>, host: HostId) -> Watched {
        let mut books = self.lock();
        let of_host = books.of(host, self);
        of_host.watchers += 1;
        Watched(Arc::clone(&of_host.whose))
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

/// What no other session has as long as this one is there.
fn place(counts: &Arc<Counts>) -> usize {
    Arc::as_ptr(counts).addr()
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Whose { traffic, host: id } = &*self.whose;
        let mut books = traffic.lock();
        let Some(host) = books.hosts.get_mut(id) else {
            return;
        };
        let Some(session) = host.sessions.remove(&place(&self.counts)) else {
            return;
        };
        host.ended_arrivals += session.arrivals();
        books.forget_unused(*id);
        books.ended = books.ended + session.carried();
    }
}

impl Watched {
    /// How often something came from the host for its clients: it grows only while the host sends, and never falls.
    pub(crate) fn arrivals(&self) -> u64 {
        let Whose { traffic, host } = &*self.0;
        traffic.lock().hosts.get(host).map_or(0, |host| {
            host.ended_arrivals + host.sessions.values().map(Session::arrivals).sum::<u64>()
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Whose { traffic, host: id } = &*self.0;
        let mut books = traffic.lock();
        if let Some(host) = books.hosts.get_mut(id) {
            host.watchers -= 1;
        }
        books.forget_unused(*id);
    }
}

impl Books {
    /// What is kept of `host`, from now on if it was not.
    fn of(&mut self, host: HostId, traffic: &Arc<Traffic>) -> &mut OfHost {
        self.hosts.entry(host).or_insert_with(|| OfHost {
            // A cycle, which lasts until the host is forgotten, with its last session and watcher.
            whose: Arc::new(Whose { traffic: Arc::clone(traffic), host }),
            sessions: BTreeMap::new(),
            ended_arrivals: 0,
            watchers: 0,
        })
    }

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
