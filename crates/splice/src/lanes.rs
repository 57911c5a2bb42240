//! Threads for busy sessions, each with a runtime of its own.
//!
//! A runtime of many threads serves who comes next with whichever thread is free. That is right for what comes and goes, and for bulk,
//! which is best shared out; a session of many small messages pays for it with each of them: its sockets' readiness is found by one
//! thread, its bytes are moved by another. On a lane one thread does both, always the same.
//!
//! Opened by a process that wants them, as the command does; without, sessions stay where they are. A library leaves the threads of a
//! program to the program.

use std::io;
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

static LANES: OnceLock<Vec<Handle>> = OnceLock::new();

/// Keeps the lanes open. When it is dropped, so is all that runs on them.
#[derive(Debug)]
pub struct Lanes {
    handles: Vec<Handle>,
    /// Each thread ends when its sender is dropped.
    running: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Opens `count` lanes for this process. [`quietest`] gives those of the first call alone, also where that opened none: whoever opens
/// some does it first.
///
/// # Errors
/// What the system says: it has no thread or no descriptor to give.
pub fn open(count: usize) -> io::Result<Lanes> {
    let mut lanes = Lanes { handles: Vec::new(), running: Vec::new() };
    for number in 0..count {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        lanes.handles.push(runtime.handle().clone());
        let (close, closed) = oneshot::channel::<()>();
        // That the sender is gone is what ends it.
        let run = move || drop(runtime.block_on(closed));
        let thread = thread::Builder::new().name(format!("lane-{number}")).spawn(run)?;
        lanes.running.push((close, thread));
    }
    // Those of a second call end with what this returns.
    drop(LANES.set(lanes.handles.clone()));
    Ok(lanes)
}

/// The lane with the least on it. `None` where none were opened. After [`Lanes`] is dropped, what is spawned on one is dropped too.
pub fn quietest() -> Option<&'static Handle> {
    LANES.get()?.iter().min_by_key(|lane| lane.metrics().num_alive_tasks())
}

/// Whether there are any to be had from [`quietest`].
pub fn are_open() -> bool {
    LANES.get().is_some_and(|lanes| !lanes.is_empty())
}

impl Lanes {
    /// The runtime of each. What is spawned there runs on its thread.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for (close, thread) in self.running.drain(..) {
            drop(close);
            // One that has panicked is over, too.
            drop(thread.join());
        }
    }
}
