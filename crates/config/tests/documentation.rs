//! `docs/configuration.md`: its tables and examples are made from the tables of keys and from `testdata/`, so that they cannot fall
//! behind. What stands around them is written by hand.
//!
//! To make them anew: `RELAYSERVER_UPDATE=1 cargo test -p relayserver-config --test documentation`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use relayserver_config::{HostFile, Key, RelayFile, Shape};

/// The tables of keys below one, each with the keys that have values.
fn tables(name: &str, keys: &[Key], tables_markdown: &mut String) {
    let values: Vec<_> =
        keys.iter().filter(|key| matches!(key.shape, Shape::Value { .. })).collect();
    if !values.is_empty() {
        let title = if name.is_empty() {
            "At the top of the file".to_owned()
        } else {
            format!("`[{name}]`")
        };
        write!(
            tables_markdown,
            "### {title}\n\n| key | expected | default | meaning |\n|---|---|---|---|\n"
        )
        .unwrap();
        for key in values {
            tables_markdown.push_str(&row(key));
        }
        tables_markdown.push('\n');
    }
    for Key { name: inner, meaning, shape } in keys {
        if let Shape::Table(keys) = shape {
            let name =
                if name.is_empty() { (*inner).to_owned() } else { format!("{name}.{inner}") };
            let mut inner = String::new();
            tables(&name, keys, &mut inner);
            let (title, rest) = inner.split_once("\n\n").unwrap();
            // Only a table that has keys with values of its own is introduced.
            if title == format!("### `[{name}]`") {
                write!(tables_markdown, "{title}\n\n{meaning}\n\n{rest}").unwrap();
            } else {
                tables_markdown.push_str(&inner);
            }
        }
    }
}

fn row(key: &Key) -> String {
    let Key { name, meaning, shape: Shape::Value { expected, default, required } } = key else {
        panic!("{key:?} is no value");
    };
    let default = match default {
        Some(default) => format!("`{default}`"),
        None if *required => "required".to_owned(),
        None => "not set".to_owned(),
    };
    for text in [expected, meaning.as_str(), default.as_str()] {
        assert!(!text.contains('|'), "{text:?} would end its cell");
    }
    format!("| `{name}` | {expected} | {default} | {meaning} |\n")
}

/// What stands between the line `<!-- NAME -->` and the next `<!-- end -->`.
fn replace_block(text: &str, name: &str, content: &str) -> String {
    let begin = format!("<!-- {name} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    format!("{before}{begin}{content}<!-- end -->{after}")
}

#[test]
fn the_documentation_is_what_the_code_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../../docs/configuration.md");
    let found = fs::read_to_string(&path).unwrap();
    let mut expected = found.clone();
    for (file, keys) in [("relay.toml", RelayFile::keys()), ("host.toml", HostFile::keys())] {
        let example = fs::read_to_string(root.join("testdata").join(file)).unwrap();
        let example = format!("```toml\n{example}```\n");
        expected = replace_block(&expected, &format!("{file}: example"), &example);
        let mut markdown = String::new();
        tables("", &keys, &mut markdown);
        expected = replace_block(&expected, &format!("{file}: keys"), &markdown);
    }
    if std::env::var_os("RELAYSERVER_UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
    } else {
        assert_eq!(found, expected, "docs/configuration.md is stale: see the head of this test");
    }
}

#[test]
fn every_key_says_what_it_means() {
    fn check(keys: &[Key]) {
        for key in keys {
            assert!(key.meaning.ends_with('.'), "{key:?}");
            if let Shape::Table(keys) = &key.shape {
                check(keys);
            }
        }
    }
    check(&RelayFile::keys());
    check(&HostFile::keys());
}
