//! Any text is read, or told what is wrong with it at places that lie within it; and what a file comes to says the same when it
//! is read again.
//!
//! Input: a file, as UTF-8; it is read as both.

#![no_main]

use libfuzzer_sys::fuzz_target;
use relayserver_config::{Effective, Errors, HostFile, RelayFile, kind_of};

fuzz_target!(|text: &str| {
    let _kind = kind_of(text);
    match RelayFile::parse(text, "relay.toml", true) {
        Ok(file) => {
            let again = RelayFile::parse(&lines(file.effective()), "again", true);
            let again = again.unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!((again.relay, again.services), (file.relay, file.services));
        }
        Err(errors) => check(text, &errors),
    }
    match HostFile::parse(text, "host.toml") {
        // What it comes to has its secret masked.
        Ok(file) => drop(lines(file.effective())),
        Err(errors) => check(text, &errors),
    }
});

fn lines(effective: &[Effective]) -> String {
    effective.iter().map(|value| format!("{value}\n")).collect()
}

fn check(text: &str, errors: &Errors) {
    let lines: Vec<_> = text.split('\n').collect();
    for error in errors.iter() {
        let columns = lines[error.line() - 1].chars().count() + 1;
        assert!((1..=columns).contains(&error.column()), "{error}");
    }
    assert!(!errors.to_string().is_empty());
}
