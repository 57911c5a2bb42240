//! What the operator does: a relay that is open to the world, its state directory, tokens and keys.

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
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::net::{client, expect, free_port, rest};
use support::peers::{relayserver, text};
use support::program::{Program, command, have, run};
use support::secure::Secure;

#[test]
fn the_first_start_makes_all_that_a_host_needs_and_the_next_one_keeps_it() {
    let mut secure = Secure::start();
    let said = secure.relay().event("the join line of the first host is in this file");
    let path = secure.state().join("first-join");
    assert_eq!(text(&said, "path"), path.display().to_string());
    let join = secure.first_join();
    let at = format!("@127.0.0.1:{}/fp=", secure.ports[0]);
    assert!(join.starts_with("relayserver://rls_first.") && join.contains(&at), "{join}");
    let host = secure.host(&join, &["--echo"]);
    host.event("host ready");
    secure.assert_serves();
    let gone = Instant::now();
    while path.exists() {
        assert!(gone.elapsed() < Duration::from_secs(10), "it is there although it was used");
        std::thread::yield_now();
    }
    let kept = |name: &str| fs::read(secure.state().join(name)).unwrap();
    let before = [kept("key.pem"), kept("certificate.pem"), kept("tokens.json")];
    assert_eq!(fs::metadata(secure.state()).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(secure.state()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }

    secure.restart();
    let kept = |name: &str| fs::read(secure.state().join(name)).unwrap();
    assert!(before == [kept("key.pem"), kept("certificate.pem"), kept("tokens.json")]);
    assert!(!path.exists());
    host.events("host ready", 2);
    secure.assert_serves();
}

#[test]
fn on_a_terminal_the_first_join_line_is_shown_once_and_kept_nowhere() {
    if !have(&["script"]) {
        return;
    }
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let state = folder.path().join("state");
    let binary = env!("CARGO_BIN_EXE_relayserver");
    let line = format!(
        "{binary} relay {port} 0 0 --public relay.example.com --bind 127.0.0.1 --state-dir {}",
        state.display()
    );
    for round in 0..2 {
        let relay = Program::start(command("script", &["-qefc", &line, "/dev/null"]));
        if round == 0 {
            let shown = relay.line("the join line", |line| line.contains("relayserver host "));
            let expected = format!("@relay.example.com:{port}/fp=");
            assert!(
                shown.contains(&expected) && shown.trim_end().ends_with("--forward 22"),
                "{shown}"
            );
        }
        relay.line("the relay to be ready", |line| line.contains("relay ready"));
        assert_eq!(relay.lines().iter().filter(|it| it.contains("rls_first.")).count(), 1 - round);
        assert!(!state.join("first-join").exists());
    }
}

#[test]
fn a_token_is_honoured_within_half_a_second_and_works_without_a_relay_too() {
    let mut secure = Secure::start();
    let join = secure.token("laptop", &["--service", "default"]);
    let made = Instant::now();
    secure.relay().events_where("token changed", 1, |it| text(it, "token") == "laptop");
    assert!(made.elapsed() < Duration::from_millis(500), "heard after {:?}", made.elapsed());
    let host = secure.host(&join, &["--echo"]);
    host.event("host ready");
    secure.assert_serves();
    drop(host);

    secure.stop();
    let join = secure.token("desktop", &[]);
    secure.restart();
    let host = secure.host(&join, &["--echo"]);
    host.event("host ready");
    secure.assert_serves();
}

#[test]
fn a_revoked_token_ends_its_host_and_its_sessions_and_no_other() {
    let secure = Secure::start();
    let (one, other) = (secure.token("one", &[]), secure.token("other", &[]));
    let mut revoked = secure.host(&one, &["--echo", "-n", "1"]);
    revoked.event("host ready");
    let clients = ([127, 0, 0, 1], secure.ports[2]).into();
    let mut its_client = client(clients);
    its_client.write_all(b"first").unwrap();
    expect(&mut its_client, b"first");
    let kept = secure.host(&other, &["--echo", "-n", "5"]);
    kept.event("host ready");
    // The host with fewer sessions gets the next client.
    let mut kept_client = client(clients);
    kept_client.write_all(b"second").unwrap();
    expect(&mut kept_client, b"second");

    let ended = secure.operator(&["token", "revoke", "one"]);
    assert!(ended.status.success() && ended.stdout.is_empty(), "{}", ended.stderr);
    let began = Instant::now();
    assert!(rest(&mut its_client).1.is_some(), "a reset: half an answer is none");
    assert!(began.elapsed() < Duration::from_secs(1), "cut off after {:?}", began.elapsed());
    assert_eq!(revoked.end().code(), Some(77));
    let said = revoked.said();
    assert!(said.contains("refuses this host: token_revoked"), "{said}");
    kept_client.write_all(b"still").unwrap();
    expect(&mut kept_client, b"still");

    let listed = secure.operator(&["token", "list"]).stdout;
    let states: Vec<_> = listed
        .lines()
        .skip(1)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[0].to_owned(), words[words.len() - 1].to_owned())
        })
        .collect();
    let expected = [("first", "valid"), ("one", "revoked"), ("other", "valid")];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
}

