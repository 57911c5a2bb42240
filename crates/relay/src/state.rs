//! The state directory: what must outlive a relay. Its key and certificate, its tokens, and its first join line until a host has used
//! it.
//!
//! The relay reads it, and the command changes it, whether a relay runs or not: each change is made under a lock, written whole
//! beside what it replaces, and renamed. Nothing in here is ever shown but names, dates and pins.

mod identity;
mod token_file;
mod token_source;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use relayserver_transport::{TlsError, TokenError};
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

pub use token_file::{TokenEntry, TokenTerms};
pub use token_source::TokenSource;

/// The name of the token that a relay makes on its first start.
pub const FIRST_TOKEN: &str = "first";

/// The most that a file of the state directory may hold, in bytes: some 50,000 tokens.
const FILE_MAX: u64 = 16 << 20;

const LOCK: &str = "lock";
const FIRST_JOIN: &str = "first-join";

/// A state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// What is wrong with a state directory, or cannot be done in it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file, or the directory itself, cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could change what is in it.
    #[error(
        "{} can be written by others (mode {mode:03o}): make it 0700, or name another with --state-dir",
        path.display()
    )]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
        /// Its mode, the permission bits alone.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What was expected.
        detail: String,
    },
    /// A token of that name has been made before.
    #[error("there is a token {0:?} already, or was; its name is not used again: choose another")]
    TokenExists(String),
    /// There is no such token.
    #[error("there is no token {name:?}; there is {}", listed(known))]
    NoSuchToken {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A token cannot be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The key and the certificate cannot be used or made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A token was made and is of no use: it was not stored.
    #[error("{0}")]
    Useless(String),
    /// There is no such directory.
    #[error("{}: there is no state directory; a relay makes it on its first start", .0.display())]
    Missing(PathBuf),
    /// There is no key to change to.
    #[error("there is no next key: make it first, with `relayserver key next`")]
    NoNextKey,
}

impl StateDir {
    /// Opens the directory at `path`, and makes it, for its owner alone, where there is none.
    ///
    /// # Errors
    /// It cannot be made, is no directory, or can be written by others.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        let failed = |source| StateError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let metadata = fs::metadata(path).map_err(failed)?;
        let mode = metadata.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(StateError::WritableByOthers { path: path.to_owned(), mode });
        }
        Ok(StateDir { path: path.to_owned() })
    }

    /// Opens the directory at `path`, which must be there.
    ///
    /// # Errors
    /// As [`open`](StateDir::open), and where there is none.
    pub fn existing(path: &Path) -> Result<StateDir, StateError> {
        if path.is_dir() { StateDir::open(path) } else { Err(StateError::Missing(path.to_owned())) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the first join line stands until a host has used it.
    pub fn first_join_path(&self) -> PathBuf {
        self.path.join(FIRST_JOIN)
    }

    /// Puts the first join line down.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_first_join(&self, line: &str) -> Result<(), StateError> {
        self.write(FIRST_JOIN, format!("{line}\n").as_bytes())
    }

    /// The first join line, where it has been put down and nobody has used it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn first_join(&self) -> Result<Option<String>, StateError> {
        let Some(bytes) = self.read(FIRST_JOIN)? else {
            return Ok(None);
        };
        let line = String::from_utf8(bytes);
        let line = line.map_err(|_| self.damaged(FIRST_JOIN, "expected a join line"))?;
        Ok(Some(line.trim().to_owned()))
    }

    /// Takes the first join line away, once it was shown or used.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove_first_join(&self) -> Result<(), StateError> {
        let path = self.first_join_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| StateError::Io { path, source }),
        }
    }

    /// Keeps others from changing anything until the file is dropped. Blocks while another does.
    fn lock(&self) -> Result<File, StateError> {
        let path = self.path.join(LOCK);
        let open = || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        open().map_err(|source| StateError::Io { path: path.clone(), source })
    }

    /// What a file holds; `None` where there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(name);
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }

    /// Writes a file whole, or not at all: beside its place, through to the disk, and renamed.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let (path, beside) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        let write = || {
            // Left behind by one that did not get to the end; the lock says that nobody is at it.
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file =
                OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| StateError::Io { path: path.clone(), source })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StateError> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        let rename = || fs::rename(&from, to).and_then(|()| File::open(&self.path)?.sync_all());
        rename().map_err(|source| StateError::Io { path: from.clone(), source })
    }

    fn damaged(&self, name: &str, detail: impl Into<String>) -> StateError {
        StateError::Damaged { path: self.path.join(name), detail: detail.into() }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
