//! Addresses that others are told or that a host dials: what an operator wrote, taken apart. No name is resolved here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use crate::errors::Fault;
use crate::leaf::{Found, Leaf, toml_string};

/// The address under which a relay is reached from outside: what join lines name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port; not 0. `None`: the one that the relay listens on.
    pub port: Option<u16>,
}

/// A server that a host connects its sessions to. Shown, it is a text that `--forward` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// A TCP address.
    Tcp {
        /// A name, or an address without brackets.
        host: String,
        /// The port; not 0.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.host, self.port, f)
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Forward::Tcp { host, port } => show(host, Some(*port), f),
            Forward::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Leaf for PublicAddress {
    const EXPECTED: &'static str =
        "an address like \"relay.example.com\" or \"relay.example.com:8000\"";

    fn read(found: &Found<'_>) -> Result<PublicAddress, Vec<Fault>> {
        let Some((host, port)) = found.value.as_str().and_then(split) else {
            return found.wrong(Self::EXPECTED);
        };
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_unspecified()) {
            return found.wrong("an address that hosts can dial");
        }
        Ok(PublicAddress { host: host.to_owned(), port })
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.to_string()))
    }

    fn placeholder() -> PublicAddress {
        PublicAddress { host: "localhost".to_owned(), port: None }
    }
}

impl Leaf for Forward {
    const EXPECTED: &'static str = "a port, \"HOST:PORT\" or \"unix:/PATH\"";

    fn read(found: &Found<'_>) -> Result<Forward, Vec<Fault>> {
        let port_of_this_machine = |port| Forward::Tcp { host: "127.0.0.1".to_owned(), port };
        let number = found.integer().and_then(|number| u16::try_from(number).ok());
        if let Some(port @ 1..) = number {
            return Ok(port_of_this_machine(port));
        }
        let forward = found.value.as_str().and_then(|text| {
            if let Some(path) = text.strip_prefix("unix:") {
                let is_path = !path.is_empty() && !path.contains('\0');
                return is_path.then(|| Forward::Unix(path.into()));
            }
            match (port(text), split(text)) {
                (Some(port), _) => Some(port_of_this_machine(port)),
                (None, Some((host, Some(port)))) => {
                    Some(Forward::Tcp { host: host.to_owned(), port })
                }
                _ => None,
            }
        });
        forward.map_or_else(|| found.wrong(Self::EXPECTED), Ok)
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.to_string()))
    }

    fn placeholder() -> Forward {
        Forward::Tcp { host: "127.0.0.1".to_owned(), port: 1 }
    }
}

fn show(host: &str, port: Option<u16>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match port {
        Some(port) if host.contains(':') => write!(f, "[{host}]:{port}"),
        Some(port) => write!(f, "{host}:{port}"),
        None => f.write_str(host),
    }
}

/// A host without brackets, and the port where there is one.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, digits) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').filter(|(host, _)| is_ipv6(host))?;
        match rest.strip_prefix(':') {
            None if !rest.is_empty() => return None,
            digits => (host, digits),
        }
    } else if is_ipv6(text) {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((host, digits)) => (host, Some(digits)),
            None => (text, None),
        }
    };
    let odd = |char: char| char.is_whitespace() || char.is_control() || matches!(char, '/' | '@');
    if host.is_empty() || host.contains(odd) {
        return None;
    }
    match digits {
        Some(digits) => Some((host, Some(port(digits)?))),
        None => Some((host, None)),
    }
}

/// An IPv6 address, with a zone or without.
fn is_ipv6(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _zone)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

fn port(digits: &str) -> Option<u16> {
    let port = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
    port.flatten().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use toml::de::DeValue;

    use super::*;

    fn read<T: Leaf>(text: &str) -> Option<T> {
        let value = DeValue::String(text.into());
        T::read(&Found { span: 0..1, value: &value }).ok()
    }

    #[test]
    fn what_a_host_forwards_to_reads_back() {
        for (text, shown) in [
            ("22", "127.0.0.1:22"),
            ("db.local:5432", "db.local:5432"),
            ("[::1]:22", "[::1]:22"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(read::<Forward>(text).unwrap().to_string(), shown);
        }
        for text in [
            "", "0", "65536", "host", "host:", "host:0", "::1", "[h]:1", "unix:", "a b:1", "h:+1",
            "h:1:2",
        ] {
            assert_eq!(read::<Forward>(text), None, "{text}");
        }
    }

    #[test]
    fn a_public_address_can_be_dialled_and_needs_no_port() {
        for (text, shown) in [
            ("relay.example.com", "relay.example.com"),
            ("relay.example.com:8000", "relay.example.com:8000"),
            ("[2001:db8::7]:8000", "[2001:db8::7]:8000"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
        ] {
            assert_eq!(read::<PublicAddress>(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "0.0.0.0",
            "0.0.0.0:8000",
            "[::]:8000",
            "::ffff:0.0.0.0",
            "https://relay",
            "me@relay",
            "relay:0",
        ] {
            assert_eq!(read::<PublicAddress>(text), None, "{text}");
        }
    }
}