#[test]
fn each_host_that_is_refused_for_good_says_why_and_ends_with_77() {
    let secure = Secure::start();
    let good = secure.token("laptop", &["--service", "ssh"]);
    let client = secure.token("phone", &["--role", "client"]);
    let expired = secure.token("old", &["--expires", "1ms"]);
    let revoked = secure.token("gone", &[]);
    assert!(secure.operator(&["token", "revoke", "gone"]).status.success());
    for token in ["laptop", "phone", "old", "gone"] {
        secure.relay().events_where("token changed", 1, |it| text(it, "token") == token);
    }
    let (head, pin) = good.split_once("/fp=").unwrap();
    let other_pin = format!(
        "{head}/fp={}",
        if pin.starts_with('A') { "B" } else { "A" }.to_owned() + &pin[1..]
    );
    let (_, address) = head.split_once('@').unwrap();
    let stranger = format!("relayserver://rls_laptop.{}@{address}/fp={pin}", "A".repeat(43));
    for (join, word) in [
        (other_pin.as_str(), "is not the relay of the join line"),
        (&stranger, "token_unknown"),
        (&client, "role_not_granted"),
        (&expired, "token_expired"),
        (&revoked, "token_revoked"),
        (&good, "service_not_granted (service default)"),
    ] {
        let mut host = secure.host(join, &["--echo"]);
        assert_eq!(host.end().code(), Some(77), "{word}: {}", host.said());
        let said = host.said();
        assert!(said.contains(word), "{word}: {said}");
        assert_no_secret(&said, join);
    }
    assert_no_secret(&secure.relay().said(), &good);
}

/// The secret part of a join line stands nowhere in what was said.
fn assert_no_secret(said: &str, join: &str) {
    let (_, rest) = join.split_once('.').unwrap();
    let (secret, _) = rest.split_once('@').unwrap();
    assert!(!said.contains(secret) && !said.contains(&secret[..20]), "{said}");
}

