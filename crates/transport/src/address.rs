//! Where to dial: a name or an address, and a port. Nothing here resolves a name.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use thiserror::Error;

/// A host's name or address, and a port: `relay.example.com:8000`, `192.0.2.7:8000`, `[2001:db8::7]:8000`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port; not 0.
    pub port: u16,
}

/// The text is no host with a port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected HOST:PORT, got {text:?}: {detail}")]
pub struct InvalidHostPort {
    text: String,
    detail: &'static str,
}

impl HostPort {
    /// Reads `host:port` like [`FromStr`], and also a host alone, for which `port_default` stands in. An IPv6 address
    /// alone may do without brackets.
    ///
    /// # Errors
    /// What is not a host, or a port that is not a number from 1 to 65535.
    pub fn parse_with_default(text: &str, port_default: u16) -> Result<HostPort, InvalidHostPort> {
        let (host, port) = split(text).map_err(|detail| InvalidHostPort::new(text, detail))?;
        let port = port.map_or(Ok(port_default), parse_port);
        let port = port.map_err(|detail| InvalidHostPort::new(text, detail))?;
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl FromStr for HostPort {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<HostPort, InvalidHostPort> {
        let no_port = Err("no port");
        let parsed = split(text).and_then(|(host, port)| {
            let port = port.map_or(no_port, parse_port)?;
            Ok(HostPort { host: host.to_owned(), port })
        });
        parsed.map_err(|detail| InvalidHostPort::new(text, detail))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl InvalidHostPort {
    fn new(text: &str, detail: &'static str) -> InvalidHostPort {
        InvalidHostPort { text: text.to_owned(), detail }
    }

    /// What is wrong, without the text that is.
    pub(crate) fn detail(&self) -> &'static str {
        self.detail
    }
}

/// The host without brackets, and the port where there is one.
fn split(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or("no closing bracket")?;
        if !is_ipv6(host) {
            return Err("no IPv6 address in the brackets");
        }
        let port = rest.strip_prefix(':');
        if port.is_none() && !rest.is_empty() {
            return Err("something other than a port behind the brackets");
        }
        (host, port)
    } else if is_ipv6(text) {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err("no host");
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '@') {
        return Err("not a host name");
    }
    Ok((host, port))
}

/// An IPv6 address, with a zone or without.
pub(crate) fn is_ipv6(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _zone)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if is_number => Ok(port),
        _ => Err("the port is not a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_read_back() {
        for (text, host, port) in [
            ("localhost:8000", "localhost", 8000),
            ("192.0.2.7:1", "192.0.2.7", 1),
            ("[2001:db8::7]:65535", "2001:db8::7", 65535),
            ("[fe80::1%eth0]:22", "fe80::1%eth0", 22),
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!(parsed, HostPort { host: host.to_owned(), port });
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_host_with_a_port_is_refused() {
        for text in [
            "",
            ":",
            ":22",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+22",
            "host:ssh",
            "::1",
            "[::1]",
            "[::1]22",
            "[::1",
            "[host]:22",
            "a b:22",
            "http://host:80",
            "me@host:22",
            "h:1:2",
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert!(error.to_string().starts_with("expected HOST:PORT, got "), "{error}");
        }
    }

    #[test]
    fn a_missing_port_is_the_default() {
        for (text, wanted) in [
            ("relay", "relay:8000"),
            ("relay:9", "relay:9"),
            ("::1", "[::1]:8000"),
            ("[::1]", "[::1]:8000"),
            ("[::1]:9", "[::1]:9"),
        ] {
            let parsed = HostPort::parse_with_default(text, 8000).unwrap();
            assert_eq!(parsed.to_string(), wanted);
        }
        assert!(HostPort::parse_with_default("relay:", 8000).is_err());
    }
}
