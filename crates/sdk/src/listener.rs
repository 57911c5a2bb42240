//! A listener of sessions, without a port of its own.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};

use tokio::sync::{Mutex, mpsc};
use tracing::debug;

use crate::shared::{Serve, Shared};
use crate::{Builder, Error, Events, Handler, Join, Session, Status, StatusWatch};

/// Accepts clients that come through a relay, as a TCP listener accepts those that come to a port.
///
/// Behind it, a task keeps channels to the relay waiting, replaces those that are used or lost, and reconnects by itself.
/// Dropping the listener leaves the relay's pool; sessions that were accepted run on.
pub struct Listener {
    shared: Arc<Shared>,
    sessions: Mutex<mpsc::Receiver<Session>>,
}

impl Listener {
    /// Sets up a listener at `relay`: `host` or `host:port`, where the port is the one for data channels (8000 unless said).
    pub fn builder(relay: impl Into<String>) -> Builder {
        Builder::named(relay.into())
    }

    /// Sets up a listener at the relay of a join line, and nowhere else: it sends its token only to who has shown that it is that
    /// relay, and speaks nothing but version 2 inside TLS.
    pub fn join(join: Join) -> Builder {
        Builder::joined(join)
    }

    pub(crate) fn new(shared: Arc<Shared>, sessions: mpsc::Receiver<Session>) -> Listener {
        Listener { shared, sessions: Mutex::new(sessions) }
    }

    /// Has what sessions leave to be sent keep what its runtime ends with.
    pub(crate) fn runtime_is_of(&self, owner: Weak<dyn Any + Send + Sync>) {
        // Only whoever made the runtime says so, once.
        let _first = self.shared.runtime_owner.set(owner);
    }

    /// The next client.
    ///
    /// Cancel safe: no session is lost when it is dropped. May be called from many tasks at once; each session goes to one.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`close`](Listener::close) or [`drain`](Listener::drain), once every session that had come
    /// before was accepted; [`Error::Refused`] where the relay will not have this host any more. Other trouble with the relay is
    /// none: it is mended, and [`status`](Listener::status) tells.
    pub async fn accept(&self) -> Result<Session, Error> {
        let session = self.sessions.lock().await.recv().await;
        let session = session.ok_or_else(|| self.why_closed())?;
        self.shared.session_accepted();
        Ok(session)
    }

    /// Serves every client with `handler`, at the same time, none held up by another, until the listener is closed.
    ///
    /// A handler that panics ends its session, with a reset, and no other. One that fails is logged. A handler may go on after its session
    /// has ended; nobody waits for it.
    ///
    /// Dropping the future stops accepting; sessions under way run on.
    ///
    /// # Errors
    /// The relay will not have this host any more, as where its token was revoked. A closed listener is the regular end.
    pub async fn serve(&self, handler: impl Handler) -> Result<(), Error> {
        let handler = Arc::new(handler);
        let aborted = self.shared.aborted.clone();
        let serve: Serve = Arc::new(move |session| {
            let (handler, aborted) = (Arc::clone(&handler), aborted.clone());
            Box::pin(async move {
                let id = session.id();
                let handled = aborted.run_until_cancelled(handler.handle(session)).await;
                if let Some(Err(error)) = handled {
                    debug!(session.id = id.session(), channel.id = id.channel(), %error, "handler failed");
                }
            })
        });
        let _serving = self.shared.serve_with(&serve);
        // Those that had come before, and those that come while nothing serves.
        loop {
            match self.accept().await {
                Ok(session) => drop(tokio::spawn(serve(session))),
                Err(Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn why_closed(&self) -> Error {
        self.shared.failure.get().cloned().map_or(Error::Closed, Error::from)
    }

    /// What happens to sessions, from now on.
    pub fn events(&self) -> Events {
        Events(self.shared.subscribe())
    }

    /// How the listener stands with its relay, now and as it changes.
    pub fn status(&self) -> StatusWatch {
        StatusWatch(self.shared.status.subscribe())
    }

    /// Whether sessions of a service are to be had, as where the server behind it is ill, or well again. While they are not, the relay
    /// gives this host none of that service; those that run go on. At an original relay, which serves one service alone, the pool is
    /// closed all the same.
    ///
    /// # Errors
    /// [`Error::Service`] where this listener does not serve it.
    pub fn set_available(&self, service: &str, is_available: bool) -> Result<(), Error> {
        let unknown = || Error::Service(service.to_owned());
        let mut services = self.shared.link.services().iter();
        let index = services.position(|it| it == service).ok_or_else(unknown)?;
        self.shared.set_available(index, is_available).then_some(()).ok_or_else(unknown)
    }

    /// How many sessions there are, accepted or waiting to be.
    pub fn sessions_open(&self) -> usize {
        *self.shared.sessions.borrow()
    }

    /// Leaves the relay's pool. Sessions run on, and those that had come before are still accepted.
    pub fn close(&self) {
        self.shared.leaving.cancel();
    }

    /// Leaves the relay's pool, and resets every session: those that [`serve`](Listener::serve) runs at once, those that
    /// were accepted by hand when they are dropped.
    pub fn abort(&self) {
        self.close();
        self.shared.aborted.cancel();
    }

    /// Leaves the relay's pool, and resolves when every session has ended. Somebody must go on accepting until
    /// [`accept`](Listener::accept) says that the listener is closed.
    ///
    /// Cancel safe: the pool is left all the same. The future holds nothing of the listener.
    pub fn drain(&self) -> impl Future<Output = ()> + Send + 'static {
        self.close();
        let mut status = self.shared.status.subscribe();
        async move {
            // The sender is gone only with the last session.
            let _closed = status.wait_for(|status| *status == Status::Closed).await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
        // Nobody can accept these any more.
        let sessions = self.sessions.get_mut();
        sessions.close();
        while let Ok(session) = sessions.try_recv() {
            self.shared.session_accepted();
            session.reject("listener_dropped");
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("relay", self.shared.link.hosts())
            .field("status", &*self.shared.status.borrow())
            .finish_non_exhaustive()
    }
}