#[test]
fn what_is_no_join_line_is_said_without_a_part_of_it() {
    let secret = "S".repeat(43);
    for line in [
        format!("relayserver://rls_a.{secret}"),
        format!("relayserver:/rls_a.{secret}@h:1"),
        format!("relayserver://rls_a.{secret}x@h:1"),
        format!("rls_a.{secret}"),
        format!("relayserver://rls_a.{secret}@h:1/fp=rls_a.{secret}"),
        format!("relayserver://h:1@rls_a.{secret}"),
    ] {
        let ended = run(relayserver(&["host", &line, "--echo"]));
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("relayserver: join line"), "{}", ended.stderr);
        assert!(
            !ended.stderr.contains("SSSS") && !ended.stdout.contains("SSSS"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn the_join_line_may_be_in_a_file_in_the_environment_or_in_the_configuration() {
    let secure = Secure::start();
    let join = secure.token("laptop", &[]);
    let at = |name: &str| secure.folder.path().join(name).display().to_string();
    fs::write(at("join"), format!("{join}\n")).unwrap();
    let toml = format!("join = \"file:{}\"\n[services.default]\necho = true\n", at("join"));
    fs::write(at("host.toml"), toml).unwrap();
    let by_file =
        relayserver(&["host", "--join-file", &at("join"), "--echo", "--log-format", "json"]);
    let mut by_variable = relayserver(&["host", "--echo", "--log-format", "json"]);
    by_variable.env("RELAYSERVER_JOIN", &join);
    let by_configuration =
        relayserver(&["host", "--config", &at("host.toml"), "--log-format", "json"]);
    for line in [by_file, by_variable, by_configuration] {
        let host = Program::start(line);
        host.event("host ready");
        secure.assert_serves();
    }
}

#[test]
fn the_key_is_changed_without_losing_a_host() {
    let mut secure = Secure::start();
    let before = secure.token("before", &[]);
    let next = secure.operator(&["key", "next"]).stdout.trim().to_owned();
    let both = secure.token("both", &[]);
    assert!(both.ends_with(&format!(",{next}")), "{both}");
    let old_host = secure.host(&before, &["--echo"]);
    let mut new_host = secure.host(&both, &["--echo"]);
    old_host.event("host ready");
    new_host.event("host ready");
    assert_eq!(secure.operator(&["key", "switch"]).stdout.trim(), next);
    assert_eq!(secure.operator(&["key", "show"]).stdout.trim(), next);
    secure.restart();
    new_host.events("host ready", 2);
    secure.assert_serves();
    assert!(new_host.runs());
    let mut late = secure.host(&before, &["--echo"]);
    assert_eq!(late.end().code(), Some(77), "the old pin alone does not do any more");
}

/// An operator's own key, `key.pem`.
fn make_key(folder: &Path) {
    let to = folder.join("key.pem").display().to_string();
    let curve = "ec_paramgen_curve:P-256";
    let line = ["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", &to];
    assert!(run(command("openssl", &line)).status.success());
}

/// A certificate for it, `cert.pem`, that it has signed itself.
fn make_certificate(folder: &Path, name: &str) {
    let path = |name: &str| folder.join(name).display().to_string();
    let (key, to, subject) = (path("key.pem"), path("cert.pem"), format!("/CN={name}"));
    let line = ["req", "-x509", "-key", &key, "-out", &to, "-days", "2", "-subj", &subject];
    assert!(run(command("openssl", &line)).status.success());
}

#[test]
fn another_certificate_for_the_same_key_keeps_every_host() {
    if !have(&["openssl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    make_key(folder.path());
    make_certificate(folder.path(), "one.example.com");
    let [hosts, clients] = [free_port(), free_port()];
    let text = format!(
        "[relay]\nlisten = \"127.0.0.1:{hosts}\"\ntls = {{ cert = {:?}, key = {:?} }}\nstate_dir = {:?}\n\
         [services.default]\nlisten = \"127.0.0.1:{clients}\"\n",
        path("cert.pem"),
        path("key.pem"),
        path("state")
    );
    fs::write(path("relay.toml"), text).unwrap();
    let file = path("relay.toml");
    let start = || {
        let relay =
            Program::start(relayserver(&["relay", "--config", &file, "--log-format", "json"]));
        relay.event("relay ready");
        relay
    };
    let mut relay = start();
    let by_roots = run(relayserver(&["token", "create", "by-roots", "--config", &file])).stdout;
    assert!(!by_roots.contains("/fp="), "who vouches for it decides: {by_roots}");
    let mut host = Program::start(relayserver(&["host", by_roots.trim(), "--echo"]));
    assert_eq!(host.end().code(), Some(77), "nobody vouches for this one");
    let join = run(relayserver(&["token", "create", "by-pin", "--pin", "--config", &file])).stdout;
    let host =
        Program::start(relayserver(&["host", join.trim(), "--echo", "--log-format", "json"]));
    host.event("host ready");
    make_certificate(folder.path(), "two.example.com");
    relay.signal(Signal::TERM);
    assert!(relay.end().success());
    let _relay = start();
    host.events("host ready", 2);
    let mut client = client(([127, 0, 0, 1], clients).into());
    client.write_all(b"a line").unwrap();
    expect(&mut client, b"a line");
}

#[test]
fn what_cannot_be_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let fails = |args: &[&str], code: i32, words: &[&str]| {
        let ended = run(relayserver(args));
        assert_eq!(ended.status.code(), Some(code), "{args:?}: {}{}", ended.stdout, ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{args:?}: {}", ended.stderr);
        }
        assert_eq!(ended.stdout, "");
    };
    let missing = path("missing");
    fails(&["token", "list", "--state-dir", &missing], 1, &["no state directory"]);
    assert!(!folder.path().join("missing").exists(), "looking changes nothing");
    let state = path("state");
    fails(&["token", "create", "a", "--state-dir", &state], 1, &["--public"]);
    fails(&["relay", "--public", "0.0.0.0", "--state-dir", &state], 2, &["hosts can dial"]);
    fails(&["relay", "--public", "h", "--insecure"], 2, &["--insecure"]);
    fs::create_dir(path("open")).unwrap();
    fs::set_permissions(path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let open = path("open");
    fails(&["relay", "--public", "h", "--state-dir", &open], 1, &["0700", "--state-dir"]);
    fs::write(path("file"), "").unwrap();
    let file = path("file");
    fails(&["relay", "--public", "h", "--state-dir", &file], 1, &[&file]);
    fails(&["token", "revoke", "x", "--state-dir", &open], 1, &["0700"]);
    fails(&["key", "switch", "--state-dir", &missing], 1, &["no state directory"]);
    fails(&["status", "--state-dir", &missing], 1, &["no relay runs"]);
}

#[test]
fn a_configuration_is_checked_with_all_its_errors_and_starts_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let bad =
        "[relay]\nlisten = \"0.0.0.0:80000\"\npublik = \"a\"\n[services.default]\nlisten = 5\n";
    fs::write(path("bad.toml"), bad).unwrap();
    for args in [&["check", &path("bad.toml")][..], &["relay", "--config", &path("bad.toml")]] {
        let ended = run(relayserver(args));
        assert_eq!(ended.status.code(), Some(1));
        for word in ["bad.toml:2:", "bad.toml:3:", "bad.toml:5:", "public"] {
            assert!(ended.stderr.contains(word), "{args:?}: {word}: {}", ended.stderr);
        }
    }
    let ports = [free_port(), free_port(), free_port()];
    let good = format!(
        "[relay]\nlisten = \"127.0.0.1:{}\"\nstate_dir = {:?}\n\
         [services.default]\nlisten = \"127.0.0.1:{}\"\n[services.ssh]\nlisten = \"127.0.0.1:{}\"\nmax_sessions = 1\n",
        ports[0],
        path("state"),
        ports[1],
        ports[2]
    );
    fs::write(path("relay.toml"), good).unwrap();
    let file = path("relay.toml");
    assert!(run(relayserver(&["check", &file])).status.success());
    let effective = run(relayserver(&["check", &file, "--effective"])).stdout;
    assert!(
        effective.contains(&format!("services.ssh.max_sessions = 1  # {file}:8")),
        "{effective}"
    );
    assert!(effective.contains("services.ssh.queue.depth = 1024  # default"), "{effective}");

    let relay = Program::start(relayserver(&["relay", "--config", &file, "--log-format", "json"]));
    relay.event("relay ready");
    let join = run(relayserver(&["token", "create", "two", "--config", &file])).stdout;
    let greeter = |word: &str| {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, word) = (server.local_addr().unwrap().port(), word.to_owned());
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = server.accept() {
                let _sent = stream.write_all(word.as_bytes());
            }
        });
        port
    };
    let (web, ssh) = (greeter("web"), greeter("ssh"));
    let (web, ssh) = (format!("default={web}"), format!("ssh={ssh}"));
    let line = ["host", join.trim(), "--forward", &web, "--forward", &ssh];
    let host = Program::start(relayserver(&line));
    for (port, word) in [(ports[1], "web"), (ports[2], "ssh")] {
        let where_it_is = format!("reachable: 127.0.0.1:{port} -> 127.0.0.1:");
        host.line("where it is reached", |line| line.starts_with(&where_it_is));
        let mut client = client(([127, 0, 0, 1], port).into());
        expect(&mut client, word.as_bytes());
    }
    let status = run(relayserver(&["status", "--config", &file])).stdout;
    assert!(status.contains("ssh") && status.contains("two"), "{status}");
    let json = run(relayserver(&["status", "--config", &file, "--json"])).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["format"], 1, "{json}");
    let ended = run(relayserver(&["relay", "9000", "--config", &file]));
    assert_eq!(ended.status.code(), Some(2), "what the file says, flags do not: {}", ended.stderr);
}
