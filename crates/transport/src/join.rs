//! The join line: one string with all that a host needs to be served by a relay.
//!
//! Written by the relay, read by host and SDK. Errors name the place where a line is wrong, and never show a part of it: it may be
//! the secret, standing in the wrong place.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::address::is_ipv6;
use crate::{HostPort, InvalidPin, InvalidToken, Pin, Token};

const SCHEME: &str = "relayserver://";
const PINS: &str = "fp=";

/// `relayserver://TOKEN@HOST:PORT[,HOST:PORT…][/fp=PIN[,PIN…]]`: the relay's addresses, a token for it, and the pins of its
/// key. Without pins the system's roots and the host's name decide.
///
/// An IPv6 address stands in brackets. But for those, no character of it is special to a shell.
#[derive(Clone)]
pub struct Join {
    token: Token,
    addresses: Vec<HostPort>,
    pins: Vec<Pin>,
}

/// The text is no join line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("join line, character {position}, {part}: {fault}")]
pub struct InvalidJoin {
    /// Where what is wrong begins, in characters from 1.
    pub position: usize,
    /// In which part of the line.
    pub part: JoinPart,
    fault: Fault,
}

/// A part of a join line. Addresses and pins are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinPart {
    /// `relayserver://`
    Scheme,
    /// Between that and `@`.
    Token,
    /// One of those between `@` and `/`.
    Address(usize),
    /// `fp=`
    Pins,
    /// One of those behind it.
    Pin(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum Fault {
    #[error("{0}")]
    Text(&'static str),
    #[error("{0} bytes exceed {max}", max = Join::LEN_MAX)]
    TooLong(usize),
    #[error(transparent)]
    Token(#[from] InvalidToken),
    #[error(transparent)]
    Pin(#[from] InvalidPin),
}

impl Join {
    /// How many bytes a join line may have. Room for some ten addresses and as many pins.
    pub const LEN_MAX: usize = 4096;

    /// A join line of these parts.
    ///
    /// # Errors
    /// Where reading the line would fail: there is no address, or one that is none.
    pub fn new(
        token: Token,
        addresses: Vec<HostPort>,
        pins: Vec<Pin>,
    ) -> Result<Join, InvalidJoin> {
        let join = Join { token, addresses, pins };
        Zeroizing::new(join.expose()).parse::<Join>()?;
        Ok(join)
    }

    /// The token, to be sent only to a relay whose key or certificate was verified.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Where the relay can be dialled: at least one.
    pub fn addresses(&self) -> &[HostPort] {
        &self.addresses
    }

    /// One of these is the pin of the relay's key. Where there is none, the system's roots and the host's name decide.
    pub fn pins(&self) -> &[Pin] {
        &self.pins
    }

    /// The line itself, secret and all: for whoever is to have it.
    pub fn expose(&self) -> String {
        self.written(&Zeroizing::new(self.token.expose()))
    }

    fn written(&self, token: &str) -> String {
        let addresses = joined(&self.addresses);
        let pins = if self.pins.is_empty() {
            String::new()
        } else {
            format!("/{PINS}{}", joined(&self.pins))
        };
        format!("{SCHEME}{token}@{addresses}{pins}")
    }
}

impl FromStr for Join {
    type Err = InvalidJoin;

    fn from_str(text: &str) -> Result<Join, InvalidJoin> {
        let wrong =
            |place: &str, part, fault| InvalidJoin { position: position(text, place), part, fault };
        if text.len() > Join::LEN_MAX {
            return Err(wrong(text, JoinPart::Scheme, Fault::TooLong(text.len())));
        }
        let Some(rest) = text.strip_prefix(SCHEME) else {
            let fault = Fault::Text("expected relayserver://TOKEN@HOST:PORT");
            return Err(wrong(text, JoinPart::Scheme, fault));
        };
        let (authority, pins) = match rest.split_once('/') {
            Some((authority, pins)) => (authority, Some(pins)),
            None => (rest, None),
        };
        let Some((token, addresses)) = authority.split_once('@') else {
            return Err(wrong(rest, JoinPart::Token, Fault::Text("expected TOKEN@, got no '@'")));
        };
        let token_read = token
            .parse()
            .map_err(|fault: InvalidToken| wrong(token, JoinPart::Token, fault.into()))?;
        let addresses = each(addresses, |place, number| {
            address(place).map_err(|fault| wrong(place, JoinPart::Address(number), fault))
        })?;
        let pins = match pins {
            None => Vec::new(),
            Some(text) => {
                let Some(pins) = text.strip_prefix(PINS) else {
                    return Err(wrong(text, JoinPart::Pins, Fault::Text("expected fp=PIN")));
                };
                each(pins, |place, number| {
                    let pin = place.parse::<Pin>();
                    pin.map_err(|fault| wrong(place, JoinPart::Pin(number), fault.into()))
                })?
            }
        };
        Ok(Join { token: token_read, addresses, pins })
    }
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written(&format!("{:?}", self.token)))
    }
}

impl fmt::Display for JoinPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinPart::Scheme => f.write_str("beginning"),
            JoinPart::Token => f.write_str("token"),
            JoinPart::Address(number) => write!(f, "address {number}"),
            JoinPart::Pins => f.write_str("pins"),
            JoinPart::Pin(number) => write!(f, "pin {number}"),
        }
    }
}

