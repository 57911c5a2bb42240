//! Which of the two files a text is, for whoever is given a file and not told.

use thiserror::Error;
use toml::de::{DeTable, DeValue};

use crate::source::Source;
use crate::syntax;

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// What a relay is told: `relay.toml`.
    Relay,
    /// What a host is told: `host.toml`.
    Host,
}

/// A text that is neither of the files, or both at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnknownKind {
    /// Nothing in it belongs to one of them.
    #[error(
        "neither relay.toml nor host.toml: expected [relay] or a service with `listen` (relay.toml), \
         or `join` or a service with `forward`, `exec` or `echo` (host.toml)"
    )]
    Neither,
    /// Something in it belongs to the one and something to the other.
    #[error(
        "relay.toml and host.toml in one: found [relay] or a service with `listen` (relay.toml) \
         beside `join` or a service with `forward`, `exec` or `echo` (host.toml)"
    )]
    Both,
}

/// Tells which file a text is, by the keys that only one of them has. What is wrong with it otherwise is not looked at.
///
/// # Errors
/// Where it has none of those keys, or keys of both.
pub fn kind_of(text: &str) -> Result<FileKind, UnknownKind> {
    let (text, _) = syntax::read(&Source::new(text, ""));
    let (root, _) = DeTable::parse_recoverable(&text);
    let root = root.get_ref();
    let services = root.get("services").and_then(|services| services.get_ref().as_table());
    let services: Vec<_> = services
        .into_iter()
        .flat_map(|services| services.iter())
        .filter_map(|(_, service)| service.get_ref().as_table())
        .collect();
    let has = |name: &str| services.iter().any(|service| service.contains_key(name));
    let relay = root.get("relay").is_some_and(|relay| matches!(relay.get_ref(), DeValue::Table(_)));
    let relay = relay || has("listen");
    let host = root.contains_key("join") || ["forward", "exec", "echo"].into_iter().any(has);
    match (relay, host) {
        (true, false) => Ok(FileKind::Relay),
        (false, true) => Ok(FileKind::Host),
        (false, false) => Err(UnknownKind::Neither),
        (true, true) => Err(UnknownKind::Both),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_the_keys_that_only_one_has() {
        for (text, kind) in [
            ("[relay]", Ok(FileKind::Relay)),
            ("relay.listen = 5", Ok(FileKind::Relay)),
            ("[services.a]\nlisten = ''", Ok(FileKind::Relay)),
            ("join = ''", Ok(FileKind::Host)),
            ("[services.a]\nforward = 22", Ok(FileKind::Host)),
            ("[services.a]\nexec = []", Ok(FileKind::Host)),
            ("[services.a]\necho = true", Ok(FileKind::Host)),
            ("???\n[services.a]\necho = true", Ok(FileKind::Host)),
            ("", Err(UnknownKind::Neither)),
            ("relay = 5", Err(UnknownKind::Neither)),
            ("[services.a]", Err(UnknownKind::Neither)),
            ("services = 5", Err(UnknownKind::Neither)),
            ("[[services]]\nlisten = ''", Err(UnknownKind::Neither)),
            ("join = ''\n[relay]", Err(UnknownKind::Both)),
            ("[services.a]\nlisten = ''\nforward = 22", Err(UnknownKind::Both)),
        ] {
            assert_eq!(kind_of(text), kind, "{text}");
        }
    }
}
