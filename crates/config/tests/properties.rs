//! What holds for any text: nothing panics, every place lies within the text, and no secret is ever shown.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use proptest::prelude::*;
use relayserver_config::{Errors, HostFile, RelayFile, kind_of};

/// What cannot be part of a key, a message or a place by chance.
const SECRET: &str = "hunter2";

/// Pieces that files are made of, right and wrong.
const PIECES: &[&str] = &[
    "[relay]",
    "[relay.v1]",
    "[relay.limits]",
    "[services.ssh]",
    "[services.",
    "[[services]]",
    "[",
    "]",
    "{",
    "}",
    "=",
    " = ",
    "\n",
    "\r\n",
    "\t",
    " ",
    ",",
    ".",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "#",
    "\\",
    "join",
    "listen",
    "lisen",
    "public",
    "tls",
    "cert",
    "key",
    "state_dir",
    "command",
    "allow",
    "service",
    "mixed",
    "clients",
    "hello_timeout",
    "queue",
    "depth",
    "wait",
    "forward",
    "exec",
    "echo",
    "pool",
    "min",
    "max",
    "ssh",
    "\"127.0.0.1:8000\"",
    "\"0.0.0.0:8000\"",
    "\"5s\"",
    "5",
    "-1",
    "0x",
    "true",
    "false",
    "1979-05-27",
    "inf",
    "ß",
    "\u{1f600}",
    "\u{0}",
    "\u{202e}",
    "[\"10.0.0.0/8\", 5]",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => proptest::sample::select(PIECES).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// A file with a join line in one of the ways that people write and miswrite it.
fn text_with_secret() -> impl Strategy<Value = String> {
    let line = format!("relayserver://rls_7f.{SECRET}@relay.example.com:8000/fp=abc");
    let key = proptest::sample::select(&["join", "jion", "Join", "\"join\"", "joins"][..]);
    let quotes = proptest::sample::select(
        &[
            ("\"", "\""),
            ("'", "'"),
            ("", ""),
            ("\"", ""),
            ("\"\"\"\n", "\n\"\"\""),
            ("[\"", "\"]"),
            ("{ a = \"", "\" }"),
        ][..],
    );
    let before = proptest::sample::select(
        &["", "# host\n", "x = 5\n", "join = 'file:/x'\n", "[services.a]\n"][..],
    );
    let after = "\n[services.ssh]\nforward = 22\npool = { min = 0 }\n";
    let text = (before, key, quotes).prop_map(move |(before, key, (open, close))| {
        format!("{before}{key} = {open}{line}{close}{after}")
    });
    // One slip anywhere: a character less, or one more.
    (text, any::<proptest::sample::Index>(), proptest::option::of(any::<char>())).prop_map(
        |(text, at, more)| {
            let mut chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            match more {
                Some(char) => chars.insert(at, char),
                None => drop(chars.remove(at)),
            }
            chars.into_iter().collect()
        },
    )
}

/// A relay.toml with nothing wrong in it.
fn right_text() -> impl Strategy<Value = String> {
    let lines = |lines: &'static [&'static str]| {
        proptest::sample::subsequence(lines, 0..=lines.len()).prop_map(|lines| lines.join("\n"))
    };
    let path = any::<String>().prop_filter_map("a path", |path| {
        let quoted = path.chars().map(|char| format!("\\U{:08X}", u32::from(char)));
        let right = !path.is_empty() && !path.contains('\0');
        right.then(|| format!("state_dir = \"{}\"", quoted.collect::<String>()))
    });
    let relay = lines(&[
        "listen = '[::]:80'",
        "public = '[::1]:1'",
        "tls = { key = 'k', cert = \"c\\\"\" }",
    ]);
    let v1 = lines(&[
        "command = '[::1]:81'",
        "allow = ['::/0', '10.1.2.3']",
        "service = 'a'",
        "mixed = true",
    ]);
    let limits = lines(&[
        "clients = 0x10",
        "channels = 1_000",
        "hello_timeout = '1500ms'",
        "drain_timeout = '0s'",
    ]);
    let service = lines(&["max_sessions = 2147483647", "queue.depth = 0", "queue.wait = '3600s'"]);
    (path, relay, v1, limits, service).prop_map(|(path, relay, v1, limits, service)| {
        format!(
            "[services]\ndefault.listen = '127.0.0.1:0'\n[services.a]\nlisten = '[::1]:0'\n{service}\n\
             [relay.v1]\n{v1}\n[relay]\n{path}\n{relay}\n[relay.limits]\n{limits}\n"
        )
    })
}

fn places_lie_within(text: &str, errors: &Errors) -> Result<(), TestCaseError> {
    let lines: Vec<_> = text.split('\n').collect();
    let mut last = (1, 1);
    for error in errors.iter() {
        let line = lines.get(error.line() - 1);
        prop_assert!(line.is_some(), "{error:?}");
        let length = line.map_or(0, |line| line.chars().count());
        prop_assert!((1..=length + 1).contains(&error.column()), "{error:?}");
        prop_assert!(last <= (error.line(), error.column()), "{errors}");
        last = (error.line(), error.column());
    }
    prop_assert!(errors.iter().next().is_some());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_told_what_is_wrong_with_it(text in text(), insecure in any::<bool>()) {
        if let Err(errors) = RelayFile::parse(&text, "f", insecure) {
            places_lie_within(&text, &errors)?;
        }
        if let Err(errors) = HostFile::parse(&text, "f") {
            places_lie_within(&text, &errors)?;
        }
        let _kind = kind_of(&text);
    }

    #[test]
    fn what_is_told_as_effective_says_the_same_when_it_is_read_again(text in right_text()) {
        let file = RelayFile::parse(&text, "f", true);
        let file = file.map_err(|errors| TestCaseError::fail(errors.to_string()))?;
        let lines: String = file.effective().iter().map(|value| format!("{value}\n")).collect();
        let again = RelayFile::parse(&lines, "f", true);
        let again = again.map_err(|errors| TestCaseError::fail(errors.to_string()))?;
        prop_assert_eq!((again.relay, again.services), (file.relay, file.services));
    }

    #[test]
    fn no_secret_is_ever_shown(text in text_with_secret()) {
        let shown = match HostFile::parse(&text, "f") {
            Ok(file) => format!("{file:?} {:?}", file.effective()),
            Err(errors) => format!("{errors} {errors:?}"),
        };
        prop_assert!(!shown.contains(SECRET), "{text}\n{shown}");
        let shown = match RelayFile::parse(&text, "f", true) {
            Ok(file) => format!("{file:?} {:?}", file.effective()),
            Err(errors) => format!("{errors} {errors:?}"),
        };
        prop_assert!(!shown.contains(SECRET), "{text}\n{shown}");
    }
}
