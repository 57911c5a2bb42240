//! A program for each session.

use std::ffi::{OsStr, OsString};
use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use relayserver_splice::{Counts, Failure, Leg, Path, Side, Splice};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::leg_name;
use crate::{Handler, Session};

/// A longer line on standard error is logged in pieces.
const LOG_LINE_MAX: u64 = 1024;

/// How long what the client still sends is taken off after the program has ended, so that the client reads the end of the
/// output and not a reset.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a client may take nothing of what a program that has ended left in its pipe, or its pipe stay open.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a program for each session: its standard input and output are the session, its standard error goes to the log.
///
/// The client's end is the end of the program's input. The session ends with the program, and the program with the session: it
/// is killed when the client is gone, on Unix with everything that it started.
#[derive(Clone, Debug)]
pub struct Exec {
    program: OsString,
    arguments: Vec<OsString>,
}

impl Exec {
    /// Runs `program`, which is looked up in `PATH` where it holds no slash.
    pub fn new(program: impl AsRef<OsStr>) -> Exec {
        Exec { program: program.as_ref().to_owned(), arguments: Vec::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Exec {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    fn spawn(&self) -> io::Result<(Program, ChildStderr)> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("no pipes to the program"));
        };
        #[cfg(unix)]
        let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        let program = Program {
            child,
            #[cfg(unix)]
            group,
            stdio: Stdinout { stdin: Some(stdin), stdout },
        };
        Ok((program, stderr))
    }
}

impl Handler for Exec {
    async fn handle(&self, session: Session) -> io::Result<()> {
        let id = session.id();
        // A program may do what it does before it reads or writes.
        if !session.may_be_served() {
            session.reject("relay_silent");
            return Ok(());
        }
        let (program, stderr) = match self.spawn() {
            Ok(spawned) => spawned,
            Err(error) => {
                warn!(session.id = id.session(), channel.id = id.channel(), program = ?self.program, %error, "program cannot be started");
                session.reject("program_not_started");
                return Ok(());
            }
        };
        let mut logging = JoinSet::new();
        logging.spawn(log_lines(stderr, id));
        let ended = program.serve(session).await;
        // What has left the program's group may hold its standard error open for ever.
        let _logged = timeout(LINGER_TIMEOUT, logging.join_next()).await;
        let status = ended?;
        debug!(session.id = id.session(), channel.id = id.channel(), program = ?self.program, %status, "program ended");
        Ok(())
    }
}

/// A running program and the pipes to it. On Unix its process group is killed when this is dropped.
struct Program {
    child: Child,
    /// Until it was killed. A program that has ended no longer knows its id, but what it started may run on.
    #[cfg(unix)]
    group: Option<rustix::process::Pid>,
    stdio: Stdinout,
}

impl Program {
    /// Hands bytes to and fro until the program or the client has ended.
    async fn serve(mut self, mut session: Session) -> io::Result<ExitStatus> {
        session.accept().await?;
        let mut splice = Splice::new(Path::Auto);
        let counts = Counts::default();
        // The book that a relay keeps of last bytes has no place here.
        let mut on_eof = |_| {};
        let both = {
            let mut lent = None;
            let (client, host) = (session.leg(&mut lent), Leg::Other(&mut self.stdio));
            tokio::select! {
                spliced = splice.run(client, host, &counts, &mut on_eof) => Some(spliced),
                _status = self.child.wait() => None,
            }
        };
        let delivered = match both {
            Some(spliced) => Some(spliced),
            None => {
                // The program has ended; what it has written is still to be handed over. What has left its group may
                // hold its output open for ever.
                self.kill_group();
                splice.abandon(Side::Client);
                let mut lent = None;
                let (client, host) = (session.leg(&mut lent), Leg::Other(&mut self.stdio));
                let rest = splice.run(client, host, &counts, &mut on_eof);
                tokio::select! {
                    rest = rest => Some(rest),
                    () = counts.unchanged_for(OUTPUT_TIMEOUT) => None,
                }
            }
        };
        match delivered {
            Some(Ok(())) => linger(&mut session).await,
            Some(Err(Failure { side, operation, error })) => {
                debug!(session.id = session.id().session(), channel.id = session.id().channel(), leg = leg_name(side), ?operation, %error, "leg failed");
                session.reset();
            }
            None => {
                debug!(session.id = session.id().session(), channel.id = session.id().channel(), timeout = ?OUTPUT_TIMEOUT, "output not taken");
                session.reset();
            }
        }
        self.kill_group();
        self.child.wait().await
    }

    fn kill_group(&mut self) {
        #[cfg(unix)]
        if let Some(group) = self.group.take() {
            // What has ended already cannot be killed.
            let _killed = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        // And where there are no groups.
        let _killed = self.child.start_kill();
    }
}

/// Takes off what the client still sends, for a moment.
async fn linger(session: &mut Session) {
    let mut discarded = [0; 1024];
    let rest = async { while session.read(&mut discarded).await.is_ok_and(|len| len > 0) {} };
    let _ended = timeout(LINGER_TIMEOUT, rest).await;
}

async fn log_lines(stderr: ChildStderr, id: crate::SessionId) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stderr).take(LOG_LINE_MAX).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|len| len > 0) {
            return;
        }
        info!(session.id = id.session(), channel.id = id.channel(), stderr = %String::from_utf8_lossy(line.trim_ascii_end()), "program says");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// A program's standard output to read and its standard input to write; shutting down closes the input.
struct Stdinout {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl AsyncRead for Stdinout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stdinout {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stdin) = &mut self.stdin else { return Poll::Ready(Ok(buf.len())) };
        match Pin::new(stdin).poll_write(cx, buf) {
            // The program wants no more input. That is its right, and no reason to lose its output.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stdin = None;
                Poll::Ready(Ok(buf.len()))
            }
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
