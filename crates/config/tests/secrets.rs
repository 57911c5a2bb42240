//! Secrets: where they are found, and that they are never shown.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;

use relayserver_config::{HostFile, Secret, SecretError, SecretWarning};

const LINE: &str = "relayserver://rls_7f.hunter2-hunter2@relay.example.com:8000/fp=abc";

fn join(text: &str) -> Secret {
    HostFile::parse(&format!("join = '{text}'"), "host.toml").unwrap().join.unwrap()
}

#[test]
fn a_join_line_in_the_file_is_itself_and_is_never_shown() {
    let file = HostFile::parse(&format!("join = '{LINE}'"), "host.toml").unwrap();
    let resolved = file.join.as_ref().unwrap().resolve().unwrap();
    assert_eq!((resolved.expose(), resolved.warning()), (LINE, None));
    assert!(!format!("{file:?} {resolved:?}").contains("hunter2"), "{file:?} {resolved:?}");
    let told: Vec<_> = file.effective().iter().map(ToString::to_string).collect();
    assert_eq!(told.first().map(String::as_str), Some("join = \"***\"  # host.toml:1"));
}

#[test]
fn a_variable_is_looked_up_when_asked_for() {
    let found = join("env:CARGO_PKG_NAME").resolve().unwrap();
    assert_eq!(found.expose(), "relayserver-config");
    let error = join("env:RELAYSERVER_NO_SUCH_VARIABLE").resolve().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the environment variable RELAYSERVER_NO_SUCH_VARIABLE is not set"
    );
}

#[test]
fn a_file_is_read_when_asked_for_and_without_white_space_around() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("join");
    let secret = join(&format!("file:{}", path.display()));
    let error = secret.resolve().unwrap_err();
    assert!(matches!(error, SecretError::Unreadable { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("{} cannot be read: ", path.display())));
    fs::write(&path, format!("\n  {LINE}\n")).unwrap();
    assert_eq!(secret.resolve().unwrap().expose(), LINE);
}

#[test]
fn errors_name_the_file_and_never_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("join");
    let secret = join(&format!("file:{}", path.display()));
    let shown = path.display();
    for (content, expected) in [
        (b" \n".to_vec(), format!("{shown} is empty: expected a secret")),
        (b"hunter2\xff".to_vec(), format!("{shown} is no text: expected a secret in UTF-8")),
        (b"hunter2".repeat(10_000), format!("{shown} exceeds 65536 bytes: expected a secret")),
    ] {
        fs::write(&path, content).unwrap();
        let error = secret.resolve().unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_warned_of_and_no_error() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("join");
    fs::write(&path, LINE).unwrap();
    let secret = join(&format!("file:{}", path.display()));
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let resolved = secret.resolve().unwrap();
        assert_eq!(resolved.expose(), LINE);
        let warning = SecretWarning::ReadableByOthers { path: path.clone(), mode };
        assert_eq!(resolved.warning(), warned.then_some(&warning));
        let expected = format!(
            "{} can be read by every user of this machine; expected mode 0600, found {mode:04o}",
            path.display()
        );
        assert_eq!(warning.to_string(), expected);
    }
}
