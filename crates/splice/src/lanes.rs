//! Threads for busy sessions, each with a runtime of its own.
//!
//! A runtime of many threads serves who comes next with whichever thread is free. That is right for what comes and goes; a session of
//! many small messages pays for it with each of them: its sockets' readiness is found by one thread, its bytes are moved by another. On a
//! lane one thread does both, always the same. Bulk is best shared out, unless lanes stay on a core each.
//!
//! Opened by a process that wants them, as the command does; without, sessions stay where they are. A library leaves the threads of a
//! program to the program.

use std::io;
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::splice::{Busy, Until};

static LANES: OnceLock<Opened> = OnceLock::new();

/// What everybody in this process may use.
struct Opened {
    handles: Vec<Handle>,
    takes: Busy,
}

/// Keeps the lanes open. When it is dropped, so is all that runs on them.
#[derive(Debug)]
pub struct Lanes {
    handles: Vec<Handle>,
    /// Each thread ends when its sender is dropped.
    running: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Opens `count` lanes for this process, for sessions that are busy as `takes` says. [`quietest`] gives those of the first call alone, also
/// where that opened none: whoever opens some does it first.
///
/// # Errors
/// What the system says: it has no thread or no descriptor to give.
pub fn open(count: usize, takes: Busy) -> io::Result<Lanes> {
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
    drop(LANES.set(Opened { handles: lanes.handles.clone(), takes }));
    Ok(lanes)
}

/// The lane with the least on it. `None` where none were opened. After [`Lanes`] is dropped, what is spawned on one is dropped too.
pub fn quietest() -> Option<&'static Handle> {
    LANES.get()?.handles.iter().min_by_key(|lane| lane.metrics().num_alive_tasks())
}

/// Until when a session is served where it began, before it goes to the [quietest]: to its end, where there are no lanes.
pub fn until() -> Until {
    match LANES.get() {
        Some(Opened { handles, takes }) if !handles.is_empty() => Until::Busy(*takes),
        _ => Until::End,
    }
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
