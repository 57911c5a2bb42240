//! `docs/metrics.md`: its table is made from the table that the metrics are made of, its buckets from those of the relay. What stands around it is written by hand.
//!
//! To make it anew: `RELAYSERVER_UPDATE=1 cargo test -p relayserver-admin --test documentation`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use relayserver_admin::{METRICS, Metric};
use relayserver_relay::Waits;

fn table() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for Metric { name, kind, labels, meaning, .. } in METRICS {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        writeln!(table, "| `{name}` | {kind} | {labels} | {meaning} |").unwrap();
    }
    let bounds: Vec<String> =
        Waits::BOUNDS.iter().map(|bound| format!("`{}`", bound.as_secs_f64())).collect();
    let bounds = bounds.join(", ");
    writeln!(table, "\nBuckets (`le`) of `relayserver_queue_wait_seconds`: {bounds}, `+Inf`.")
        .unwrap();
    table
}

#[test]
fn the_documentation_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let found = fs::read_to_string(&path).unwrap();
    let (before, rest) = found.split_once("<!-- metrics -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let expected = format!("{before}<!-- metrics -->\n{}<!-- end -->{after}", table());
    if std::env::var_os("RELAYSERVER_UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
    } else {
        assert_eq!(found, expected, "docs/metrics.md is stale: see the head of this test");
    }
}
