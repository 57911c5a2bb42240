//! `tokens.json`: what is kept of each token. Its secret is not: only a digest of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relayserver_core::{Role, ServicePattern};
use relayserver_transport::Token;
use serde_json::{Map, Value, json};

use super::{StateDir, StateError};
use crate::grants::{TokenRecord, Tokens};

const FILE: &str = "tokens.json";

/// The version of the file's form.
const FORMAT: u64 = 1;

/// What a token is to be for.
#[derive(Clone, Debug)]
pub struct TokenTerms {
    /// Whom it is for.
    pub role: Role,
    /// The services that it covers.
    pub services: Vec<ServicePattern>,
    /// From when on it is void.
    pub expires: Option<SystemTime>,
}

/// A token, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEntry {
    /// Its id.
    pub name: String,
    /// What it is for, and the digest of its secret.
    pub record: TokenRecord,
    /// When it was made.
    pub created: SystemTime,
}

impl StateDir {
    /// Every token, those that are void among them, in the order of their making.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn tokens(&self) -> Result<Vec<TokenEntry>, StateError> {
        match self.read(FILE)? {
            None => Ok(Vec::new()),
            Some(bytes) => parse(&bytes).map_err(|detail| self.damaged(FILE, detail)),
        }
    }

    /// Whether a token has ever been made here.
    ///
    /// # Errors
    /// As [`tokens`](StateDir::tokens).
    pub fn has_tokens(&self) -> Result<bool, StateError> {
        Ok(self.read(FILE)?.is_some())
    }

    /// Makes a token, and stores it once `keep` has made something of it that can be used, as a join line. A name is used once: one
    /// that was revoked does not come back as another.
    ///
    /// # Errors
    /// The name is none, or has been used; `keep` failed; or the file cannot be changed.
    pub fn create_token<T>(
        &self,
        name: &str,
        terms: TokenTerms,
        keep: impl FnOnce(Token) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let token = Token::generate(name)?;
        let TokenTerms { role, services, expires } = terms;
        let record = TokenRecord {
            secret_hash: token.secret_hash(),
            role,
            services,
            expires,
            revoked: false,
        };
        let _locked = self.lock()?;
        let mut entries = self.tokens()?;
        if entries.iter().any(|entry| entry.name == name) {
            return Err(StateError::TokenExists(name.to_owned()));
        }
        entries.push(TokenEntry { name: name.to_owned(), record, created: SystemTime::now() });
        // What is stored and was never told to anybody would be in the way for ever.
        let kept = keep(token)?;
        self.write(FILE, &written(&entries))?;
        Ok(kept)
    }

    /// Takes a token back. One that was taken back stays so.
    ///
    /// # Errors
    /// There is none of that name, or the file cannot be changed.
    pub fn revoke_token(&self, name: &str) -> Result<(), StateError> {
        let _locked = self.lock()?;
        let mut entries = self.tokens()?;
        let known = entries.iter().map(|entry| entry.name.clone()).collect();
        let Some(entry) = entries.iter_mut().find(|entry| entry.name == name) else {
            return Err(StateError::NoSuchToken { name: name.to_owned(), known });
        };
        entry.record.revoked = true;
        self.write(FILE, &written(&entries))
    }
}

/// The tokens of the file, for a relay.
pub(super) fn for_relay(entries: Vec<TokenEntry>) -> Tokens {
    let mut tokens = Tokens::new();
    for TokenEntry { name, record, .. } in entries {
        tokens.insert(&name, record);
    }
    tokens
}

fn written(entries: &[TokenEntry]) -> Vec<u8> {
    let tokens: Vec<Value> = entries.iter().map(entry_to_json).collect();
    let mut text = format!("{:#}", json!({ "format": FORMAT, "tokens": tokens }));
    text.push('\n');
    text.into_bytes()
}

