//! When to leave: the first Ctrl-C or SIGTERM asks for a drain, the second ends at once.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::exit::Exit;

/// How long an abort may take: nothing but drops is left to do.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Hears when the process is asked to leave. Made once, before there is anything to leave, so that no signal is missed.
pub(crate) struct Leaving {
    signals: Signals,
    /// Whether the end of standard input counts as the first signal.
    until_stdin_closes: bool,
}

impl Leaving {
    pub(crate) fn new(until_stdin_closes: bool) -> io::Result<Leaving> {
        Ok(Leaving { signals: Signals::new()?, until_stdin_closes })
    }

    /// Resolves when the process is asked to leave.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _number = self.signals.next() => {}
            () = stdin_closed(self.until_stdin_closes) => {}
        }
    }

    /// Runs `serving` to its end. On the first signal `drain` is called and `serving` gets to finish; on the second `abort`,
    /// and it gets a moment.
    pub(crate) async fn drain_on_signal(
        &mut self,
        serving: impl Future<Output = Exit>,
        drain: impl FnOnce(),
        abort: impl FnOnce(),
    ) -> Exit {
        tokio::pin!(serving);
        tokio::select! {
            biased;
            () = self.asked() => {}
            exit = &mut serving => return exit,
        }
        drain();
        tokio::select! {
            biased;
            number = self.signals.next() => {
                abort();
                let _ended = timeout(ABORT_TIMEOUT, serving).await;
                Exit::Signal(number)
            }
            exit = &mut serving => exit,
        }
    }
}

async fn stdin_closed(watched: bool) {
    if !watched {
        return std::future::pending().await;
    }
    let mut discarded = [0; 256];
    while tokio::io::stdin().read(&mut discarded).await.is_ok_and(|len| len > 0) {}
}

#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The number of the next signal.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> io::Result<Signals> {
        Ok(Signals)
    }

    /// The number of the next signal.
    pub(crate) async fn next(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        2
    }
}
