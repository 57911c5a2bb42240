//! Every value that a file comes to, and where each came from: what `relayserver check --effective` prints.

use std::fmt;

/// One key, its value, and where that came from.
///
/// Shown, it is a line of the file that would say the same: `relay.listen = "127.0.0.1:8000"  # default`. What is not set
/// is a comment, and a secret is masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The key with its tables: `services.ssh.queue.wait`.
    pub key: String,
    /// The value as the file would say it, a secret masked. `None` where nothing is set and there is no default.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file does not say.
    Default,
    /// A line of the file.
    Line {
        /// The file's name, as it was given.
        file: String,
        /// The line, from 1.
        line: usize,
    },
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}  # {}", self.key, self.origin),
            None => write!(f, "# {} is not set", self.key),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Line { file, line } => write!(f, "{file}:{line}"),
        }
    }
}
