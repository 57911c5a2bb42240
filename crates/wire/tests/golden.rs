//! The golden frames of `testdata/`: each is encoded and decoded to the byte, and each stands in `docs/wire.md`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use relayserver_wire::command::Announcement;
use relayserver_wire::frame::Decoder;
use relayserver_wire::hello::{
    Answer, AnswerV2, Capacity, Hello, HelloV2, MANY_SESSIONS, Refusal, Role, ServedService,
    Welcome,
};
use relayserver_wire::secret::{ChannelKey, Token};
use relayserver_wire::start::{Start, Verdict};
use relayserver_wire::{FRAME_MAX, HELLO_FRAME_MAX, HostId, SessionId};

const HOST_ID: HostId = HostId([
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
]);
const CHANNEL_KEY: [u8; 16] = [
    0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96, 0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f,
];
const SESSION_ID: SessionId = SessionId([
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10,
]);
const TOKEN: &str = "rls_example.c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I";

#[test]
fn hellos_are_the_golden_bytes() {
    let mut golden = Golden::read("hello");
    let with = |role, features| Some(HelloV2 { host_id: HOST_ID, role, features });
    let of = |role| with(role, vec![]);
    let command = Role::Command {
        token: Some(Token::new(TOKEN.to_owned())),
        services: vec!["default".to_owned(), "ssh".to_owned()],
        last_key: None,
        capacity: Capacity::default(),
    };
    let weighed = Role::Command {
        token: None,
        services: vec!["ssh".to_owned()],
        last_key: Some(ChannelKey::new(CHANNEL_KEY)),
        capacity: Capacity { weight: 300, sessions_max: Some(50) },
    };
    let channel_key = ChannelKey::new(CHANNEL_KEY);
    let data = Role::Data { channel_key, service: "ssh".to_owned() };
    for (name, v2) in [
        ("hello", None),
        ("hello-v2-command", of(command)),
        ("hello-v2-command-weighed", of(weighed)),
        ("hello-v2-data", of(data.clone())),
        ("hello-v2-data-many-sessions", with(data, vec![MANY_SESSIONS])),
        ("hello-v2-unknown-role", of(Role::Unknown(5))),
    ] {
        let hello = Hello { version: 1, v2 };
        let frame = golden.take(name);
        assert_eq!(hello.encode(), frame, "{name}");
        assert_eq!(Hello::decode(&payload(&frame)), Ok(hello), "{name}");
    }
    let from_later = golden.take("hello-unknown-fields");
    let hello = Hello { version: 1, v2: None };
    assert_eq!(Hello::decode(&payload(&from_later)), Ok(hello));

    golden.assert_all_taken();
}

#[test]
fn answers_are_the_golden_bytes() {
    let mut golden = Golden::read("answer");
    let to_command = AnswerV2::Welcome(Welcome {
        channel_key: Some(ChannelKey::new(CHANNEL_KEY)),
        services: vec![ServedService {
            name: "ssh".to_owned(),
            clients: Some("vps.example.com:8002".to_owned()),
        }],
        features: vec![],
        suspect_after_ms: Some(5000),
        gone_after_ms: Some(30_000),
    });
    let to_data = |features| {
        let welcome = Welcome { features, ..Welcome::default() };
        Some(AnswerV2::Welcome(welcome))
    };
    let refused = AnswerV2::Refused(Refusal {
        reason: "draining".to_owned(),
        detail: Some("the relay is leaving".to_owned()),
        retry_after_ms: Some(1000),
    });
    for (name, channel_id, relay_host, v2) in [
        ("answer", 1, "127.0.0.1", None),
        ("answer-highest-id", i32::MAX, "2001:db8::1", None),
        ("answer-negative-id", -1, "127.0.0.1", None),
        ("answer-v2-command", 0, "127.0.0.1", Some(to_command)),
        ("answer-v2-data", 1, "127.0.0.1", to_data(vec![])),
        ("answer-v2-data-many-sessions", 1, "127.0.0.1", to_data(vec![MANY_SESSIONS])),
        ("answer-v2-refused", 0, "127.0.0.1", Some(refused)),
    ] {
        let (relay_host, relay_port) = (relay_host.to_owned(), "8002".to_owned());
        let answer = Answer { channel_id, relay_host, relay_port, v2 };
        let frame = golden.take(name);
        assert_eq!(answer.encode(), frame, "{name}");
        assert_eq!(Answer::decode(&payload(&frame)), Ok(answer), "{name}");
    }
    golden.assert_all_taken();
}

