//! What texts from a peer may be: names of services, words, details, addresses. The decoders drive it.
//!
//! A text that is refused is shown in the error only where it is short, and escaped: errors go to logs and terminals.

use std::net::SocketAddr;

use crate::{MessageError, malformed, missing};

/// The longest name of a service, in bytes: what a label of a host name may be.
pub const SERVICE_NAME_LEN_MAX: usize = 63;

/// The longest word, in bytes: a reason, or how a client came in.
pub const WORD_LEN_MAX: usize = 64;

/// The longest detail of a refusal, in bytes.
pub const DETAIL_LEN_MAX: usize = 512;

/// The longest `HOST:PORT`, in bytes: a host name of 253, a colon, and 5 digits.
pub const CLIENTS_LEN_MAX: usize = 259;

/// Whether a service can be called that: 1 to [`SERVICE_NAME_LEN_MAX`] bytes of `a` to `z`, `0` to `9` and `-`, with a `-`
/// neither first nor last.
///
/// ```
/// use relayserver_wire::is_service_name;
///
/// assert!(is_service_name("ssh") && is_service_name("web-2"));
/// assert!(!is_service_name("") && !is_service_name("Web") && !is_service_name("web-"));
/// ```
pub fn is_service_name(name: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=SERVICE_NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(is_allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The name of a service.
pub(crate) fn service_name(
    message: &'static str,
    field: &'static str,
    name: String,
) -> Result<String, MessageError> {
    let name = bounded(message, field, present(message, field, name)?, SERVICE_NAME_LEN_MAX)?;
    if !is_service_name(&name) {
        let detail = format!("{field} {name:?}, expected a-z, 0-9, and - in between");
        return Err(malformed(message, detail));
    }
    Ok(name)
}

/// A word for programs: `a` to `z`, `0` to `9` and `_`.
pub(crate) fn word(
    message: &'static str,
    field: &'static str,
    word: String,
) -> Result<String, MessageError> {
    let word = bounded(message, field, present(message, field, word)?, WORD_LEN_MAX)?;
    if !word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
        let detail = format!("{field} {word:?}, expected a-z, 0-9 and _");
        return Err(malformed(message, detail));
    }
    Ok(word)
}

/// A text for people. What could steer a terminal is replaced: a refusal is worth reading for all that.
pub(crate) fn detail(message: &'static str, detail: String) -> Result<String, MessageError> {
    let detail = bounded(message, "detail", detail, DETAIL_LEN_MAX)?;
    Ok(detail.replace(char::is_control, " "))
}

/// Where clients connect, as people write it: `HOST:PORT`.
pub(crate) fn clients(message: &'static str, clients: String) -> Result<String, MessageError> {
    let clients = bounded(message, "clients", clients, CLIENTS_LEN_MAX)?;
    if !clients.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed(message, format!("clients {clients:?}, expected HOST:PORT")));
    }
    Ok(clients)
}

/// An address and a port; `None` if the text is empty.
pub(crate) fn address(
    message: &'static str,
    field: &'static str,
    address: &str,
) -> Result<Option<SocketAddr>, MessageError> {
    if address.is_empty() {
        return Ok(None);
    }
    let parsed = address.parse();
    parsed.map(Some).map_err(|_not_one| {
        let len = address.len();
        malformed(message, format!("{field} of {len} bytes is no address with a port"))
    })
}

/// A text that must be there and not be empty.
pub(crate) fn present(
    message: &'static str,
    field: &'static str,
    text: String,
) -> Result<String, MessageError> {
    if text.is_empty() { Err(missing(message, field)) } else { Ok(text) }
}

fn bounded(
    message: &'static str,
    field: &'static str,
    text: String,
    len_max: usize,
) -> Result<String, MessageError> {
    let len = text.len();
    if len > len_max {
        return Err(malformed(message, format!("{field} of {len} bytes exceeds {len_max}")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_labels() {
        let longest = "a".repeat(63);
        for name in ["a", "0", "default", "web-2", "a--b", &longest] {
            assert!(is_service_name(name), "{name}");
            assert_eq!(service_name("start", "service", name.to_owned()), Ok(name.to_owned()));
        }
        let too_long = "a".repeat(64);
        for name in ["", "-", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a\0", "*", &too_long] {
            assert!(!is_service_name(name), "{name}");
            assert!(service_name("start", "service", name.to_owned()).is_err(), "{name}");
        }
    }

    #[test]
    fn texts_that_are_refused_are_named_and_shown_only_if_short() {
        let name = |name: &str| service_name("start", "service", name.to_owned()).unwrap_err();
        assert_eq!(name(""), missing("start", "service"));
        assert_eq!(
            name("a\n").to_string(),
            "malformed start: service \"a\\n\", expected a-z, 0-9, and - in between"
        );
        assert_eq!(
            name(&"a".repeat(64)).to_string(),
            "malformed start: service of 64 bytes exceeds 63"
        );
    }

    #[test]
    fn words_are_lower_case_digits_and_underscores() {
        let longest = "a".repeat(64);
        for text in ["a", "token_revoked", "version_1_off", &longest] {
            assert_eq!(word("verdict", "reason", text.to_owned()), Ok(text.to_owned()));
        }
        let too_long = "a".repeat(65);
        for text in ["", "A", "a-b", "a b", "a\n", "ä", &too_long] {
            assert!(word("verdict", "reason", text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn details_are_bounded_and_steer_no_terminal() {
        let of = |text: &str| detail("answer", text.to_owned());
        assert_eq!(of("sich überzeugen"), Ok("sich überzeugen".to_owned()));
        assert_eq!(of("a\x1b[2J\r\nb\u{9b}c"), Ok("a [2J  b c".to_owned()));
        assert!(of(&"a".repeat(512)).is_ok());
        let error = of(&"a".repeat(513)).unwrap_err();
        assert_eq!(error.to_string(), "malformed answer: detail of 513 bytes exceeds 512");
    }

    #[test]
    fn where_clients_connect_is_one_word_of_ascii() {
        let of = |text: &str| clients("answer", text.to_owned());
        for text in ["vps.example.com:8002", "[2001:db8::1]:8002", &"a".repeat(259)] {
            assert_eq!(of(text), Ok(text.to_owned()));
        }
        for text in ["a b:1", "a:1\n", "\x1b[2J", "ä:1", &"a".repeat(260)] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_port_or_are_empty() {
        let of = |text: &str| address("start", "client_addr", text);
        assert_eq!(of(""), Ok(None));
        for text in ["192.0.2.7:50000", "[2001:db8::1]:1", "[fe80::1%2]:22"] {
            let parsed = of(text).unwrap().unwrap();
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["192.0.2.7", "2001:db8::1", "localhost:22", " ", "192.0.2.7:65536"] {
            let error = of(text).unwrap_err().to_string();
            let len = text.len();
            let expected =
                format!("malformed start: client_addr of {len} bytes is no address with a port");
            assert_eq!(error, expected);
        }
    }
}
