//! A relay that is open to the world, as an operator has it: TLS, tokens, and a state directory.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use rustix::process::Signal;

use super::net::{client, expect, free_port};
use super::peers::relayserver;
use super::program::{Ended, Program, run};

/// A relay as `relay --public` makes it, on free ports, with its state directory.
pub(crate) struct Secure {
    pub(crate) relay: Option<Program>,
    pub(crate) ports: [u16; 3],
    pub(crate) folder: tempfile::TempDir,
}

impl Secure {
    pub(crate) fn start() -> Secure {
        let ports = [free_port(), free_port(), free_port()];
        let mut secure = Secure { relay: None, ports, folder: tempfile::tempdir().unwrap() };
        secure.restart();
        secure
    }

    /// Ends the relay, where it runs, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let relay = Program::start(relayserver(
            &self.line().iter().map(String::as_str).collect::<Vec<_>>(),
        ));
        relay.event("relay ready");
        self.relay = Some(relay);
    }

    pub(crate) fn line(&self) -> Vec<String> {
        let mut line = vec!["relay".to_owned()];
        line.extend(self.ports.iter().map(u16::to_string));
        let state = self.state().display().to_string();
        let options = [
            "--public",
            "127.0.0.1",
            "--bind",
            "127.0.0.1",
            "--log-format",
            "json",
            "-vv",
            "--state-dir",
        ];
        line.extend(options.map(str::to_owned));
        line.push(state);
        line
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut relay) = self.relay.take() {
            relay.signal(Signal::TERM);
            assert!(relay.end().success());
        }
    }

    pub(crate) fn relay(&self) -> &Program {
        self.relay.as_ref().unwrap()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A command of the operator's, about this relay.
    pub(crate) fn operator(&self, args: &[&str]) -> Ended {
        let state = self.state().display().to_string();
        let mut line = args.to_vec();
        line.extend(["--state-dir", &state]);
        run(relayserver(&line))
    }

    /// Makes a token, and gives its join line.
    pub(crate) fn token(&self, name: &str, more: &[&str]) -> String {
        let public = format!("127.0.0.1:{}", self.ports[0]);
        let mut line = vec!["token", "create", name, "--public", &public];
        line.extend(more);
        let ended = self.operator(&line);
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(ended.stdout.lines().count(), 1, "the join line alone: {}", ended.stdout);
        ended.stdout.trim().to_owned()
    }

    pub(crate) fn first_join(&self) -> String {
        fs::read_to_string(self.state().join("first-join")).unwrap().trim().to_owned()
    }

    pub(crate) fn host(&self, join: &str, more: &[&str]) -> Program {
        let mut line = vec!["host", join, "--log-format", "json", "-vv"];
        line.extend(more);
        Program::start(relayserver(&line))
    }

    /// A line there and a line back.
    pub(crate) fn assert_serves(&self) {
        let mut client = client(([127, 0, 0, 1], self.ports[2]).into());
        client.write_all(b"a line").unwrap();
        expect(&mut client, b"a line");
    }
}