#[test]
fn announcements_are_the_golden_bytes() {
    let mut golden = Golden::read("open");
    for word in ["drop", "command", "ping", "pong", "session", "leaving", "pool"] {
        golden.add(word);
    }
    let bounds = |service: &str, idle_min, idle_max| {
        let service = service.to_owned();
        Announcement::PoolBounds { service, idle_min, idle_max }
    };
    let session_ended = Announcement::SessionEnded {
        session_id: SESSION_ID,
        reason: "finished".to_owned(),
        bytes_to_host: 5,
        bytes_to_client: 300,
    };
    let leaving = |retry_after_ms| {
        let reason = "draining".to_owned();
        Announcement::Leaving { reason, retry_after_ms }
    };
    for (name, announcement) in [
        ("open", Announcement::Open { channel_id: 1 }),
        ("drop", Announcement::Drop { channel_id: 1 }),
        ("drop-two-byte-id", Announcement::Drop { channel_id: 300 }),
        ("command-unknown-type", Announcement::Unknown { message_type: 7 }),
        ("ping", Announcement::Ping { nonce: 7 }),
        ("pong-highest-nonce", Announcement::Pong { nonce: u64::MAX }),
        ("session-ended", session_ended),
        ("leaving", leaving(Some(1000))),
        ("leaving-host", leaving(None)),
        ("pool-wanted", Announcement::PoolWanted { service: "ssh".to_owned(), idle: 4 }),
        ("pool-bounds", bounds("ssh", 2, 300)),
        ("pool-bounds-none", bounds("ssh", 0, 0)),
        ("pool-surplus", Announcement::PoolSurplus { service: "ssh".to_owned(), idle: 3 }),
    ] {
        let frame = golden.take(name);
        assert_eq!(announcement.encode(), frame, "{name}");
        let decoded = Announcement::decode(&payload(&frame));
        assert_eq!(decoded, Ok(announcement), "{name}");
    }
    golden.assert_all_taken();
}

#[test]
fn starts_are_the_golden_bytes() {
    let mut golden = Golden::read("start");
    let of = |service: &str, client_addr: Option<&str>| Start {
        session_id: SESSION_ID,
        service: service.to_owned(),
        client_addr: client_addr.map(|addr| addr.parse().unwrap()),
        via: "tcp".to_owned(),
    };
    let start = of("ssh", Some("192.0.2.7:50000"));
    for (name, start) in [
        ("start", start.clone()),
        ("start-ipv6", of("default", Some("[2001:db8::1]:50000"))),
        ("start-unknown-address", of("ssh", None)),
    ] {
        let frame = golden.take(name);
        assert_eq!(start.encode(), frame, "{name}");
        assert_eq!(Start::decode(&payload(&frame)), Ok(start), "{name}");
    }
    let from_later = golden.take("start-unknown-fields");
    assert_eq!(Start::decode(&payload(&from_later)), Ok(start));

    golden.assert_all_taken();
}

#[test]
fn verdicts_are_the_golden_bytes() {
    let mut golden = Golden::read("verdict");
    let reason = Some("target_unreachable".to_owned());
    for (name, verdict) in [
        ("verdict-accepted", Verdict::Accepted),
        ("verdict-rejected", Verdict::Rejected { reason }),
        ("verdict-rejected-without-reason", Verdict::Rejected { reason: None }),
    ] {
        let frame = golden.take(name);
        assert_eq!(verdict.encode(), frame, "{name}");
        assert_eq!(Verdict::decode(&payload(&frame)), Ok(verdict), "{name}");
    }
    golden.assert_all_taken();
}

#[test]
fn every_file_is_tested() {
    for name in bodies().keys() {
        let first_word = name.split('-').next().unwrap();
        assert!(TESTED.contains(&first_word), "no test takes {name}.hex");
    }
}

#[test]
fn golden_frames_stand_in_the_description_and_no_others() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/wire.md");
    let description = fs::read_to_string(path).expect("docs/wire.md");
    let described: Vec<&str> = description
        .split("```hex\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    let bodies = bodies();
    for (name, body) in &bodies {
        let count = described.iter().filter(|block| *block == body).count();
        assert_eq!(count, 1, "{name}.hex in docs/wire.md");
    }
    for block in described {
        let golden = bodies.values().any(|body| body == block);
        assert!(golden, "not in testdata/:\n{block}");
    }
}

/// The first words of the names that the tests above take.
const TESTED: &[&str] = &[
    "hello", "answer", "open", "drop", "command", "ping", "pong", "session", "leaving", "pool",
    "start", "verdict",
];

/// Golden frames by name, of which a test takes each once.
struct Golden(BTreeMap<String, Vec<u8>>);

impl Golden {
    /// Those whose name is or begins with `word`.
    fn read(word: &str) -> Golden {
        let mut golden = Golden(BTreeMap::new());
        golden.add(word);
        golden
    }

    fn add(&mut self, word: &str) {
        let named = bodies().into_iter().filter(|(name, _)| {
            let rest = name.strip_prefix(word);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        self.0.extend(named.map(|(name, body)| (name, bytes(&body))));
    }

    fn take(&mut self, name: &str) -> Vec<u8> {
        self.0.remove(name).unwrap_or_else(|| panic!("{name}.hex"))
    }

    fn assert_all_taken(self) {
        assert!(self.0.is_empty(), "not tested: {:?}", self.0.keys());
    }
}

/// What follows the heading of each file, by the file's name.
fn bodies() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut bodies = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("testdata/") {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let (_heading, body) = text.split_once("\n\n").expect("a heading and a body");
        bodies.insert(name, body.to_owned());
    }
    assert!(!bodies.is_empty());
    bodies
}

fn bytes(body: &str) -> Vec<u8> {
    body.lines()
        .map(|line| line.split('#').next().unwrap())
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits"))
        .collect()
}

/// The payload of a frame that is whole, alone, and short enough for a peer that has not authenticated itself.
fn payload(frame: &[u8]) -> Vec<u8> {
    const { assert!(HELLO_FRAME_MAX <= FRAME_MAX) };
    let mut input = frame;
    let payload = Decoder::new(HELLO_FRAME_MAX).next(&mut input);
    assert_eq!(input, b"", "bytes behind the frame");
    payload.unwrap().expect("a whole frame")
}
