//! What things are called: channels, command channels, sessions, hosts, services.

use std::fmt;
use std::net::IpAddr;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

/// Names a data channel from its hello on: v1's `session_id`, from 1 to 2^31-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(i32);

impl ChannelId {
    /// The highest id; the next one is 1 again.
    pub const MAX: ChannelId = ChannelId(i32::MAX);

    /// The id for `number`, or `None` outside 1 to 2^31-1.
    pub const fn new(number: i32) -> Option<ChannelId> {
        if number >= 1 { Some(ChannelId(number)) } else { None }
    }

    /// The number that goes over the wire.
    pub const fn get(self) -> i32 {
        self.0
    }

    const fn next(self) -> ChannelId {
        if self.0 == i32::MAX { ChannelId(1) } else { ChannelId(self.0 + 1) }
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hands out channel ids: ascending from a start that the caller chose at random, wrapping, never one in use.
#[derive(Debug)]
pub(crate) struct ChannelIds {
    next: ChannelId,
}

impl ChannelIds {
    /// Starts at `first`. Choose it at random, so that ids of a relay's earlier life do not meet those of its next.
    pub(crate) fn starting_at(first: ChannelId) -> ChannelIds {
        ChannelIds { next: first }
    }

    /// The next free id; one that is free again comes up when all others had their turn. The number of ids in use is bounded far
    /// below their range by the limit on channels, so the search ends after at most that many steps.
    pub(crate) fn next_free(&mut self, is_in_use: impl Fn(ChannelId) -> bool) -> ChannelId {
        while is_in_use(self.next) {
            self.next = self.next.next();
        }
        let free = self.next;
        self.next = free.next();
        free
    }
}

/// Names a command channel within one relay's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a client from its arrival on, and the session that it becomes: 128 random bits, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<SessionId, ParseIntError> {
        u128::from_str_radix(text, 16).map(SessionId)
    }
}

/// Which host something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostId {
    /// Of version 1, which names no hosts: an address is one host. Canonical: see [`HostId::from_address`].
    Address(IpAddr),
    /// Of version 2: 128 random bits that a process gave itself, written as 32 hex digits.
    Process(u128),
}

impl HostId {
    /// The v1 host at `address`; an IPv4 address mapped into IPv6 is the IPv4 address.
    pub fn from_address(address: IpAddr) -> HostId {
        HostId::Address(address.to_canonical())
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostId::Address(address) => address.fmt(f),
            HostId::Process(number) => write!(f, "{number:032x}"),
        }
    }
}

impl FromStr for HostId {
    type Err = InvalidHostId;

    fn from_str(text: &str) -> Result<HostId, InvalidHostId> {
        // No address has 32 digits and nothing else.
        if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let number = u128::from_str_radix(text, 16).map_err(|_| InvalidHostId)?;
            return Ok(HostId::Process(number));
        }
        text.parse().map(HostId::from_address).map_err(|_| InvalidHostId)
    }
}

/// A text is neither an address nor 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHostId;

/// What ties a host's data channels to its command channel: new with each command channel, known to the two alone.
#[derive(Clone, Copy)]
pub struct ChannelKey(u128);

impl ChannelKey {
    /// The key made of these 128 random bits.
    pub const fn new(bits: u128) -> ChannelKey {
        ChannelKey(bits)
    }

    /// The bits, for the wire.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn is(self, other: ChannelKey) -> bool {
        let differing = std::hint::black_box(self.0 ^ other.0);
        differing == 0
    }
}

impl fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelKey(***)")
    }
}

/// Names a grant: the token's public part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(Arc<str>);

impl GrantId {
    /// The grant of the token whose public part is `id`.
    pub fn new(id: &str) -> GrantId {
        GrantId(Arc::from(id))
    }

    /// The token's public part.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name under which hosts are grouped. v1 names none: its hosts serve one that the relay chooses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The service called `name`.
    pub fn new(name: &str) -> ServiceName {
        ServiceName(Arc::from(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ServiceName {
    fn default() -> ServiceName {
        ServiceName::new("default")
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_ids_ascend_wrap_and_skip_those_in_use() {
        let mut ids = ChannelIds::starting_at(ChannelId(i32::MAX - 1));
        let mut next = |in_use: &[i32]| ids.next_free(|id| in_use.contains(&id.get())).get();
        assert_eq!([next(&[]), next(&[]), next(&[]), next(&[])], [i32::MAX - 1, i32::MAX, 1, 2]);

        ids.next = ChannelId(i32::MAX - 1);
        let mut next = |in_use: &[i32]| ids.next_free(|id| in_use.contains(&id.get())).get();
        assert_eq!(next(&[i32::MAX - 1, i32::MAX, 2]), 1, "the only free one of the next four");
        assert_eq!(next(&[i32::MAX - 1, i32::MAX, 1, 2]), 3);
    }

    #[test]
    fn channel_ids_are_positive() {
        assert_eq!(ChannelId::new(0), None);
        assert_eq!(ChannelId::new(-1), None);
        assert_eq!(ChannelId::new(1), Some(ChannelId(1)));
    }

    #[test]
    fn a_v4_mapped_address_is_the_same_host() {
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let plain: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(HostId::from_address(mapped), HostId::from_address(plain));
    }
}
