//! What a token allows. The relay reads grants from wherever they are kept and tells the [`Book`](crate::Book), which asks them
//! whenever a host, a channel or an assignment is to be allowed.

use std::fmt;
use std::str::FromStr;

use crate::ids::ServiceName;
use crate::time::Time;

/// What the bearer of a token may do, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whether it may serve, or (some day) be served.
    pub role: Role,
    /// The services that it covers; none covers nothing.
    pub services: Vec<ServicePattern>,
    /// From when on it is void.
    pub expires: Option<Time>,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To serve clients.
    Host,
    /// Kept for private services. It cannot serve.
    Client,
}

/// A service's name, in which each `*` stands for any characters, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePattern(String);

/// A text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidServicePattern(String);

impl Grant {
    /// Whether a host that has it may serve `service`. When it expires is not asked here.
    pub fn covers(&self, service: &ServiceName) -> bool {
        self.role == Role::Host && self.services.iter().any(|pattern| pattern.matches(service))
    }

    /// Whether it is void.
    pub fn has_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl ServicePattern {
    /// Whether `service` is one of those that it stands for. Takes time in proportion to both lengths, whatever they hold.
    pub fn matches(&self, service: &ServiceName) -> bool {
        let name = service.as_str();
        let mut parts = self.0.split('*');
        let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            // The first place is as good as any: what lies behind it is the longest.
            match rest.find(part).and_then(|at| rest.get(at + part.len()..)) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        true
    }
}

impl FromStr for ServicePattern {
    type Err = InvalidServicePattern;

    fn from_str(text: &str) -> Result<ServicePattern, InvalidServicePattern> {
        let may_stand = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'*');
        if (1..=63).contains(&text.len()) && text.bytes().all(may_stand) {
            Ok(ServicePattern(text.to_owned()))
        } else {
            Err(InvalidServicePattern(text.to_owned()))
        }
    }
}

impl fmt::Display for ServicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidServicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.0;
        write!(
            f,
            "expected a service like `ssh` or `web-*`: up to 63 of a-z, 0-9, - and *; got {text:?}"
        )
    }
}

impl std::error::Error for InvalidServicePattern {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<ServicePattern>().unwrap().matches(&ServiceName::new(name))
    }

    #[test]
    fn a_star_stands_for_any_characters_or_none() {
        for (pattern, name) in [
            ("ssh", "ssh"),
            ("*", "ssh"),
            ("web-*", "web-"),
            ("web-*", "web-shop"),
            ("*-db", "test-db"),
            ("a*b*c", "abc"),
            ("a*b*c", "axxbyybzzc"),
            ("**", "x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("ssh", "ssh2"),
            ("ssh", "xssh"),
            ("web-*", "web"),
            ("*-db", "db"),
            ("a*a", "a"),
            ("a*b*c", "acb"),
            ("ab*ba", "aba"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "SSH", "a b", "web.*", "ä", &"x".repeat(64)] {
            assert!(text.parse::<ServicePattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_client_token_covers_no_service() {
        let services = vec!["*".parse().unwrap()];
        let mut grant = Grant { role: Role::Client, services, expires: None };
        assert!(!grant.covers(&ServiceName::default()));
        grant.role = Role::Host;
        assert!(grant.covers(&ServiceName::default()));
        grant.services.clear();
        assert!(!grant.covers(&ServiceName::default()));
    }

    #[test]
    fn a_grant_is_void_from_its_end_on() {
        let expires = Some(Time::from_millis(5));
        let grant = Grant { role: Role::Host, services: Vec::new(), expires };
        assert!(!grant.has_expired(Time::from_millis(4)));
        assert!(grant.has_expired(Time::from_millis(5)));
    }

    /// What `*` means, written down in the plainest way.
    fn matches_plainly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                (0..=name.len()).any(|skipped| matches_plainly(rest, &name[skipped..]))
            }
            (Some((one, rest)), Some((other, behind))) => {
                one == other && matches_plainly(rest, behind)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_what_they_say(pattern in "[ab*]{1,8}", name in "[ab]{1,8}") {
            let expected = matches_plainly(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches(&pattern, &name), expected);
        }
    }
}
