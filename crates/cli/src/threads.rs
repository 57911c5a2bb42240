//! The threads of the process: those of the runtime, the lanes beside them, and the cores that they may run on.

use std::future::Future;
use std::io;
use std::thread::available_parallelism;
use std::time::Duration;

use relayserver_splice::Busy;
use relayserver_splice::lanes::{self, Lanes};
use tokio::runtime::{Builder, Runtime};

use crate::exit::Exit;

/// How long what still runs at the end may take to be dropped. It is done at once, or it is stuck.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// What a subcommand wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Threads that go where they like, and no lanes.
    NoLanes,
    /// A lane for each core.
    Lanes,
    /// A lane for each core, that stays there.
    PinnedLanes,
}

/// The threads, running.
pub(crate) struct Threads {
    runtime: Runtime,
    lanes: Lanes,
}

impl Threads {
    /// Starts them.
    pub(crate) fn start(wants: Wants) -> Result<Threads, String> {
        let start = || {
            let runtime = Builder::new_multi_thread().enable_all().build()?;
            Ok(Threads { runtime, lanes: open_lanes(wants)? })
        };
        let threads = start().map_err(|error: io::Error| format!("cannot start: {error}"))?;
        if wants == Wants::PinnedLanes {
            pinned::pin(&threads).map_err(|error| format!("cannot pin threads: {error}"))?;
        }
        Ok(threads)
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Runs it on the runtime's own threads. What this thread waits for itself has to wake it each time, and there is one more to take
    /// turns.
    pub(crate) fn run(&self, what: impl Future<Output = Exit> + Send + 'static) -> Exit {
        match self.runtime.block_on(self.runtime.spawn(what)) {
            Ok(exit) => exit,
            // It has said why where it panicked.
            Err(_) => Exit::Failure,
        }
    }

    /// Ends them. What tasks hold is dropped, and programs that they run end with it. A blocking read of standard input cannot be ended,
    /// and does not hold up the exit for longer.
    pub(crate) fn end(self) {
        self.runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        drop(self.lanes);
    }
}

fn open_lanes(wants: Wants) -> io::Result<Lanes> {
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    let (count, takes) = match wants {
        Wants::NoLanes => (0, Busy::Chatty),
        Wants::Lanes => (cores, Busy::Chatty),
        Wants::PinnedLanes => (cores, Busy::Any),
    };
    // On a single core there is nothing to choose.
    lanes::open(if cores > 1 { count } else { 0 }, takes)
}

#[cfg(target_os = "linux")]
mod pinned {
    use std::io;
    use std::thread::available_parallelism;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::Threads;

    /// Keeps each lane on a core of its own. What comes and goes is served by whichever thread is woken, on whichever core.
    pub(super) fn pin(threads: &Threads) -> io::Result<()> {
        let all = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        check(cores.len(), available_parallelism()?.get())?;
        for (core, lane) in cores.into_iter().zip(threads.lanes.handles()) {
            let mut set = CpuSet::new();
            set.set(core);
            let pin = async move { sched_setaffinity(None, &set) };
            threads.runtime.block_on(lane.spawn(pin)).map_err(io::Error::other)??;
        }
        Ok(())
    }

    /// Whether this process may use all of its `cores`, and not only the time of `parallelism` of them, as in a container with a limit.
    /// All such would be pinned to the same few.
    pub(super) fn check(cores: usize, parallelism: usize) -> io::Result<()> {
        if cores == parallelism {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "there are {cores} cores to run on, but the time of {parallelism}: give this process cores of its own (taskset, cpuset)"
        )))
    }
}

#[cfg(not(target_os = "linux"))]
mod pinned {
    use std::io;

    use super::Threads;

    pub(super) fn pin(_: &Threads) -> io::Result<()> {
        Err(io::Error::other("this system has no call for it"))
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::pinned::check;

    #[test]
    fn who_has_but_the_time_of_some_cores_is_not_pinned() {
        check(2, 2).unwrap();
        let error = check(64, 2).unwrap_err().to_string();
        assert!(error.contains("64 cores to run on, but the time of 2"), "{error}");
    }
}
