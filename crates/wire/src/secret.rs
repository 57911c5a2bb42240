//! What must not be seen: the token by which a host has a grant, and the key that ties its data channels to its command
//! channel.
//!
//! Messages carry them. They never show in `Debug`, have no `Display`, and are compared in a time that does not tell how
//! much of them is right.

use std::fmt;
use std::hint;

use crate::{MessageError, malformed};

/// The longest token, in bytes.
pub const TOKEN_LEN_MAX: usize = 256;

/// A host's secret, `rls_ID.SECRET`. Here it is any text: what it grants is for the relay to find out.
#[derive(Clone, Eq)]
pub struct Token(String);

/// 16 random bytes that a relay answers on a command channel and that each data channel presents.
#[derive(Clone, Copy, Eq)]
pub struct ChannelKey([u8; 16]);

impl Token {
    /// The secret as it is. A token of more than [`TOKEN_LEN_MAX`] bytes is refused by every relay.
    pub fn new(secret: String) -> Token {
        Token(secret)
    }

    /// The secret itself, for who checks it. It must not get into a log or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn check_len(&self, message: &'static str) -> Result<(), MessageError> {
        let len = self.0.len();
        if len > TOKEN_LEN_MAX {
            let detail = format!("token of {len} bytes exceeds {TOKEN_LEN_MAX}");
            return Err(malformed(message, detail));
        }
        Ok(())
    }
}

impl ChannelKey {
    /// The key as it is. A relay draws it at random, for each command channel anew.
    pub fn new(bytes: [u8; 16]) -> ChannelKey {
        ChannelKey(bytes)
    }

    /// The key itself. It must not get into a log or an error.
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Token) -> bool {
        is_same(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl PartialEq for ChannelKey {
    fn eq(&self, other: &ChannelKey) -> bool {
        is_same(&self.0, &other.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Looks at every byte, wherever they differ first. The time tells the length, which is no secret.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let pairs = one.iter().zip(other);
    // Without the black box a compiler may stop at the first difference.
    pairs.fold(0, |differences, (a, b)| hint::black_box(differences | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_show() {
        let token = Token::new("rls_id.secret".to_owned());
        assert_eq!(format!("{token:?} {:#?}", Some(&token)), "*** Some(\n    ***,\n)");
        assert_eq!(token.expose(), "rls_id.secret");
        let key = ChannelKey::new([7; 16]);
        assert_eq!(format!("{key:?}"), "***");
        assert_eq!(key.expose(), &[7; 16]);
    }

    #[test]
    fn secrets_are_the_same_only_when_all_of_their_bytes_are() {
        let key = ChannelKey::new([7; 16]);
        assert_eq!(key, ChannelKey::new([7; 16]));
        for place in 0..16 {
            let mut bytes = [7; 16];
            bytes[place] ^= 0x80;
            assert_ne!(key, ChannelKey::new(bytes), "byte {place}");
        }
        let token = |text: &str| Token::new(text.to_owned());
        assert_eq!(token("rls_a.b"), token("rls_a.b"));
        for other in ["", "rls_a.", "rls_a.c", "sls_a.b", "rls_a.bb"] {
            assert_ne!(token("rls_a.b"), token(other), "{other}");
        }
    }

    #[test]
    fn a_token_that_is_too_long_is_refused_and_not_shown() {
        let token = |len| Token::new("s".repeat(len));
        assert_eq!(token(256).check_len("hello"), Ok(()));
        let error = token(257).check_len("hello").unwrap_err();
        assert_eq!(error.to_string(), "malformed hello: token of 257 bytes exceeds 256");
    }
}
