//! Secrets: said in the file itself, or where to find them. Never shown.
//!
//! [`Secret::resolve`] is the one place of this crate that reads a variable or a file; whoever starts something calls it. What
//! looks like a secret is recognised here too, so that no excerpt and no message shows one that stands where none belongs.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::errors::Fault;
use crate::leaf::{Found, Leaf, toml_string};

/// The keys whose values are secrets, wherever they stand.
pub(crate) const SECRET_KEYS: &[&str] = &["join"];

/// How every join line begins.
const JOIN_LINE: &str = "relayserver://";

/// How every token begins.
const TOKEN: &str = "rls_";

/// The most that a file with a secret may hold, in bytes. A join line with several addresses and pins is below 1 KiB.
const FILE_MAX: u64 = 64 * 1024;

/// A secret, or where it is. `Debug` masks it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Origin);

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Literal(String),
    Env(String),
    File(PathBuf),
}

/// A secret that was found. `Debug` masks it.
#[derive(Clone, PartialEq, Eq)]
pub struct Resolved {
    value: String,
    warning: Option<SecretWarning>,
}

/// Something about a secret that its operator should know, and that stops nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SecretWarning {
    /// Everyone on this machine may read the file.
    #[error("{} can be read by every user of this machine; expected mode 0600, found {mode:04o}", path.display())]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its mode, the permission bits alone.
        mode: u32,
    },
}

/// Why a secret was not found. Names the variable or the file, and never what is in it.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable does not exist.
    #[error("the environment variable {name} is not set")]
    NotSet {
        /// The variable.
        name: String,
    },
    /// The file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// There is no text in it.
    #[error("{place} is empty: expected a secret")]
    Empty {
        /// The variable or the file.
        place: String,
    },
    /// It is not UTF-8.
    #[error("{place} is no text: expected a secret in UTF-8")]
    NotText {
        /// The variable or the file.
        place: String,
    },
    /// The file is far too long.
    #[error("{} exceeds {max} bytes: expected a secret", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        max: u64,
    },
}

impl Secret {
    /// The secret itself: from this text, from the environment, or from the file, without white space around it. A
    /// relative path starts at the working directory.
    ///
    /// # Errors
    /// Where the variable is not set, the file cannot be read, or neither has a text in it.
    pub fn resolve(&self) -> Result<Resolved, SecretError> {
        match &self.0 {
            Origin::Literal(value) => Ok(Resolved { value: value.clone(), warning: None }),
            Origin::Env(name) => {
                let place = || format!("the environment variable {name}");
                let value = std::env::var_os(name)
                    .ok_or_else(|| SecretError::NotSet { name: name.clone() })?;
                let value =
                    value.into_string().map_err(|_| SecretError::NotText { place: place() })?;
                Resolved::new(&value, None, place)
            }
            Origin::File(path) => from_file(path),
        }
    }

    fn parse(text: &str) -> Option<Secret> {
        let origin = if let Some(name) = text.strip_prefix("env:") {
            let is_name = !name.is_empty() && !name.contains(['=', '\0']);
            is_name.then(|| Origin::Env(name.to_owned()))
        } else if let Some(path) = text.strip_prefix("file:") {
            let is_path = !path.is_empty() && !path.contains('\0');
            is_path.then(|| Origin::File(path.into()))
        } else {
            text.starts_with(JOIN_LINE).then(|| Origin::Literal(text.to_owned()))
        };
        origin.map(Secret)
    }

    /// Where it is, as the file says it; the secret itself masked.
    fn shown(&self) -> String {
        match &self.0 {
            Origin::Literal(_) => "***".to_owned(),
            Origin::Env(name) => format!("env:{name}"),
            Origin::File(path) => format!("file:{}", path.display()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").field(&self.shown()).finish()
    }
}

impl Leaf for Secret {
    const EXPECTED: &'static str = "\"env:NAME\", \"file:PATH\" or a join line \"relayserver://…\"";

    fn read(found: &Found<'_>) -> Result<Secret, Vec<Fault>> {
        match found.value.as_str().map(Secret::parse) {
            Some(Some(secret)) => Ok(secret),
            // What was found may be a secret with a typo ahead of it.
            Some(None) => found.fault(format!("expected {}, found another text", Self::EXPECTED)),
            None => found.fault(format!("expected {}, found no text", Self::EXPECTED)),
        }
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.shown()))
    }

    fn placeholder() -> Secret {
        Secret(Origin::Literal(String::new()))
    }
}

impl Resolved {
    fn new(
        value: &str,
        warning: Option<SecretWarning>,
        place: impl FnOnce() -> String,
    ) -> Result<Resolved, SecretError> {
        match value.trim() {
            "" => Err(SecretError::Empty { place: place() }),
            value => Ok(Resolved { value: value.to_owned(), warning }),
        }
    }

    /// The secret itself. Whoever takes it sees to it that it is never shown.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// What the operator should know about where it was found.
    pub fn warning(&self) -> Option<&SecretWarning> {
        self.warning.as_ref()
    }
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").field("value", &"***").field("warning", &self.warning).finish()
    }
}

fn from_file(path: &Path) -> Result<Resolved, SecretError> {
    let unreadable = |error| SecretError::Unreadable { path: path.to_owned(), error };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let warning = warning(path, &file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(SecretError::TooLong { path: path.to_owned(), max: FILE_MAX });
    }
    let place = || path.display().to_string();
    let value = String::from_utf8(bytes).map_err(|_| SecretError::NotText { place: place() })?;
    Resolved::new(&value, warning, place)
}

#[cfg(unix)]
fn warning(path: &Path, file: &std::fs::File) -> io::Result<Option<SecretWarning>> {
    use std::os::unix::fs::PermissionsExt;

    const BY_OTHERS: u32 = 0o004;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    let readable = mode & BY_OTHERS != 0;
    Ok(readable.then(|| SecretWarning::ReadableByOthers { path: path.to_owned(), mode }))
}

#[cfg(not(unix))]
fn warning(_: &Path, _: &std::fs::File) -> io::Result<Option<SecretWarning>> {
    Ok(None)
}

/// Where in a text something begins that looks like a join line or a token.
pub(crate) fn start_of_secret(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let join_line = lower.find(JOIN_LINE).map(|start| start + JOIN_LINE.len());
    let token = lower.match_indices(TOKEN).find(|(start, _)| {
        let before = lower.get(..*start).and_then(|before| before.chars().next_back());
        !before.is_some_and(|char| char.is_alphanumeric() || char == '_')
    });
    let token = token.map(|(start, _)| start);
    [join_line, token].into_iter().flatten().min()
}
