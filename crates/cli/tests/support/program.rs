//! A child process: its output is read all the time and kept, so that it never stands still, can be waited for, and is there
//! to read when a test fails. It ends with the test.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How long a test waits for anything that takes milliseconds when it works.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How long a whole run of a real program may take: those that move 100 MB are done in seconds.
pub(crate) const RUN_DEADLINE: Duration = Duration::from_secs(120);

/// How long a program may take to leave at the end of a test before it is told again, and then before it is killed. To be told
/// twice cuts short the time that it gives to others.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(200);
const FAREWELL_DEADLINE: Duration = Duration::from_secs(5);

/// A log line in JSON.
pub(crate) type Event = serde_json::Map<String, serde_json::Value>;

/// A running program. Ended when dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    exit: OwnedFd,
    output: Arc<Output>,
    farewell: Signal,
    ended: Option<ExitStatus>,
}

/// A program that has ended by itself, and all that it said.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

#[derive(Default)]
struct Output {
    said: Mutex<Said>,
    changed: Condvar,
    keep: Option<Keep>,
}

/// Hears each line, and says whether it is kept.
pub(crate) type Keep = Box<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Default)]
struct Said {
    lines: Vec<(Stream, String)>,
    closed: usize,
}

impl Program {
    /// Starts it, with nothing on its standard input.
    pub(crate) fn start(command: Command) -> Program {
        Program::start_with(command, Stdio::null(), Stdio::piped())
    }

    /// Starts it, and has each of its lines heard. For one that says more in its life than memory is for.
    pub(crate) fn start_heard(command: Command, keep: Keep) -> Program {
        let output = Output { keep: Some(keep), ..Output::default() };
        Program::start_for(command, Stdio::null(), Stdio::piped(), output)
    }

    /// Starts it with a pipe to its standard input.
    pub(crate) fn start_with_stdin(command: Command) -> Program {
        Program::start_with(command, Stdio::piped(), Stdio::piped())
    }

    /// Starts it with a standard error that nobody reads any more.
    pub(crate) fn start_unheard(command: Command) -> Program {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        Program::start_with(command, Stdio::null(), writer.into())
    }

    fn start_with(command: Command, stdin: Stdio, stderr: Stdio) -> Program {
        Program::start_for(command, stdin, stderr, Output::default())
    }

    fn start_for(mut command: Command, stdin: Stdio, stderr: Stdio, output: Output) -> Program {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(stderr);
        let name = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let exit = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let output = Arc::new(output);
        output.read(Stream::Stdout, child.stdout.take());
        output.read(Stream::Stderr, child.stderr.take());
        Program { name, child, exit, output, farewell: Signal::TERM, ended: None }
    }

    /// Ends it by this signal instead of SIGTERM when the test is over.
    pub(crate) fn with_farewell(mut self, farewell: Signal) -> Program {
        self.farewell = farewell;
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, where that is a pipe.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{} has ended", self.name);
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for a line on either stream, the first that is `wanted`.
    pub(crate) fn line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let taken = self.collect(what, 1, |line| wanted(line).then(|| line.to_owned()));
        taken.into_iter().next().unwrap()
    }

    /// Waits until there are `count` lines that are `wanted`.
    pub(crate) fn lines_where(&self, what: &str, count: usize, wanted: impl Fn(&str) -> bool) {
        self.collect(what, count, |line| wanted(line).then_some(()));
    }

    /// Waits for the first event with this message.
    pub(crate) fn event(&self, message: &str) -> Event {
        self.events(message, 1).into_iter().next().unwrap()
    }

    /// Waits until there are `count` events with this message, and gives all that there are by then.
    pub(crate) fn events(&self, message: &str, count: usize) -> Vec<Event> {
        self.events_where(message, count, |_| true)
    }

    /// Waits until there are `count` events with this message that are `wanted`.
    pub(crate) fn events_where(
        &self,
        message: &str,
        count: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> Vec<Event> {
        let what = format!("{count} × {message:?}");
        self.collect(&what, count, |line| {
            let event: Event = serde_json::from_str(line).ok()?;
            (event.get("message")? == message && wanted(&event)).then_some(event)
        })
    }

    /// The events with this message up to now.
    pub(crate) fn events_so_far(&self, message: &str) -> Vec<Event> {
        self.events(message, 0)
    }

    /// All lines up to now.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.lock().lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.ended.is_none() && !self.has_exited(Duration::ZERO)
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.end_within(DEADLINE)
    }

    /// Waits for its end, and for the end of its output.
    pub(crate) fn end_within(&mut self, within: Duration) -> ExitStatus {
        if !self.has_exited(within) {
            panic!("{} has not ended within {within:?}:\n{}", self.name, self.said());
        }
        let status = self.child.wait().unwrap();
        self.ended = Some(status);
        self.output.wait(DEADLINE, |said| (said.closed == 2).then_some(()));
        status
    }

