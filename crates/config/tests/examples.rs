//! The two examples of the documentation, and nothing at all: what they come to, exactly.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(missing_docs)]

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use relayserver_config::{
    Effective, FileKind, Forward, HostFile, Limits, Origin, PublicAddress, Queue, Rate, Relay,
    RelayFile, RelayService, ServiceName, Target, Tls, V1, kind_of,
};

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

fn lines(effective: &[Effective]) -> String {
    effective.iter().map(|effective| format!("{effective}\n")).collect()
}

fn default_limits() -> Limits {
    Limits {
        clients: count(32_768),
        channels: count(65_536),
        commands: count(4096),
        handshakes: count(4096),
        handshakes_per_address: count(1024),
        hello_timeout: Duration::from_secs(5),
        drain_timeout: Duration::from_secs(10),
    }
}

#[test]
fn the_example_of_relay_toml_is_read_to_its_values() {
    let file = RelayFile::parse(&example("relay.toml"), "relay.toml", false).unwrap();
    let public = PublicAddress { host: "relay.example.com".to_owned(), port: Some(8000) };
    let relay = Relay {
        listen: address("0.0.0.0:8000"),
        public: Some(public),
        tls: Tls::Auto,
        state_dir: Some("/var/lib/relayserver".into()),
        v1: Some(V1 {
            command: address("127.0.0.1:8001"),
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            service: name("default"),
            mixed: false,
        }),
        limits: default_limits(),
    };
    assert_eq!(file.relay, relay);
    let default = RelayService {
        listen: address("0.0.0.0:8002"),
        max_sessions: None,
        queue: Queue { depth: 1024, wait: Duration::from_secs(5) },
        rate: Rate { service: None, session: None },
    };
    let ssh = RelayService {
        listen: address("0.0.0.0:2222"),
        max_sessions: Some(count(100)),
        queue: Queue { depth: 64, wait: Duration::from_secs(5) },
        rate: Rate { service: None, session: None },
    };
    assert_eq!(file.services, [(name("default"), default), (name("ssh"), ssh)].into());
}

#[test]
fn the_example_of_host_toml_is_read_to_its_values() {
    let file = HostFile::parse(&example("host.toml"), "host.toml").unwrap();
    let join = file.join.as_ref().unwrap();
    assert_eq!(format!("{join:?}"), "Secret(\"file:/etc/relayserver/join\")");
    assert_eq!(file.services.len(), 1);
    let ssh = &file.services["ssh"];
    let forward = Forward::Tcp { host: "127.0.0.1".to_owned(), port: 22 };
    assert_eq!(ssh.target, Target::Forward(forward));
    assert_eq!((ssh.pool.min.get(), ssh.pool.max.get()), (2, 64));
}

#[test]
fn an_empty_file_is_all_defaults() {
    let file = RelayFile::parse("", "relay.toml", false).unwrap();
    let relay = Relay {
        listen: address("127.0.0.1:8000"),
        public: None,
        tls: Tls::Auto,
        state_dir: None,
        v1: None,
        limits: default_limits(),
    };
    assert_eq!(file.relay, relay);
    assert!(file.services.is_empty());
    assert!(file.effective().iter().all(|effective| effective.origin == Origin::Default));
    let file = HostFile::parse("", "host.toml").unwrap();
    assert_eq!((file.join, file.services.len()), (None, 0));
}

#[test]
fn each_target_and_each_form_of_tls_is_read() {
    let text = "
[services.a]
forward = 22
[services.b]
forward = '22'
[services.c]
forward = 'unix:/run/app.sock'
[services.d]
exec = ['python3', '-u', 'quiz.py']
[services.e]
echo = true
pool.min = 1
pool.max = 1000
";
    let file = HostFile::parse(text, "host.toml").unwrap();
    let tcp = Forward::Tcp { host: "127.0.0.1".to_owned(), port: 22 };
    let program = ["python3", "-u", "quiz.py"].map(str::to_owned).to_vec();
    let targets: Vec<_> = file.services.into_values().map(|service| service.target).collect();
    let expected = [
        Target::Forward(tcp.clone()),
        Target::Forward(tcp),
        Target::Forward(Forward::Unix("/run/app.sock".into())),
        Target::Exec(program),
        Target::Echo,
    ];
    assert_eq!(targets, expected);
    let files = Tls::Files { cert: "/c.pem".into(), key: "k.pem".into() };
    for (text, tls) in
        [("'auto'", Tls::Auto), ("'off'", Tls::Off), ("{ cert = '/c.pem', key = 'k.pem' }", files)]
    {
        let text = format!("relay.tls = {text}");
        assert_eq!(RelayFile::parse(&text, "relay.toml", false).unwrap().relay.tls, tls);
    }
}

