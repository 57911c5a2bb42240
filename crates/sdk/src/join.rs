//! The join line, as those who write servers see it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use relayserver_transport as transport;
use thiserror::Error;

/// The variable that [`Join::from_env`] reads.
const VARIABLE: &str = "RELAYSERVER_JOIN";

/// No line is longer than 4096 bytes; beyond this a file is something else.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// One string with all that a host needs: `relayserver://TOKEN@HOST:PORT/fp=PIN`, as `relayserver token create` prints it.
///
/// It is a secret: `Debug` shows the token's name and masks the rest.
///
/// ```
/// use relayserver::Join;
///
/// assert!("relayserver://".parse::<Join>().is_err());
/// ```
#[derive(Clone)]
pub struct Join(pub(crate) transport::Join);

/// There is no join line. Nothing of the line stands in it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The text is none. Says where it is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The variable is not set.
    #[error("RELAYSERVER_JOIN is not set")]
    NotSet,
    /// The file cannot be read.
    #[error("cannot read the join line in {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Join {
    /// The join line in the environment variable `RELAYSERVER_JOIN`.
    ///
    /// # Errors
    /// It is not set, or holds none.
    pub fn from_env() -> Result<Join, JoinError> {
        let line = std::env::var_os(VARIABLE).ok_or(JoinError::NotSet)?;
        let line = line.to_str().ok_or_else(|| JoinError::Invalid("not UTF-8".to_owned()))?;
        line.trim().parse()
    }

    /// The join line in a file, which holds it and white space around it at most. Blocks on the file.
    ///
    /// # Errors
    /// It cannot be read, or holds none.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Join, JoinError> {
        let path = path.as_ref();
        let failed = |source| JoinError::File { path: path.to_owned(), source };
        let read = || {
            use std::io::Read;
            let mut text = String::new();
            let file = std::fs::File::open(path)?;
            file.take(FILE_LEN_MAX).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(failed)?;
        text.trim()
            .parse()
            .map_err(|error: JoinError| JoinError::Invalid(format!("{}: {error}", path.display())))
    }

    /// Where the relay can be dialled, as `host:port`.
    pub fn addresses(&self) -> Vec<String> {
        self.0.addresses().iter().map(ToString::to_string).collect()
    }
}

impl FromStr for Join {
    type Err = JoinError;

    fn from_str(line: &str) -> Result<Join, JoinError> {
        line.parse()
            .map(Join)
            .map_err(|error: transport::InvalidJoin| JoinError::Invalid(error.to_string()))
    }
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
