//! Networks in CIDR notation, as data. Whether an address lies in one is asked where connections are accepted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::errors::Fault;
use crate::leaf::{Element, Found, Leaf, toml_string};
use crate::source::quoted;

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix_len: u8,
}

/// A text is no network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {}, found {}", Cidr::EXPECTED, quoted(.0))]
pub struct InvalidCidr(String);

impl Cidr {
    /// All of this machine's own addresses.
    pub fn loopback() -> Vec<Cidr> {
        vec![
            Cidr { address: Ipv4Addr::new(127, 0, 0, 0).into(), prefix_len: 8 },
            Cidr { address: Ipv6Addr::LOCALHOST.into(), prefix_len: 128 },
        ]
    }

    /// An address of the network, as it was written.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many of its leading bits all addresses of the network share: at most 32 (IPv4) or 128 (IPv6).
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether it has no address but this machine's own.
    pub(crate) fn is_loopback(&self) -> bool {
        let shortest = match self.address {
            IpAddr::V4(_) => 8,
            // Mapped IPv4 addresses have 96 bits ahead of their own.
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => 104,
            IpAddr::V6(_) => 128,
        };
        self.address.to_canonical().is_loopback() && self.prefix_len >= shortest
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Cidr, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, prefix_len)) => (address, Some(prefix_len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix_len {
            None => longest,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| invalid())?
            }
            Some(_) => return Err(invalid()),
        };
        if prefix_len > longest {
            return Err(invalid());
        }
        Ok(Cidr { address, prefix_len })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl Leaf for Cidr {
    const EXPECTED: &'static str = "a network like \"10.0.0.0/8\" or \"2001:db8::/32\"";

    fn read(found: &Found<'_>) -> Result<Cidr, Vec<Fault>> {
        found.parse(Self::EXPECTED)
    }

    fn show(&self) -> Option<String> {
        Some(toml_string(&self.to_string()))
    }

    fn placeholder() -> Cidr {
        Cidr { address: Ipv4Addr::LOCALHOST.into(), prefix_len: 32 }
    }
}

impl Element for Cidr {
    const EXPECTED_LIST: &'static str =
        "a list of networks like \"10.0.0.0/8\" or \"2001:db8::/32\"";
    const MAY_BE_NONE: bool = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_read_back() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("::1", "::1/128"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        for text in
            ["", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "h/8", "1.2.3.4/+8"]
        {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_is_all_of_this_machine_and_nothing_else() {
        assert!(Cidr::loopback().iter().all(Cidr::is_loopback));
        for (text, is_loopback) in [
            ("127.0.0.1/32", true),
            ("127.0.0.0/7", false),
            ("::1/127", false),
            ("::ffff:127.0.0.0/104", true),
            ("::ffff:127.0.0.0/8", false),
            ("10.0.0.0/8", false),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().is_loopback(), is_loopback, "{text}");
        }
    }
}
