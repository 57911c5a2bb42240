//! What the sessions of each host carry at this moment, so that a host whose command channel is stuck while its sessions run is not
//! taken for a silent one.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use relayserver_core::{HostId, SessionId};
use relayserver_splice::Counts;

/// The running sessions' counts, by host.
#[derive(Default)]
pub(crate) struct Traffic(Mutex<HashMap<HostId, HashMap<SessionId, Weak<Counts>>>>);

/// A session whose counts are looked at until this is dropped.
pub(crate) struct Counted {
    traffic: Arc<Traffic>,
    host: HostId,
    session: SessionId,
}

impl Traffic {
    /// Has the counts of a session looked at.
    pub(crate) fn count(
        self: &Arc<Self>,
        host: HostId,
        session: SessionId,
        counts: &Arc<Counts>,
    ) -> Counted {
        self.lock().entry(host).or_default().insert(session, Arc::downgrade(counts));
        Counted { traffic: Arc::clone(self), host, session }
    }

    /// How many bytes have come from `host` on the sessions that run.
    pub(crate) fn from(&self, host: HostId) -> u64 {
        let hosts = self.lock();
        let sessions = hosts.get(&host).into_iter().flat_map(HashMap::values);
        let counts = sessions.filter_map(Weak::upgrade);
        counts.map(|counts| counts.to_client.load(Ordering::Relaxed)).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, HashMap<SessionId, Weak<Counts>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut hosts = self.traffic.lock();
        if let Some(sessions) = hosts.get_mut(&self.host) {
            sessions.remove(&self.session);
            if sessions.is_empty() {
                hosts.remove(&self.host);
            }
        }
    }
}
