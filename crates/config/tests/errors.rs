//! What is said about files that are wrong: the whole text, kept beside each file under `testdata/errors`.
//!
//! `relay-….toml` is read as relay.toml, `host-….toml` as host.toml. To write the texts anew:
//! `RELAYSERVER_UPDATE=1 cargo test -p relayserver-config --test errors`, and then read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use relayserver_config::{Errors, HostFile, RelayFile};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/errors")
}

fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(testdata()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn errors(path: &Path) -> Errors {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    if name.starts_with("relay-") {
        RelayFile::parse(&text, "relay.toml", false).expect_err(name)
    } else {
        HostFile::parse(&text, "host.toml").expect_err(name)
    }
}

#[test]
fn each_error_is_told_with_its_place_what_was_expected_and_what_was_found() {
    let files = files();
    assert!(files.len() > 10, "{files:?}");
    for path in files {
        let told = format!("{}\n", errors(&path));
        let golden = path.with_extension("txt");
        if std::env::var_os("RELAYSERVER_UPDATE").is_some() {
            fs::write(&golden, &told).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(told, expected, "{}", path.display());
    }
}

#[test]
fn errors_come_in_the_order_of_the_file() {
    for path in files() {
        let errors = errors(&path);
        let places: Vec<_> = errors.iter().map(|error| (error.line(), error.column())).collect();
        assert!(places.is_sorted(), "{}: {places:?}", path.display());
    }
}

#[test]
fn what_only_the_operators_word_allows_is_right_with_it() {
    let text = fs::read_to_string(testdata().join("relay-open.toml")).unwrap();
    let errors = RelayFile::parse(&text, "relay.toml", true).unwrap_err();
    let messages: Vec<_> = errors.iter().map(|error| error.message()).collect();
    assert_eq!(messages, ["`hello_timeout` in [relay.limits]: expected more than 0, found \"0s\""]);
    let text = text.replace("0s", "1s");
    RelayFile::parse(&text, "relay.toml", true).unwrap();
}