/// Reads each part of a list with its number, from 1.
fn each<T>(
    list: &str,
    mut read: impl FnMut(&str, usize) -> Result<T, InvalidJoin>,
) -> Result<Vec<T>, InvalidJoin> {
    list.split(',').zip(1..).map(|(part, number)| read(part, number)).collect()
}

fn address(text: &str) -> Result<HostPort, Fault> {
    let address = text.parse::<HostPort>().map_err(|invalid| Fault::Text(invalid.detail()))?;
    // More than that is in no name that can be resolved; and a shell would take some of it for itself.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_plain_ipv6 = |c: char| is_plain(c) || matches!(c, ':' | '%');
    let host = &address.host;
    if host.chars().all(is_plain) || (is_ipv6(host) && host.chars().all(is_plain_ipv6)) {
        Ok(address)
    } else {
        Err(Fault::Text("a host name has a character other than A-Z, a-z, 0-9, '.', '-' and '_'"))
    }
}

fn joined<T: fmt::Display>(parts: &[T]) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// Where `place`, a part of `text`, begins, in characters from 1.
fn position(text: &str, place: &str) -> usize {
    let offset = place.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    text.char_indices().take_while(|(at, _)| *at < offset).count() + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const SECRET: &str = "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s";
    const PIN: &str = "9_oH9_oH9_oH9_oH9_oH9_oH9_oH9_oH9_oH9_oH9_o";

    fn line(behind_token: &str) -> String {
        format!("relayserver://rls_home.{SECRET}@{behind_token}")
    }

    #[test]
    fn a_join_line_reads_back() {
        for (rest, addresses, pins) in [
            ("relay.example.com:8000", 1, 0),
            (&format!("192.0.2.7:1/fp={PIN}"), 1, 1),
            (&format!("[2001:db8::7]:8000,[fe80::1%eth0]:22,b_1:3/fp={PIN},{PIN}"), 3, 2),
        ] {
            let text = line(rest);
            let join: Join = text.parse().unwrap();
            assert_eq!((join.addresses().len(), join.pins().len()), (addresses, pins));
            assert_eq!(join.expose(), text);
            assert_eq!(join.token().expose(), format!("rls_home.{SECRET}"));
        }
    }

    #[test]
    fn a_join_line_shows_all_but_the_secret() {
        let join: Join = line(&format!("relay:8000/fp={PIN}")).parse().unwrap();
        let wanted = format!("relayserver://rls_home.***@relay:8000/fp={PIN}");
        assert_eq!(format!("{join:?}"), wanted);
        assert_eq!(format!("{join:#?}"), wanted);
    }

    #[test]
    fn an_error_names_the_place() {
        let at = |text: &str| text.find('^').unwrap() + 1;
        let token_at = SCHEME.len() + 1;
        for (text, part) in [
            ("^http://rls_home.S@relay:8000", JoinPart::Scheme),
            ("^", JoinPart::Scheme),
            ("relayserver://^rls_home.S", JoinPart::Token),
            ("relayserver://^rls_ho.me.S@relay:8000", JoinPart::Token),
            ("relayserver://rls_home.S@^", JoinPart::Address(1)),
            ("relayserver://rls_home.S@^relay", JoinPart::Address(1)),
            ("relayserver://rls_home.S@relay:1,^relay:0", JoinPart::Address(2)),
            ("relayserver://rls_home.S@relay:1,^", JoinPart::Address(2)),
            ("relayserver://rls_home.S@^a@relay:1", JoinPart::Address(1)),
            ("relayserver://rls_home.S@^$(id):1", JoinPart::Address(1)),
            ("relayserver://rls_home.S@^[fe80::1%*]:1", JoinPart::Address(1)),
            ("relayserver://rls_home.S@^bücher:1", JoinPart::Address(1)),
            ("relayserver://rls_home.S@relay:1/^", JoinPart::Pins),
            ("relayserver://rls_home.S@relay:1/^pin=P", JoinPart::Pins),
            ("relayserver://rls_home.S@relay:1/fp=^", JoinPart::Pin(1)),
            ("relayserver://rls_home.S@relay:1/fp=P,^P\n", JoinPart::Pin(2)),
            ("relayserver://rls_home.S@relay:1/fp=^P/", JoinPart::Pin(1)),
        ] {
            let text = text.replace(".S", &format!(".{SECRET}")).replace("P", PIN);
            let error = text.replace('^', "").parse::<Join>().unwrap_err();
            assert_eq!((error.part, error.position), (part, at(&text)), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains(&SECRET[..8]), "{error}");
        }
        let error = "relayserver://rls_a.b@relay:1".parse::<Join>().unwrap_err();
        let wanted = format!(
            "join line, character {token_at}, token: a token's secret of 1 characters is not one of 43"
        );
        assert_eq!(error.to_string(), wanted);
    }

    #[test]
    fn a_line_beyond_the_bound_is_refused() {
        let fill = Join::LEN_MAX - line(":1").len();
        assert!(line(&format!("{}:1", "a".repeat(fill))).parse::<Join>().is_ok());
        let error = line(&format!("{}:1", "a".repeat(fill + 1))).parse::<Join>().unwrap_err();
        assert!(error.to_string().ends_with("4097 bytes exceed 4096"), "{error}");
    }

    #[test]
    fn what_could_not_be_read_is_not_made() {
        let token: Token = format!("rls_home.{SECRET}").parse().unwrap();
        let address = |host: &str| HostPort { host: host.to_owned(), port: 1 };
        let made = |addresses| Join::new(token.clone(), addresses, Vec::new());
        assert_eq!(made(vec![address("::1")]).unwrap().expose(), line("[::1]:1"));
        for addresses in [vec![], vec![address("a;b")], vec![address("a,b")], vec![address("a/b")]]
        {
            assert!(made(addresses).is_err());
        }
    }

    fn host() -> impl Strategy<Value = String> {
        prop_oneof![
            "[A-Za-z0-9._-]{1,20}",
            any::<std::net::Ipv4Addr>().prop_map(|it| it.to_string()),
            any::<std::net::Ipv6Addr>().prop_map(|it| it.to_string()),
        ]
    }

    prop_compose! {
        fn join()(
            id in "[A-Za-z0-9_-]{1,32}",
            secret: [u8; 32],
            addresses in prop::collection::vec((host(), 1u16..), 1..4),
            pins in prop::collection::vec(any::<[u8; 32]>(), 0..3),
        ) -> Join {
            let token = format!("rls_{id}.{}", *crate::base64url::encode(&secret)).parse().unwrap();
            let addresses = addresses.into_iter().map(|(host, port)| HostPort { host, port });
            let pins = pins.into_iter().map(Pin::from).collect();
            Join::new(token, addresses.collect(), pins).unwrap()
        }
    }

    /// No eight characters in a row of the secret stand in `shown`.
    fn hides(secret: &str, shown: &str) -> bool {
        (0..=secret.len() - 8).all(|at| !shown.contains(&secret[at..at + 8]))
    }

    proptest! {
        #[test]
        fn every_line_reads_back(join in join()) {
            let text = join.expose();
            let read: Join = text.parse().unwrap();
            prop_assert_eq!(read.expose(), text.clone());
            prop_assert_eq!(read.addresses(), join.addresses());
            prop_assert_eq!(read.pins(), join.pins());
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@,=%[]".contains(c);
            prop_assert!(text.chars().all(is_plain), "special to a shell: {}", text);
        }

        #[test]
        fn garbage_is_refused_in_peace(text: String) {
            prop_assert!(text.parse::<Join>().is_err());
        }

        #[test]
        fn garbage_behind_the_scheme_is_refused_in_peace(text: String) {
            let text = format!("{SCHEME}{text}");
            prop_assert!(text.parse::<Join>().is_err());
        }

        #[test]
        fn no_error_and_no_debug_shows_the_secret(
            join in join(),
            at: Index,
            len in 0..4usize,
            instead in "[@/:,.=a-z\\[\\]rls_ ä]{0,4}",
        ) {
            let text = join.expose();
            let token = join.token().expose();
            let secret = token.split_once('.').unwrap().1;
            let at = at.index(text.len());
            let end = (at + len).min(text.len());
            let wrong = format!("{}{instead}{}", &text[..at], &text[end..]);
            let shown = match wrong.parse::<Join>() {
                Ok(join) => format!("{join:?} {join:#?}"),
                Err(error) => format!("{error} {error:?} {error:#?}"),
            };
            prop_assert!(hides(secret, &shown), "{}", shown);
        }

        #[test]
        fn no_error_shows_the_secret_wherever_it_stands(
            join in join(),
            parts in prop::collection::vec("[@/:,.=]|rls_|relayserver://|fp=|[a-z]{1,3}|SECRET|SECRET", 0..12),
        ) {
            let token = join.token().expose();
            let secret = token.split_once('.').unwrap().1;
            let text = parts.concat().replace("SECRET", secret);
            for text in [text.clone(), format!("{SCHEME}{text}"), format!("{SCHEME}rls_a.{secret}@{text}")] {
                if let Err(error) = text.parse::<Join>() {
                    let shown = format!("{error} {error:?}");
                    prop_assert!(hides(secret, &shown), "{}", shown);
                }
            }
        }
    }
}
