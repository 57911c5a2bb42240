//! The names of services. Text to names; which of them there are is not known here.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::errors::Fault;
use crate::leaf::{Found, Leaf, toml_string};
use crate::source::quoted;

/// The name of a service: 1 to 63 of `a-z`, `0-9` and `-`, without a `-` at either end. So it can be part of a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// A text is no name of a service.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {}, found {}", ServiceName::EXPECTED, quoted(.0))]
pub struct InvalidServiceName(String);

impl ServiceName {
    /// The name of the service that is meant where none is named: `default`.
    pub fn default_name() -> ServiceName {
        ServiceName("default".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(text: &str) -> Result<ServiceName, InvalidServiceName> {
        let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_name = (1..=63).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_name {
            Ok(ServiceName(text.to_owned()))
        } else {
            Err(InvalidServiceName(text.to_owned()))
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Leaf for ServiceName {
    const EXPECTED: &'static str = "1 to 63 of a-z, 0-9 and -, without a - at either end";

    fn read(found: &Found<'_>) -> Result<ServiceName, Vec<Fault>> {
        found.parse(Self::EXPECTED)
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.0))
    }

    fn placeholder() -> ServiceName {
        ServiceName::default_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_of_dns_in_lower_case() {
        let longest = "a".repeat(63);
        for name in ["a", "0", "ssh", "web-2", "a--b", longest.as_str()] {
            assert_eq!(name.parse::<ServiceName>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(64);
        for text in ["", "-", "-a", "a-", "A", "a_b", "a.b", "ä", " a", too_long.as_str()] {
            assert!(text.parse::<ServiceName>().is_err(), "{text:?}");
        }
        assert_eq!(
            "a b".parse::<ServiceName>().unwrap_err().to_string(),
            "expected 1 to 63 of a-z, 0-9 and -, without a - at either end, found \"a b\""
        );
    }
}
