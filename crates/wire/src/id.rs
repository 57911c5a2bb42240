//! The names of 16 random bytes that version 2 gives to hosts and sessions.
//!
//! Messages carry them; who draws them decides that they are random. They are no secrets: [`secret`](crate::secret) has
//! those.

use std::fmt;

use crate::{MessageError, malformed, missing};

/// A host process, by 16 bytes that it draws when it starts. Shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub [u8; 16]);

/// A session, by 16 bytes that the relay draws. Shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// The 16 bytes of an id or a key. The bytes themselves never stand in the error: they may be a secret.
pub(crate) fn sixteen(
    message: &'static str,
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; 16], MessageError> {
    if bytes.is_empty() {
        return Err(missing(message, field));
    }
    <[u8; 16]>::try_from(bytes).map_err(|_wrong_length| {
        malformed(message, format!("{field} of {} bytes, expected 16", bytes.len()))
    })
}

fn write_hex(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{:032x}", u128::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_as_32_hex_digits() {
        let mut bytes = [0; 16];
        bytes[0] = 0x0a;
        bytes[15] = 0xff;
        let shown = "0a0000000000000000000000000000ff";
        assert_eq!(HostId(bytes).to_string(), shown);
        assert_eq!(format!("{:?}", SessionId(bytes)), shown);
    }

    #[test]
    fn ids_of_another_length_are_refused_and_not_shown() {
        assert_eq!(sixteen("start", "session_id", b""), Err(missing("start", "session_id")));
        for len in [1, 15, 17, 32] {
            let error = sixteen("hello", "channel_key", &vec![b'k'; len]).unwrap_err();
            let expected = format!("malformed hello: channel_key of {len} bytes, expected 16");
            assert_eq!(error.to_string(), expected);
        }
    }
}
