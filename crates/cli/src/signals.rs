//! When to leave: the first Ctrl-C or SIGTERM asks for a drain, the second ends at once.

use std::future::Future;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::exit::Exit;

/// How long an abort may take: nothing but drops is left to do.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs `serving` to its end. On the first signal `drain` is called and `serving` gets to finish; on the second `abort`, and
/// it gets a moment. Where `until_stdin_closes`, the end of standard input counts as the first signal.
pub(crate) async fn drain_on_signal(
    serving: impl Future<Output = Exit>,
    drain: impl FnOnce(),
    abort: impl FnOnce(),
    until_stdin_closes: bool,
) -> Exit {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return crate::exit::failure(&format!("cannot listen for signals: {error}")),
    };
    tokio::pin!(serving);
    tokio::select! {
        exit = &mut serving => return exit,
        _number = signals.next() => {}
        () = stdin_closed(until_stdin_closes) => {}
    }
    drain();
    tokio::select! {
        exit = &mut serving => exit,
        number = signals.next() => {
            abort();
            let _ended = timeout(ABORT_TIMEOUT, serving).await;
            Exit::Signal(number)
        }
    }
}

/// Runs `starting` to its end, or gives `None` at the first signal: there is nothing to drain yet.
pub(crate) async fn or_leave<T>(
    starting: impl Future<Output = T>,
    until_stdin_closes: bool,
) -> Option<T> {
    let mut signals = Signals::new().ok()?;
    tokio::select! {
        started = starting => Some(started),
        _number = signals.next() => None,
        () = stdin_closed(until_stdin_closes) => None,
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
    pub(crate) fn new() -> std::io::Result<Signals> {
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
    pub(crate) fn new() -> std::io::Result<Signals> {
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
