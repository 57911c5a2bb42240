//! The listener for programs without async: sessions that [`Read`] and [`Write`].
//!
//! ```no_run
//! use std::io::Write;
//!
//! # fn example() -> Result<(), relayserver::Error> {
//! let listener = relayserver::blocking::Listener::listen(
//!     relayserver::Listener::builder("relay.example.com"),
//! )?;
//! while let Ok(mut session) = listener.accept() {
//!     std::thread::spawn(move || session.write_all(b"hello\n"));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A thread of its own runs the connections. Nothing here may be called from within an async runtime: it would block it, and
//! panics instead.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use crate::{Builder, Error, SessionId, Status};

/// Accepts clients that come through a relay. See [`crate::Listener`].
#[derive(Debug)]
pub struct Listener {
    inner: crate::Listener,
    background: Arc<Background>,
}

/// A client. See [`crate::Session`]; [`shutdown`](Session::shutdown) is half-close.
#[derive(Debug)]
pub struct Session {
    inner: crate::Session,
    background: Arc<Background>,
}

/// The runtime that the listener, its sessions, and what these leave to be sent share; the last of them ends it.
#[derive(Debug)]
struct Background(Option<Runtime>);

impl Listener {
    /// Dials the relay, and returns once it has accepted this host.
    ///
    /// # Errors
    /// Those of [`Builder::listen`], or no thread could be started.
    pub fn listen(builder: Builder) -> Result<Listener, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("relayserver")
            .enable_all()
            .build()?;
        let background = Arc::new(Background(Some(runtime)));
        let inner = background.block_on(builder.listen())?;
        let owner = Arc::downgrade(&background);
        inner.runtime_is_of(owner);
        Ok(Listener { inner, background })
    }

    /// The next client. May be called from many threads at once; each session goes to one.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`close`](Listener::close), once every session that had come before was accepted.
    pub fn accept(&self) -> Result<Session, Error> {
        let inner = self.background.block_on(self.inner.accept())?;
        Ok(Session { inner, background: Arc::clone(&self.background) })
    }

    /// How the listener stands with its relay.
    pub fn status(&self) -> Status {
        self.inner.status().get()
    }

    /// Leaves the relay's pool. Sessions run on.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Leaves the relay's pool, and returns when every session has ended. Another thread must go on accepting until
    /// [`accept`](Listener::accept) says that the listener is closed.
    pub fn drain(&self) {
        self.background.block_on(self.inner.drain());
    }
}

impl Session {
    /// The session's name.
    pub fn id(&self) -> SessionId {
        self.inner.id()
    }

    /// The service that the client asked for.
    pub fn service(&self) -> &str {
        self.inner.service()
    }

    /// Where the client is, where the relay says so.
    pub fn client_addr(&self) -> Option<SocketAddr> {
        self.inner.client_addr()
    }

    /// Half-close: the client reads the end, and what it still sends can be read.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.background.block_on(self.inner.shutdown())
    }

    /// Refuses the client: it sees its connection reset.
    pub fn reject(self, why: impl Into<String>) {
        self.inner.reject(why);
    }

    /// Aborts: the client sees its connection reset.
    pub fn reset(self) {
        self.inner.reset();
    }
}

impl Read for Session {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.background.block_on(self.inner.read(buf))
    }
}

impl Write for Session {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.background.block_on(self.inner.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.background.block_on(self.inner.flush())
    }
}

impl Background {
    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.0 {
            Some(runtime) => runtime.block_on(future),
            None => unreachable!("the runtime is taken only when this is dropped"),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, and panics where waiting is not allowed.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
