//! Values: how each type is read from a TOML value and shown as one. Pure: a value goes in, and the type comes out or what is
//! wrong with the value. Which key it belongs to is the reader's to say.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use toml::de::DeValue;

use crate::errors::Fault;
use crate::source::quoted;

/// A value, and where it stands.
pub(crate) struct Found<'f> {
    pub(crate) span: Range<usize>,
    pub(crate) value: &'f DeValue<'f>,
}

/// A type that a value can be read as.
pub(crate) trait Leaf: Sized {
    /// What is expected, in words: for errors and for the documentation.
    const EXPECTED: &'static str;

    /// Reads a value. What is wrong with it is said without the key.
    fn read(found: &Found<'_>) -> Result<Self, Vec<Fault>>;

    /// As a file would say it, secrets masked. `None` for what is not set.
    fn show(&self) -> Option<String>;

    /// What stands for a value until all errors are told.
    fn placeholder() -> Self;
}

impl Found<'_> {
    /// That this is not what was expected.
    pub(crate) fn wrong<T>(&self, expected: &str) -> Result<T, Vec<Fault>> {
        self.fault(format!("expected {expected}, found {}", self.describe()))
    }

    pub(crate) fn fault<T>(&self, message: String) -> Result<T, Vec<Fault>> {
        Err(vec![Fault { span: self.span.clone(), message }])
    }

    /// A string that `T` can be made of.
    pub(crate) fn parse<T: FromStr>(&self, expected: &str) -> Result<T, Vec<Fault>> {
        match self.value.as_str().map(str::parse) {
            Some(Ok(value)) => Ok(value),
            _ => self.wrong(expected),
        }
    }

    /// A whole number; for one that is too large, the nearest.
    pub(crate) fn integer(&self) -> Option<i64> {
        let number = self.value.as_integer()?;
        let nearest = if number.as_str().starts_with('-') { i64::MIN } else { i64::MAX };
        Some(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(nearest))
    }

    /// What was found: a short value itself, of others what they are.
    pub(crate) fn describe(&self) -> String {
        match self.value {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(number) => quoted(&number.to_string()).trim_matches('"').to_owned(),
            DeValue::Float(number) => quoted(number.as_str()).trim_matches('"').to_owned(),
            DeValue::Boolean(word) => word.to_string(),
            DeValue::Datetime(_) => "a date or time".to_owned(),
            DeValue::Array(list) if list.is_empty() => "an empty list".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }
}

impl<T: Leaf> Leaf for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn read(found: &Found<'_>) -> Result<Option<T>, Vec<Fault>> {
        T::read(found).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }

    fn placeholder() -> Option<T> {
        None
    }
}

/// Each element for itself.
impl<T: Element> Leaf for Vec<T> {
    const EXPECTED: &'static str = T::EXPECTED_LIST;

    fn read(found: &Found<'_>) -> Result<Vec<T>, Vec<Fault>> {
        let Some(array) = found.value.as_array() else {
            return found.wrong(Self::EXPECTED);
        };
        if array.is_empty() && !T::MAY_BE_NONE {
            return found.wrong(Self::EXPECTED);
        }
        let mut elements = Vec::new();
        let mut faults = Vec::new();
        for element in array.iter() {
            match T::read(&Found { span: element.span(), value: element.get_ref() }) {
                Ok(element) => elements.push(element),
                Err(more) => faults.extend(more),
            }
        }
        if faults.is_empty() { Ok(elements) } else { Err(faults) }
    }

    fn show(&self) -> Option<String> {
        let elements: Vec<_> = self.iter().filter_map(T::show).collect();
        Some(format!("[{}]", elements.join(", ")))
    }

    fn placeholder() -> Vec<T> {
        Vec::new()
    }
}

/// A type that a list can be of.
pub(crate) trait Element: Leaf {
    const EXPECTED_LIST: &'static str;
    const MAY_BE_NONE: bool;
}

impl Leaf for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(found: &Found<'_>) -> Result<bool, Vec<Fault>> {
        found.value.as_bool().map_or_else(|| found.wrong(Self::EXPECTED), Ok)
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn placeholder() -> bool {
        false
    }
}

/// The most that a number may be: what all systems can count.
const NUMBER_MAX: i64 = i32::MAX as i64;

impl Leaf for usize {
    const EXPECTED: &'static str = "a number from 0";

    fn read(found: &Found<'_>) -> Result<usize, Vec<Fault>> {
        match found.integer() {
            Some(number @ 0..=NUMBER_MAX) => {
                usize::try_from(number).or_else(|_| found.wrong(Self::EXPECTED))
            }
            Some(..0) | None => found.wrong(Self::EXPECTED),
            Some(_) => found.wrong("a number up to 2147483647"),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn placeholder() -> usize {
        0
    }
}

impl Leaf for NonZeroUsize {
    const EXPECTED: &'static str = "a number from 1";

    fn read(found: &Found<'_>) -> Result<NonZeroUsize, Vec<Fault>> {
        match found.integer() {
            Some(1..) => {
                let number = usize::read(found)?;
                NonZeroUsize::new(number).map_or_else(|| found.wrong(Self::EXPECTED), Ok)
            }
            _ => found.wrong(Self::EXPECTED),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn placeholder() -> NonZeroUsize {
        NonZeroUsize::MIN
    }
}

impl Leaf for SocketAddr {
    const EXPECTED: &'static str = "a socket address like \"127.0.0.1:8000\" or \"[::]:8000\"";

    fn read(found: &Found<'_>) -> Result<SocketAddr, Vec<Fault>> {
        found.parse(Self::EXPECTED)
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.to_string()))
    }

    fn placeholder() -> SocketAddr {
        SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0)
    }
}

impl Leaf for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(found: &Found<'_>) -> Result<PathBuf, Vec<Fault>> {
        match found.value.as_str() {
            Some(text) if !text.is_empty() && !text.contains('\0') => Ok(text.into()),
            _ => found.wrong(Self::EXPECTED),
        }
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.to_string_lossy()))
    }

    fn placeholder() -> PathBuf {
        PathBuf::new()
    }
}

impl Leaf for String {
    const EXPECTED: &'static str = "a string";

    fn read(found: &Found<'_>) -> Result<String, Vec<Fault>> {
        match found.value.as_str() {
            Some(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => found.wrong(Self::EXPECTED),
        }
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(self))
    }

    fn placeholder() -> String {
        String::new()
    }
}

/// The program and its arguments.
impl Element for String {
    const EXPECTED_LIST: &'static str = "a list of strings: a program and its arguments";
    const MAY_BE_NONE: bool = false;
}

/// A text as a basic string of TOML 1.0.
pub(crate) fn toml_string(text: &str) -> String {
    let mut string = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => string.extend(['\\', char]),
            char if char.is_control() => string.push_str(&format!("\\u{:04X}", u32::from(char))),
            char => string.push(char),
        }
    }
    string.push('"');
    string
}
