//! What is wrong with a file: all of it, in the order of the file. Made by the reader; shown by whoever was asked to read the
//! file. Holds no text of the file but what may be shown.

use std::fmt;
use std::ops::Range;

use crate::source::Source;

/// Everything that is wrong with one file, in the order of the file. Never empty.
///
/// Shown, it is one error after the other, in plain text and without colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<ConfigError>);

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: String,
    line: usize,
    column: usize,
    message: String,
    excerpt: String,
}

/// What is wrong with a range of bytes; becomes a [`ConfigError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
}

impl Errors {
    /// `None` where nothing is wrong.
    pub(crate) fn new(mut faults: Vec<Fault>, source: &Source<'_>) -> Option<Errors> {
        faults.sort_by_key(|fault| fault.span.start);
        faults.dedup();
        let errors = faults.iter().map(|fault| ConfigError::new(fault, source));
        let errors: Vec<_> = errors.collect();
        (!errors.is_empty()).then_some(Errors(errors))
    }

    /// Each of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl ConfigError {
    fn new(fault: &Fault, source: &Source<'_>) -> ConfigError {
        let at = source.position(fault.span.start);
        ConfigError {
            file: source.name.to_owned(),
            line: at.line,
            column: at.column,
            message: fault.message.clone(),
            excerpt: source.excerpt(&fault.span),
        }
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The place in the line, in characters from 1. One past the line's last character where it is its end that is wrong.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What was expected and what was found, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError { file, line, column, message, excerpt } = self;
        write!(f, "{file}:{line}:{column}: {message}\n{excerpt}")
    }
}

impl std::error::Error for ConfigError {}
