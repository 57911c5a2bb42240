//! The threads of the process: those of the runtime, the lanes beside them, and the cores that they may run on.

use std::future::Future;
use std::io;
use std::thread::available_parallelism;
use std::time::Duration;

use relayserver_splice::lanes::{self, Lanes};
use tokio::runtime::{Builder, Runtime};

use crate::exit::Exit;

/// How long what still runs at the end may take to be dropped. It is done at once, or it is stuck.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// What a subcommand wants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wants {
    /// A lane for each core.
    pub(crate) lanes: bool,
    /// Each thread to stay on a core.
    pub(crate) pinned: bool,
}

/// The threads, running.
pub(crate) struct Threads {
    runtime: Runtime,
    lanes: Lanes,
}

impl Threads {
    /// Starts them.
    pub(crate) fn start(wants: Wants) -> Result<Threads, String> {
        if wants.pinned {
            return pinned::start(wants).map_err(|error| format!("cannot pin threads: {error}"));
        }
        let start = || {
            let runtime = Builder::new_multi_thread().enable_all().build()?;
            Ok(Threads { runtime, lanes: open_lanes(wants)? })
        };
        start().map_err(|error: io::Error| format!("cannot start: {error}"))
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
    // On a single core there is nothing to choose.
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    lanes::open(if wants.lanes && cores > 1 { cores } else { 0 })
}

#[cfg(target_os = "linux")]
mod pinned {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread::available_parallelism;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use tokio::runtime::{Builder, Runtime};

    use super::{Threads, Wants, open_lanes};

    /// A worker and a lane for each core, which stay there.
    pub(super) fn start(wants: Wants) -> io::Result<Threads> {
        let all = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        check(cores.len(), available_parallelism()?.get())?;
        let runtime = runtime(&cores, all)?;
        let lanes = open_lanes(wants)?;
        for (core, lane) in cores.iter().map(|core| just(*core)).zip(lanes.handles()) {
            let pin = async move { sched_setaffinity(None, &core) };
            runtime.block_on(lane.spawn(pin)).map_err(io::Error::other)??;
        }
        Ok(Threads { runtime, lanes })
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

    fn runtime(cores: &[usize], all: CpuSet) -> io::Result<Runtime> {
        let (report, reports) = mpsc::channel();
        let (started, own) = (AtomicUsize::new(0), cores.to_vec());
        let pin = move || {
            // The workers are the first. Threads for calls that block are started by them, and would stay with them.
            let number = started.fetch_add(1, Ordering::Relaxed);
            let set = own.get(number).map_or(all, |core| just(*core));
            // Nobody waits for word of those: they get on with a core, too.
            let _heard = report.send(sched_setaffinity(None, &set));
        };
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .worker_threads(cores.len())
            .on_thread_start(pin)
            .build()?;
        for pinned in reports.iter().take(cores.len()) {
            pinned?;
        }
        Ok(runtime)
    }

    fn just(core: usize) -> CpuSet {
        let mut set = CpuSet::new();
        set.set(core);
        set
    }
}

#[cfg(not(target_os = "linux"))]
mod pinned {
    use std::io;

    use super::{Threads, Wants};

    pub(super) fn start(_: Wants) -> io::Result<Threads> {
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