fn entry_to_json(TokenEntry { name, record, created }: &TokenEntry) -> Value {
    let services: Vec<String> = record.services.iter().map(ToString::to_string).collect();
    json!({
        "name": name,
        "sha256": hex(&record.secret_hash),
        "role": match record.role { Role::Host => "host", Role::Client => "client" },
        "services": services,
        "created": seconds(*created),
        "expires": record.expires.map(|expires| seconds(expires + Duration::from_millis(999))),
        "revoked": record.revoked,
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<TokenEntry>, String> {
    // What the library says of a place is about lines and columns; it never quotes.
    let file: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match file.get("format").and_then(Value::as_u64) {
        Some(FORMAT) => {}
        found => return Err(format!("expected format {FORMAT}, found {found:?}")),
    }
    let tokens = file.get("tokens").and_then(Value::as_array).ok_or("expected a list `tokens`")?;
    let read = tokens.iter().zip(1..).map(|(token, number)| {
        token
            .as_object()
            .and_then(entry_from_json)
            .ok_or_else(|| format!("token {number} is not of the form that tokens have"))
    });
    read.collect()
}

fn entry_from_json(token: &Map<String, Value>) -> Option<TokenEntry> {
    let text = |key: &str| token.get(key)?.as_str();
    let time = |value: &Value| UNIX_EPOCH.checked_add(Duration::from_secs(value.as_u64()?));
    let services = token.get("services")?.as_array()?.iter();
    let expires = match token.get("expires")? {
        Value::Null => None,
        value => Some(time(value)?),
    };
    let record = TokenRecord {
        secret_hash: unhex(text("sha256")?)?,
        role: match text("role")? {
            "host" => Role::Host,
            "client" => Role::Client,
            _ => return None,
        },
        services: services.map(|it| it.as_str()?.parse().ok()).collect::<Option<_>>()?,
        expires,
        revoked: token.get("revoked")?.as_bool()?,
    };
    let created = time(token.get("created")?)?;
    Some(TokenEntry { name: text("name")?.to_owned(), record, created })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    let pairs = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte * 16 + digit));
    let bytes: Vec<u8> = pairs.map(u8::try_from).collect::<Result<_, _>>().ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("deep/state")).unwrap();
        (folder, state)
    }

    fn terms() -> TokenTerms {
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(4_000_000_000));
        let services = vec!["ssh".parse().unwrap(), "web-*".parse().unwrap()];
        TokenTerms { role: Role::Host, services, expires }
    }

    #[test]
    fn tokens_read_back_as_they_were_made_without_their_secrets() {
        let (_folder, state) = state();
        assert!(!state.has_tokens().unwrap());
        let token = state.create_token("laptop", terms(), Ok).unwrap();
        let other = TokenTerms { role: Role::Client, expires: None, ..terms() };
        state.create_token("phone", other, Ok).unwrap();
        state.revoke_token("phone").unwrap();
        let entries = state.tokens().unwrap();
        let names: Vec<&str> = entries.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["laptop", "phone"]);
        let TokenRecord { secret_hash, role, services, expires, revoked } = &entries[0].record;
        assert!(token.is_of_hash(secret_hash));
        assert_eq!((*role, *revoked, *expires), (Role::Host, false, terms().expires));
        assert_eq!(*services, terms().services);
        assert!(entries[1].record.revoked && entries[1].record.role == Role::Client);
        let text = String::from_utf8(state.read(FILE).unwrap().unwrap()).unwrap();
        let secret = token.expose();
        let (_, secret) = secret.split_once('.').unwrap();
        assert!(!text.contains(secret), "{text}");
    }

    #[test]
    fn a_name_is_used_once_and_an_unknown_one_is_told_with_those_there_are() {
        let (_folder, state) = state();
        state.create_token("laptop", terms(), Ok).unwrap();
        state.revoke_token("laptop").unwrap();
        let again = state.create_token("laptop", terms(), Ok).unwrap_err();
        assert!(matches!(again, StateError::TokenExists(_)), "{again}");
        let useless = |_: Token| Err::<(), _>(StateError::Useless("no address".to_owned()));
        assert!(state.create_token("phone", terms(), useless).is_err());
        assert!(state.create_token("phone", terms(), Ok).is_ok(), "the name was not used up");
        let unknown = state.revoke_token("latpop").unwrap_err().to_string();
        assert_eq!(unknown, "there is no token \"latpop\"; there is laptop, phone");
        assert!(matches!(state.create_token("a b", terms(), Ok), Err(StateError::Token(_))));
    }

    #[test]
    fn many_changes_at_once_are_all_made() {
        let (_folder, state) = state();
        std::thread::scope(|scope| {
            for number in 0..16 {
                let state = &state;
                scope
                    .spawn(move || state.create_token(&format!("t{number}"), terms(), Ok).unwrap());
            }
        });
        assert_eq!(state.tokens().unwrap().len(), 16);
    }

    #[test]
    fn everything_is_its_owners_alone() {
        let (_folder, state) = state();
        state.create_token("laptop", terms(), Ok).unwrap();
        state.identity(&[]).unwrap();
        state.next_pin(&[]).unwrap();
        state.switch_key().unwrap();
        state.write_first_join("line").unwrap();
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path()), 0o700);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(state.path()).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
        names.sort();
        let expected = [
            "certificate.old.pem",
            "certificate.pem",
            "first-join",
            "key.old.pem",
            "key.pem",
            "lock",
            "tokens.json",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o770);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let refused = StateDir::open(folder.path()).unwrap_err();
        assert!(matches!(refused, StateError::WritableByOthers { mode: 0o770, .. }), "{refused}");
    }

    #[test]
    fn what_is_damaged_is_said_and_never_written_over() {
        let (_folder, state) = state();
        for text in [
            "",
            "{}",
            "[]",
            r#"{"format": 2, "tokens": []}"#,
            r#"{"format": 1}"#,
            r#"{"format": 1, "tokens": [{}]}"#,
            r#"{"format": 1, "tokens": [{"name": "a"}]}"#,
        ] {
            state.write(FILE, text.as_bytes()).unwrap();
            for outcome in [
                state.tokens().map(drop),
                state.create_token("a", terms(), Ok).map(drop),
                state.revoke_token("a"),
            ] {
                assert!(matches!(outcome, Err(StateError::Damaged { .. })), "{text}");
            }
            assert_eq!(state.read(FILE).unwrap().unwrap(), text.as_bytes());
        }
    }
}
