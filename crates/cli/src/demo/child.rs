//! A child process of the demo: this same command, logging JSON, leaving when its standard input is closed.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStderr, ChildStdin, Command};

type Event = serde_json::Map<String, serde_json::Value>;

/// A running child. Killed when dropped, also when the demo itself is: then its standard input ends.
pub(super) struct Child {
    name: &'static str,
    process: tokio::process::Child,
    stdin: Option<ChildStdin>,
    log: Lines<BufReader<ChildStderr>>,
    started: Instant,
}

impl Child {
    /// Starts `relayserver NAME ARGS`.
    pub(super) fn start<'a>(
        name: &'static str,
        args: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(name)
            .args(args)
            .args(["--log-format", "json", "--until-stdin-closes"])
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C on the terminal is for the demo, which then ends its children in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn()?;
        let stdin = process.stdin.take();
        let stderr = process.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?;
        let log = BufReader::new(stderr).lines();
        Ok(Child { name, process, stdin, log, started: Instant::now() })
    }

    /// Reads the child's log up to the event with this message.
    pub(super) async fn event(&mut self, message: &str) -> io::Result<Event> {
        let mut last = String::new();
        while let Some(line) = self.log.next_line().await? {
            match serde_json::from_str::<Event>(&line) {
                Ok(event) if event.get("message").is_some_and(|it| it == message) => {
                    return Ok(event);
                }
                Ok(_) | Err(_) => last = line,
            }
        }
        Err(io::Error::other(format!("the {} ended: {last}", self.name)))
    }

    /// How long ago it was started.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Resolves when the child has ended by itself.
    pub(super) async fn ended(&mut self) {
        // What it logs meanwhile is read on, else it would stand still.
        while let Ok(Some(_line)) = self.log.next_line().await {}
    }

    /// Asks it to leave, and resolves when it has.
    pub(super) async fn leave(mut self) {
        drop(self.stdin.take());
        self.ended().await;
        let _status = self.process.wait().await;
    }
}
