//! `docs/reasons.md`: its table is made from the list of reasons, so that it cannot fall behind. What stands around it is written
//! by hand.
//!
//! To make it anew: `RELAYSERVER_UPDATE=1 cargo test -p relayserver-core --test documentation`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use relayserver_core::Reason;

fn table() -> String {
    let mut table = "| reason | meaning | what to do |\n|---|---|---|\n".to_owned();
    for reason in Reason::ALL {
        let (meaning, advice) = (reason.meaning(), reason.advice());
        writeln!(table, "| `{reason}` | {meaning} | {advice} |").unwrap();
    }
    table
}

#[test]
fn the_documentation_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reasons.md");
    let found = fs::read_to_string(&path).unwrap();
    let (before, rest) = found.split_once("<!-- reasons -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let expected = format!("{before}<!-- reasons -->\n{}<!-- end -->{after}", table());
    if std::env::var_os("RELAYSERVER_UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
    } else {
        assert_eq!(found, expected, "docs/reasons.md is stale: see the head of this test");
    }
}