    /// What it said so far, for the message of a failure.
    pub(crate) fn said(&self) -> String {
        const LINES_MAX: usize = 60;
        let lines = self.lines();
        let skipped = lines.len().saturating_sub(LINES_MAX);
        let shown = lines[skipped..].join("\n");
        if skipped > 0 { format!("({skipped} lines before)\n{shown}") } else { shown }
    }

    fn stream(&self, stream: Stream) -> String {
        let said = self.output.lock();
        let of_stream = said.lines.iter().filter(|(from, _)| *from == stream);
        of_stream.map(|(_, line)| format!("{line}\n")).collect()
    }

    fn collect<T>(&self, what: &str, count: usize, take: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let (mut taken, mut seen, mut over) = (Vec::new(), 0, false);
        self.output.wait(DEADLINE, |said| {
            taken.extend(said.lines[seen..].iter().filter_map(|(_, line)| take(line)));
            seen = said.lines.len();
            over = said.closed == 2;
            (taken.len() >= count || over).then_some(())
        });
        if taken.len() < count {
            let why = if over { "ended" } else { "stands still" };
            panic!("waited for {what}, but {} {why}:\n{}", self.name, self.said());
        }
        taken
    }

    fn has_exited(&self, within: Duration) -> bool {
        self.ended.is_some() || readable(&self.exit, within)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let pid = Pid::from_child(&self.child);
        for (signal, patience) in [
            (self.farewell, FAREWELL_PATIENCE),
            (self.farewell, FAREWELL_DEADLINE),
            (Signal::KILL, FAREWELL_DEADLINE),
        ] {
            let _sent = kill_process(pid, signal);
            if self.has_exited(patience) {
                break;
            }
        }
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            let _said = writeln!(io::stderr(), "--- {} said:\n{}\n---", self.name, self.said());
        }
    }
}

impl Output {
    /// Reads a stream to its end. One that is not there has ended already.
    fn read(self: &Arc<Output>, stream: Stream, from: Option<impl Read + Send + 'static>) {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            if let Some(from) = from {
                output.read_lines(stream, from);
            }
            output.lock().closed += 1;
            output.changed.notify_all();
        });
    }

    fn read_lines(&self, stream: Stream, from: impl Read) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            if self.keep.as_ref().is_none_or(|keep| keep(&text)) {
                self.lock().lines.push((stream, text));
            }
            self.changed.notify_all();
            line.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what was said, and again whenever there is more, until `done` or `within` is over.
    fn wait<T>(&self, within: Duration, mut done: impl FnMut(&Said) -> Option<T>) -> Option<T> {
        let until = Instant::now() + within;
        let mut said = self.lock();
        loop {
            if let Some(result) = done(&said) {
                return Some(result);
            }
            let left = until.checked_duration_since(Instant::now())?;
            let woken = self.changed.wait_timeout(said, left);
            said = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: Command) -> Ended {
    run_within(command, RUN_DEADLINE)
}

/// Runs a program to its end, which must come within this time.
pub(crate) fn run_within(command: Command, within: Duration) -> Ended {
    let mut program = Program::start(command);
    let status = program.end_within(within);
    Ended { status, stdout: program.stream(Stream::Stdout), stderr: program.stream(Stream::Stderr) }
}

/// Runs a program that must succeed, and gives its standard output.
pub(crate) fn output_of(command: Command) -> String {
    let name = format!("{command:?}");
    let ended = run(command);
    assert!(ended.status.success(), "{name}: {}\n{}{}", ended.status, ended.stdout, ended.stderr);
    ended.stdout
}

/// A command from words.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Waits until a descriptor can be read: for that of a process, until it has ended.
pub(crate) fn readable(descriptor: &OwnedFd, within: Duration) -> bool {
    let until = Instant::now() + within;
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap();
        match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot wait for a process: {error}"),
        }
    }
}

/// Where a program is, also where only administrators look for it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    let mut versions: Vec<PathBuf> = Path::new("/usr/lib/postgresql")
        .read_dir()
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Whether these programs are there. Where one is not, says that the test is skipped, or fails where all are required.
pub(crate) fn have(programs: &[&str]) -> bool {
    let lacking: Vec<&str> =
        programs.iter().copied().filter(|program| find(program).is_none()).collect();
    lacking.is_empty() || skip(&format!("not installed: {}", lacking.join(", ")))
}

/// Says that a test is skipped, and why, or fails where nothing may be skipped. Gives `false`.
pub(crate) fn skip(why: &str) -> bool {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    if std::env::var("RELAYSERVER_REQUIRE_PROGRAMS").is_ok_and(|value| value == "1") {
        panic!("{test}: {why}");
    }
    // Not by `eprintln`, which the test runner would swallow.
    let _said = writeln!(io::stderr(), "skipped {test}: {why}");
    // `scripts/test` reads this one, as a test runner keeps to itself what a test that passed has said.
    if let Some(list) = std::env::var_os("RELAYSERVER_SKIPPED_FILE") {
        let mut list = OpenOptions::new().append(true).create(true).open(list).unwrap();
        list.write_all(format!("{test}: {why}\n").as_bytes()).unwrap();
    }
    false
}
