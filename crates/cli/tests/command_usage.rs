//! The command line as a person meets it: help, mistakes, and what cannot be started. One clear line each, and the exit code.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::net::TcpListener;

use support::net::free_port;
use support::peers::relayserver;
use support::program::{DEADLINE, Ended, run_within};

fn told(args: &[&str]) -> Ended {
    run_within(relayserver(args), DEADLINE)
}

/// What a failed start says: one line, on standard error alone.
fn complaint(args: &[&str], code: i32) -> String {
    let ended = told(args);
    assert_eq!(ended.status.code(), Some(code), "{args:?}: {}", ended.stderr);
    assert_eq!(ended.stdout, "", "{args:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{args:?}: more than one line:\n{}", ended.stderr);
    ended.stderr.trim_end().to_owned()
}

#[test]
fn every_help_lists_exit_codes_and_examples_on_standard_output() {
    for args in [
        &["help", "relay"][..],
        &["help", "host"],
        &["help", "demo"],
        &["relay", "--help"],
        &["host", "--help"],
        &["server", "--help"],
        &["demo", "--help"],
    ] {
        let ended = told(args);
        assert_eq!(ended.status.code(), Some(0), "{args:?}");
        assert_eq!(ended.stderr, "", "{args:?}");
        for part in ["Usage:", "Examples:", "Exit codes: 0 ", "  relayserver "] {
            assert!(ended.stdout.contains(part), "{args:?} lacks {part:?}:\n{}", ended.stdout);
        }
        for code in ["0", "1", "2", "130", "143"] {
            let codes = ended.stdout.split("Exit codes:").nth(1).unwrap();
            let words = codes.split(|it: char| !it.is_ascii_digit());
            assert!(
                words.into_iter().any(|word| word == code),
                "{args:?}: no code {code} in {codes}"
            );
        }
        assert!(!ended.stdout.contains('\x1b'), "{args:?}: colour without a terminal");
    }
}

#[test]
fn the_help_of_all_names_the_commands_and_shows_examples() {
    for args in [&["help"][..], &["--help"], &["-h"]] {
        let ended = told(args);
        assert_eq!(ended.status.code(), Some(0), "{args:?}");
        for part in ["relay", "host", "demo", "Examples:", "Exit codes: 0 "] {
            assert!(ended.stdout.contains(part), "{args:?} lacks {part:?}:\n{}", ended.stdout);
        }
        assert!(!ended.stdout.contains("server  "), "the hidden alias shows:\n{}", ended.stdout);
    }
}

#[test]
fn the_version_is_a_line_of_standard_output() {
    let ended = told(&["--version"]);
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stdout, format!("relayserver {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_arguments_is_a_question_answered_by_the_help() {
    let ended = told(&[]);
    assert_eq!(ended.status.code(), Some(2));
    assert_eq!(ended.stdout, "");
    for part in ["Usage:", "relay", "host", "demo", "Examples:"] {
        assert!(ended.stderr.contains(part), "lacks {part:?}:\n{}", ended.stderr);
    }
}

#[test]
fn a_wrong_command_line_exits_2_and_names_what_is_wrong() {
    for (args, named) in [
        (&["rleay"][..], "rleay"),
        (&["relay", "--insecrue"], "--insecure"),
        (&["relay", "eight"], "eight"),
        (&["relay", "70000"], "70000"),
        (&["relay", "1", "2", "3", "4"], "4"),
        (&["relay", "--assign-timeout", "5"], "5s"),
        (&["relay", "--v1-allow", "10.0.0.0/33"], "32 bits"),
        (&["relay", "--insecure", "--v1-allow", "10.0.0.0/8"], "--v1-allow"),
        (&["host", "--forward"], "--forward"),
        (&["host", "--echo", "--forward", "22"], "--forward"),
        (&["host", "-n", "0"], "1 to 1000"),
        (&["host", "--exec"], "CMD"),
        (&["host", "r", "1", "2", "--", "cat"], "--exec"),
        (&["host", "--forward", "no port"], "no port"),
        (&["host", "--forward", "127.0.0.1:99999"], "99999"),
        (&["host", "http://relay"], "a name or an address"),
        (&["host", "a b"], "a name or an address"),
        (&["host", ""], "a name or an address"),
        (&["host", "relay:8000"], "RELAY DPORT CPORT"),
        (&["host", "relay:99999"], "RELAY DPORT CPORT"),
        (&["host", "relay:"], "RELAY DPORT CPORT"),
        (&["host", "relay", "0"], "1..=65535"),
        (&["relay", "--clients-max", "0"], "a number from 1"),
        (&["relay", "--bind", "here"], "192.0.2.7"),
        (&["relay", "--listen-hosts", "localhost:8000"], "0.0.0.0:8000"),
        (&["demo", "--twice"], "--twice"),
    ] {
        let ended = told(args);
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{args:?}");
        assert!(
            ended.stderr.contains(named),
            "{args:?} does not name {named:?}:\n{}",
            ended.stderr
        );
        let errors = ended.stderr.lines().filter(|line| line.starts_with("error:")).count();
        assert!(errors <= 1, "{args:?}: more than one message:\n{}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for ports in [[&port, "0", "0"], ["0", &port, "0"], ["0", "0", &port]] {
        let line = complaint(&[&["relay"][..], &ports[..]].concat(), 1);
        assert!(line.contains(&format!("127.0.0.1:{port}")), "{line}");
        assert!(line.to_lowercase().contains("in use"), "{line}");
        assert!(line.ends_with("Another port will do"), "does not say what to do: {line}");
    }
}

#[test]
fn a_port_that_is_given_twice_is_named() {
    let port = free_port().to_string();
    let line = complaint(&["relay", "0", &port, &port], 1);
    assert!(line.contains(&format!("127.0.0.1:{port}")), "{line}");
    assert!(line.contains("command channels") && line.contains("clients"), "{line}");
}

#[test]
fn the_world_is_not_let_in_without_the_operators_word() {
    for args in [
        &["relay", "0", "0", "0", "--bind", "0.0.0.0"][..],
        &["relay", "0", "0", "0", "--bind", "::"],
        &["relay", "0", "0", "0", "--listen-clients", "0.0.0.0:0"],
        &["relay", "0", "0", "0", "--listen-hosts", "192.0.2.1:0"],
    ] {
        let line = complaint(args, 1);
        for part in ["not loopback", "--v1-allow", "--insecure"] {
            assert!(line.contains(part), "{args:?} lacks {part:?}: {line}");
        }
    }
}

#[test]
fn a_recording_that_cannot_be_made_is_named() {
    let line = complaint(&["relay", "0", "0", "0", "--record", "/nonexistent/file"], 1);
    assert!(line.contains("/nonexistent/file"), "{line}");
}