#[test]
fn how_much_a_host_takes_and_how_its_servers_are_looked_after_is_read() {
    let text = "
weight = 250
max_sessions = 50
[services.a]
forward = 22
check = { tcp = true, every = '30s' }
[services.b]
forward = 23
check = {}
[services.c]
forward = 24
";
    let file = HostFile::parse(text, "host.toml").unwrap();
    assert_eq!((file.weight.get(), file.max_sessions.map(|it| it.get())), (250, Some(50)));
    let every: Vec<_> =
        file.services.values().map(|it| it.check.as_ref().map(|it| it.every.as_secs())).collect();
    assert_eq!(every, [Some(30), Some(5), None]);
    for (text, expected) in [
        ("weight = 0", "expected a number from 1 to 10000, found 0"),
        ("weight = 10001", "expected a number from 1 to 10000, found 10001"),
        ("max_sessions = 0", "found 0"),
        (
            "[services.a]\necho = true\ncheck = {}",
            "`check` in [services.a]: expected `forward` beside it",
        ),
        (
            "[services.a]\nforward = 1\ncheck.every = '500ms'",
            "`every` in [services.a.check]: expected \"1s\" to \"1h\", found \"500ms\"",
        ),
        ("[services.a]\nforward = 1\ncheck.tcp = false", "expected true, found false"),
        ("[services.a]\nforward = 1\ncheck.evry = '5s'", "did you mean `every`?"),
    ] {
        let errors = HostFile::parse(text, "host.toml").unwrap_err().to_string();
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn rates_are_sizes_a_second() {
    let text =
        "[services.a]\nlisten = '127.0.0.1:1'\nrate = { service = '10MiB', session = '512KiB' }";
    let file = RelayFile::parse(text, "relay.toml", false).unwrap();
    let rates: Vec<_> = file.services.values().map(|it| it.rate.clone()).collect();
    let of = |rate: Option<relayserver_config::Size>| rate.map(|rate| rate.0);
    assert_eq!((of(rates[0].service), of(rates[0].session)), (Some(10 << 20), Some(512 << 10)));
    let text = text.replace("512KiB", "1023B");
    let errors = RelayFile::parse(&text, "relay.toml", false).unwrap_err().to_string();
    assert!(errors.contains("expected at least \"1KiB\", found \"1023B\""), "{errors}");
}

#[test]
fn every_value_is_told_with_where_it_came_from() {
    let file = RelayFile::parse(&example("relay.toml"), "relay.toml", false).unwrap();
    let expected = r#"relay.listen = "0.0.0.0:8000"  # relay.toml:3
relay.public = "relay.example.com:8000"  # relay.toml:4
relay.tls = "auto"  # relay.toml:5
relay.state_dir = "/var/lib/relayserver"  # relay.toml:6
relay.v1.command = "127.0.0.1:8001"  # relay.toml:9
relay.v1.allow = ["127.0.0.0/8"]  # relay.toml:10
relay.v1.service = "default"  # relay.toml:11
relay.v1.mixed = false  # default
relay.limits.clients = 32768  # default
relay.limits.channels = 65536  # default
relay.limits.commands = 4096  # default
relay.limits.handshakes = 4096  # default
relay.limits.handshakes_per_address = 1024  # default
relay.limits.hello_timeout = "5s"  # default
relay.limits.drain_timeout = "10s"  # default
# metrics is not set
services.default.listen = "0.0.0.0:8002"  # relay.toml:14
# services.default.max_sessions is not set
services.default.queue.depth = 1024  # default
services.default.queue.wait = "5s"  # default
# services.default.rate.service is not set
# services.default.rate.session is not set
services.ssh.listen = "0.0.0.0:2222"  # relay.toml:17
services.ssh.max_sessions = 100  # relay.toml:18
services.ssh.queue.depth = 64  # relay.toml:19
services.ssh.queue.wait = "5s"  # relay.toml:19
# services.ssh.rate.service is not set
# services.ssh.rate.session is not set
"#;
    assert_eq!(lines(file.effective()), expected);
    let file = HostFile::parse(&example("host.toml"), "host.toml").unwrap();
    let expected = r#"join = "file:/etc/relayserver/join"  # host.toml:2
weight = 100  # default
# max_sessions is not set
services.ssh.forward = "127.0.0.1:22"  # host.toml:4
# services.ssh.exec is not set
# services.ssh.echo is not set
# services.ssh.check is not set
services.ssh.pool.min = 2  # host.toml:5
services.ssh.pool.max = 64  # host.toml:5
"#;
    assert_eq!(lines(file.effective()), expected);
}

#[test]
fn version_1_that_is_off_is_told_as_such() {
    let file = RelayFile::parse("", "relay.toml", false).unwrap();
    let of_v1: Vec<_> =
        file.effective().iter().filter(|effective| effective.key.starts_with("relay.v1")).collect();
    let off = Effective { key: "relay.v1".to_owned(), value: None, origin: Origin::Default };
    assert_eq!(of_v1, [&off]);
}

#[test]
fn what_is_told_as_effective_says_the_same_when_it_is_read() {
    let file = RelayFile::parse(&example("relay.toml"), "relay.toml", false).unwrap();
    let again = RelayFile::parse(&lines(file.effective()), "again", false).unwrap();
    assert_eq!((again.relay, again.services), (file.relay, file.services));
    let file = HostFile::parse(&example("host.toml"), "host.toml").unwrap();
    let again = HostFile::parse(&lines(file.effective()), "again").unwrap();
    assert_eq!((again.join, again.services), (file.join, file.services));
}

#[test]
fn the_examples_are_known_for_what_they_are() {
    assert_eq!(kind_of(&example("relay.toml")), Ok(FileKind::Relay));
    assert_eq!(kind_of(&example("host.toml")), Ok(FileKind::Host));
}
