//! `bin/relay` and `bin/server`: the original's two scripts, with its positionals, in any order of starting.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::net::free_port;
use support::peers::Relay;
use support::program::{Program, have, run};
use tempfile::TempDir;

/// A target folder in which the command is built already, so that the scripts build nothing.
fn built() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("release")).unwrap();
    let binary = folder.path().join("release/relayserver");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_relayserver"), binary).unwrap();
    folder
}

fn script(name: &str, built: &TempDir, args: &[&str]) -> Command {
    let mut script = Command::new(root().join("bin").join(name));
    script.args(args).env("CARGO_TARGET_DIR", built.path());
    script.env_remove("RUST_LOG").env_remove("NO_COLOR");
    script
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn either_may_be_started_first_and_both_take_the_originals_positionals() {
    if !have(&["bash"]) {
        return;
    }
    let built = built();
    for server_first in [false, true] {
        let ports = [free_port(), free_port(), free_port()];
        let [hosts, command, clients] = ports.map(|port| port.to_string());
        let relay_line = [&hosts, &command, &clients, "--log-format", "json"];
        let server_line = ["127.0.0.1", &hosts, &command, "-n", "3", "--log-format", "json"];
        let start_server = || Program::start(script("server", &built, &server_line));
        let early = server_first.then(|| {
            let server = start_server();
            server.line("a try in vain", |line| line.contains("WARN"));
            server
        });
        let relay = Relay::of(Program::start(script("relay", &built, &relay_line)));
        let server = early.unwrap_or_else(start_server);
        server.event("host ready");
        assert_eq!(relay.clients.port(), ports[2]);
        assert_eq!(relay.ask(b"as ever"), b"as ever");
    }
}

#[test]
fn they_work_from_anywhere_and_through_a_link() {
    if !have(&["bash"]) {
        return;
    }
    let (built, elsewhere) = (built(), TempDir::new().unwrap());
    let link = elsewhere.path().join("my-relay");
    std::os::unix::fs::symlink(root().join("bin/relay").canonicalize().unwrap(), &link).unwrap();
    let mut help = Command::new(&link);
    help.arg("--help").current_dir(elsewhere.path()).env("CARGO_TARGET_DIR", built.path());
    let ended = run(help);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.contains("[DPORT] [CPORT] [TPORT]"), "{}", ended.stdout);
    let ended = run(script("server", &built, &["--help"]));
    assert!(ended.stdout.contains("[JOIN|RELAY] [DPORT] [CPORT]"), "{}", ended.stdout);
}

#[test]
fn without_a_build_and_without_cargo_they_say_what_to_do() {
    if !have(&["bash"]) {
        return;
    }
    let empty = TempDir::new().unwrap();
    let tools = TempDir::new().unwrap();
    // What the script itself needs, and no cargo.
    for tool in ["bash", "env", "readlink", "dirname"] {
        let path = support::program::find(tool).unwrap();
        std::os::unix::fs::symlink(path, tools.path().join(tool)).unwrap();
    }
    let mut relay = script("relay", &empty, &[]);
    relay.env("PATH", tools.path());
    let ended = run(relay);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("https://rustup.rs"), "{}", ended.stderr);
}
