//! OpenSSH through the relay: an unmodified server behind `--forward`, unmodified clients in front.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::fs;

use support::net::{assert_same_file, noise};
use support::peers::{Host, Relay};
use support::program::{have, output_of, run};
use support::servers::{Sshd, shown};

/// What scp carries, in each direction.
const FILE_LEN: usize = 100_000_000;

/// A server, and the relay through which it is reached.
struct Reached {
    sshd: Sshd,
    relay: Relay,
    _host: Host,
}

impl Reached {
    fn start() -> Reached {
        let (sshd, relay) = (Sshd::start(), Relay::start(&[]));
        let host = Host::start(&relay, &["--forward", &sshd.port.to_string()]);
        Reached { sshd, relay, _host: host }
    }

    fn client(&self, program: &str, port_option: &str) -> std::process::Command {
        self.sshd.client(&[], program, port_option, self.relay.clients.port())
    }
}

#[test]
fn ssh_runs_a_command_and_brings_back_its_output_and_exit_code() {
    if !have(&["ssh", "sshd", "ssh-keygen"]) {
        return;
    }
    let reached = Reached::start();
    let mut ssh = reached.client("ssh", "-p");
    ssh.arg(format!("{}@127.0.0.1", Sshd::user()));
    ssh.arg("echo out; echo err >&2; exit 7");
    let ended = run(ssh);
    assert_eq!(ended.status.code(), Some(7), "{}", ended.stderr);
    assert_eq!(ended.stdout, "out\n");
    assert!(ended.stderr.lines().any(|line| line == "err"), "{}", ended.stderr);
    assert_eq!(reached.relay.reason_of_session(1), "finished");
}

#[test]
fn scp_carries_100_mb_whole_in_both_directions() {
    if !have(&["ssh", "scp", "sshd", "ssh-keygen", "sha256sum"]) {
        return;
    }
    let reached = Reached::start();
    let at = |name: &str| reached.sshd.folder.path().join(name);
    fs::write(at("here"), noise(FILE_LEN, 1)).unwrap();
    let far = |name: &str| format!("{}@127.0.0.1:{}", Sshd::user(), shown(&at(name)));
    for (from, to) in [(shown(&at("here")), far("there")), (far("there"), shown(&at("back")))] {
        let mut scp = reached.client("scp", "-P");
        scp.args(["-q", &from, &to]);
        output_of(scp);
    }
    assert_same_file(&at("here"), &at("there"));
    assert_same_file(&at("here"), &at("back"));
    let sums = output_of(support::program::command(
        "sha256sum",
        &[&shown(&at("here")), &shown(&at("back"))],
    ));
    let sums: Vec<&str> = sums.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn ten_commands_at_once_over_a_pool_of_two_all_succeed() {
    if !have(&["ssh", "sshd", "ssh-keygen"]) {
        return;
    }
    let (sshd, relay) = (Sshd::start(), Relay::start(&["--assign-timeout", "30s"]));
    let host = Host::start(&relay, &["-n", "2", "--forward", &sshd.port.to_string()]);
    let reached = Reached { sshd, relay, _host: host };
    std::thread::scope(|scope| {
        for number in 0..10 {
            let reached = &reached;
            scope.spawn(move || {
                let mut ssh = reached.client("ssh", "-p");
                ssh.arg(format!("{}@127.0.0.1", Sshd::user())).arg(format!("echo {number}"));
                assert_eq!(output_of(ssh), format!("{number}\n"));
            });
        }
    });
}
