//! The golden frames of `testdata/`: each is encoded and decoded to the byte, and each stands in `docs/wire.md`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use relayserver_wire::command::Announcement;
use relayserver_wire::frame::Decoder;
use relayserver_wire::hello::{Answer, Hello};
use relayserver_wire::{FRAME_MAX, HELLO_FRAME_MAX};

#[test]
fn hellos_are_the_golden_bytes() {
    let mut golden = Golden::read("hello");
    let hello = Hello { version: 1 };

    let frame = golden.take("hello");
    assert_eq!(hello.encode(), frame);
    assert_eq!(Hello::decode(&payload(&frame)), Ok(hello.clone()));

    let from_later = golden.take("hello-unknown-fields");
    assert_eq!(Hello::decode(&payload(&from_later)), Ok(hello));

    golden.assert_all_taken();
}

#[test]
fn answers_are_the_golden_bytes() {
    let mut golden = Golden::read("answer");
    for (name, channel_id, relay_host) in [
        ("answer", 1, "127.0.0.1"),
        ("answer-highest-id", i32::MAX, "2001:db8::1"),
        ("answer-negative-id", -1, "127.0.0.1"),
    ] {
        let answer =
            Answer { channel_id, relay_host: relay_host.to_owned(), relay_port: "8002".to_owned() };
        let frame = golden.take(name);
        assert_eq!(answer.encode(), frame, "{name}");
        assert_eq!(Answer::decode(&payload(&frame)), Ok(answer), "{name}");
    }
    golden.assert_all_taken();
}

#[test]
fn announcements_are_the_golden_bytes() {
    let mut golden = Golden::read("open");
    golden.add("drop");
    golden.add("command");
    for (name, announcement) in [
        ("open", Announcement::Open { channel_id: 1 }),
        ("drop", Announcement::Drop { channel_id: 1 }),
        ("drop-two-byte-id", Announcement::Drop { channel_id: 300 }),
        ("command-unknown-type", Announcement::Unknown { message_type: 7 }),
    ] {
        let frame = golden.take(name);
        assert_eq!(announcement.encode(), frame, "{name}");
        let decoded = Announcement::decode(&payload(&frame));
        assert_eq!(decoded, Ok(announcement), "{name}");
    }
    golden.assert_all_taken();
}

#[test]
fn every_file_is_tested() {
    for name in bodies().keys() {
        let first_word = name.split('-').next().unwrap();
        let tested = ["hello", "answer", "open", "drop", "command"];
        assert!(tested.contains(&first_word), "no test takes {name}.hex");
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
