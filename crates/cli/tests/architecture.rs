//! Which crate may use which: the arrows of ARCHITECTURE.md, read from what cargo itself resolves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const SDK: &str = "relayserver";
const CORE: &str = "relayserver-core";
const CLI: &str = "relayserver-cli";
const CONFIG: &str = "relayserver-config";
const INNER: [&str; 4] = [CORE, "relayserver-wire", "relayserver-transport", "relayserver-splice"];

/// The crates of the workspace that `name` may use in what it builds. `None` for a crate that nobody has thought about.
fn allowed(name: &str) -> Option<Vec<&'static str>> {
    match name {
        name if INNER.contains(&name) || name == CONFIG => Some(Vec::new()),
        "relayserver-relay" | SDK => Some(INNER.to_vec()),
        "relayserver-admin" => Some(vec!["relayserver-relay"]),
        // The whole, in one process.
        "relayserver-simulation" => Some(vec!["relayserver-relay", "relayserver-transport", SDK]),
        "relayserver-testing" => Some(vec!["relayserver-relay", "relayserver-transport", SDK]),
        CLI => {
            Some([&INNER[..], &["relayserver-relay", SDK, "relayserver-admin", CONFIG]].concat())
        }
        _ => None,
    }
}

/// What its tests may use besides: [`SDK`]'s are run against the real relay.
fn allowed_in_tests(name: &str) -> Vec<&'static str> {
    match name {
        SDK | CLI | "relayserver-relay" => vec!["relayserver-testing"],
        _ => Vec::new(),
    }
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .arg("--locked")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// Each package of the workspace with its dependencies: name and kind.
fn packages() -> BTreeMap<String, Vec<(String, String)>> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap().iter().map(|dependency| {
            let kind = dependency["kind"].as_str().unwrap_or("normal").to_owned();
            (text(&dependency["name"]), kind)
        });
        (text(&package["name"]), dependencies.collect())
    });
    packages.collect()
}

/// The names of all packages in what is built of `package` without features, itself left out.
fn tree(package: &str) -> BTreeSet<String> {
    let args = ["tree", "-p", package, "-e", "normal", "--no-default-features", "--prefix", "none"];
    let names = cargo(&args);
    let names = names.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != package).map(str::to_owned).collect()
}

#[test]
fn no_crate_uses_one_that_it_must_not_know() {
    let packages = packages();
    assert!(packages.contains_key(CLI) && packages.contains_key(SDK), "{packages:?}");
    for (name, dependencies) in &packages {
        let Some(mut may_use) = allowed(name) else {
            panic!("{name} is new: say here and in ARCHITECTURE.md what it may use");
        };
        for (used, kind) in dependencies.iter().filter(|(used, _)| packages.contains_key(used)) {
            if kind == "dev" {
                may_use.extend(allowed_in_tests(name));
            }
            assert!(may_use.contains(&used.as_str()), "{name} must not use {used} ({kind})");
        }
    }
}

#[test]
fn core_depends_on_nothing_at_all() {
    let packages = packages();
    let built: Vec<_> = packages[CORE].iter().filter(|(_, kind)| kind != "dev").collect();
    assert!(built.is_empty(), "{built:?}");
    assert_eq!(tree(CORE), BTreeSet::new());
}

#[test]
fn the_sdk_without_features_has_no_tls_axum_or_clap_in_its_tree() {
    let tree = tree(SDK);
    assert!(tree.contains("tokio") && tree.contains(CORE), "not the tree of the SDK: {tree:?}");
    let heavy =
        ["rustls", "tokio-rustls", "native-tls", "openssl", "openssl-sys", "aws-lc-rs", "ring"];
    let heavy = heavy.iter().chain(&["axum", "axum-core", "hyper", "clap", "clap_builder"]);
    let found: Vec<_> = heavy.filter(|name| tree.contains(**name)).collect();
    assert!(found.is_empty(), "{found:?}");
}
