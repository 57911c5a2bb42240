//! Tokens: the secret by which a host shows that it has a grant.
//!
//! Made by the relay's operator, sent by a host inside TLS, compared by the relay. The secret leaves a [`Token`] only by
//! [`Token::expose`] and, as a hash, by [`Token::secret_hash`]; no error and no `Debug` shows it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::base64url;
#[cfg(feature = "tls")]
use crate::random::sha256;

const PREFIX: &str = "rls_";

/// `rls_ID.SECRET`: the id, which may be logged, and 256 random bits in base64url without padding, which may not. Its memory
/// is overwritten when it is dropped.
#[derive(Clone)]
pub struct Token {
    id: String,
    secret: Zeroizing<[u8; 32]>,
}

/// The text is no token. Says what is wrong with it and nothing of what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidToken {
    /// It does not begin as tokens do.
    #[error("expected rls_ID.SECRET, got no rls_ at its beginning")]
    Prefix,
    /// Nothing divides id and secret.
    #[error("expected rls_ID.SECRET, got no '.'")]
    NoSecret,
    /// The id is empty or too long.
    #[error("a token's id of {0} characters is not one of 1 to 32")]
    IdLength(usize),
    /// The id has a character that is not allowed.
    #[error("a token's id has a character other than A-Z, a-z, 0-9, '-' and '_'")]
    IdCharacter,
    /// The secret is cut off, or more than that.
    #[error("a token's secret of {0} characters is not one of 43")]
    SecretLength(usize),
    /// The secret was not written by [`Token::expose`].
    #[error("a token's secret is not 32 bytes in base64url")]
    Secret,
}

/// There is no new token.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// The id is none.
    #[error(transparent)]
    Id(#[from] InvalidToken),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a secret")]
    NoRandomness,
}

impl Token {
    /// How many characters an id may have.
    pub const ID_LEN_MAX: usize = 32;

    /// The name of the token, which is no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The token as text, secret and all: for a join line, a file of its own, or the wire.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}.{}", self.id, *base64url::encode(&self.secret))
    }
}

#[cfg(feature = "tls")]
impl Token {
    /// A new token with a secret of the system's randomness.
    ///
    /// # Errors
    /// [`TokenError`]: `id` is not 1 to 32 of A-Z, a-z, 0-9, '-', '_', or there is no randomness.
    pub fn generate(id: &str) -> Result<Token, TokenError> {
        check_id(id)?;
        let mut secret = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(secret.as_mut()).map_err(|_| TokenError::NoRandomness)?;
        Ok(Token { id: id.to_owned(), secret })
    }

    /// The SHA-256 of the secret's 32 bytes: what a relay keeps of a token. No salt, as nobody can guess 256 random bits.
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(self.secret.as_ref())
    }

    /// Whether the secret is the one that `hash` was made of. Takes as long for each answer.
    pub fn is_of_hash(&self, hash: &[u8; 32]) -> bool {
        equal_in_constant_time(&self.secret_hash(), hash)
    }
}

/// Whether two secrets are the same. How long it takes depends on nothing but their lengths.
#[cfg(feature = "tls")]
pub fn equal_in_constant_time(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Token, InvalidToken> {
        let rest = text.strip_prefix(PREFIX).ok_or(InvalidToken::Prefix)?;
        let (id, secret) = rest.split_once('.').ok_or(InvalidToken::NoSecret)?;
        check_id(id)?;
        let secret = base64url::decode(secret).map_err(|invalid| match invalid {
            base64url::Invalid::Length(len) => InvalidToken::SecretLength(len),
            _ => InvalidToken::Secret,
        })?;
        Ok(Token { id: id.to_owned(), secret })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}.***", self.id)
    }
}

fn check_id(id: &str) -> Result<(), InvalidToken> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !id.bytes().all(is_allowed) {
        return Err(InvalidToken::IdCharacter);
    }
    match id.len() {
        1..=Token::ID_LEN_MAX => Ok(()),
        len => Err(InvalidToken::IdLength(len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s";

    #[test]
    fn a_token_reads_back() {
        let text = format!("rls_build-7_A.{SECRET}");
        let token: Token = text.parse().unwrap();
        assert_eq!(token.id(), "build-7_A");
        assert_eq!(token.expose(), text);
    }

    #[test]
    fn a_token_shows_its_id_and_never_its_secret() {
        let token: Token = format!("rls_home.{SECRET}").parse().unwrap();
        assert_eq!(format!("{token:?}"), "rls_home.***");
        assert_eq!(format!("{token:#?}"), "rls_home.***");
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let long = "i".repeat(33);
        for (text, wanted) in [
            (String::new(), InvalidToken::Prefix),
            (SECRET.to_owned(), InvalidToken::Prefix),
            (format!("RLS_a.{SECRET}"), InvalidToken::Prefix),
            (format!(" rls_a.{SECRET}"), InvalidToken::Prefix),
            (format!("rls_{SECRET}"), InvalidToken::NoSecret),
            (format!("rls_.{SECRET}"), InvalidToken::IdLength(0)),
            (format!("rls_{long}.{SECRET}"), InvalidToken::IdLength(33)),
            (format!("rls_a b.{SECRET}"), InvalidToken::IdCharacter),
            (format!("rls_ä.{SECRET}"), InvalidToken::IdCharacter),
            ("rls_a.".to_owned(), InvalidToken::SecretLength(0)),
            (format!("rls_a.{SECRET}\n"), InvalidToken::SecretLength(44)),
            (format!("rls_a.{}.", &SECRET[..42]), InvalidToken::Secret),
            (format!("rls_a.{}t", &SECRET[..42]), InvalidToken::Secret),
        ] {
            let error = text.parse::<Token>().unwrap_err();
            assert_eq!(error, wanted, "{text:?}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(&SECRET[..8]), "{shown}");
        }
        assert!(format!("rls_{}.{SECRET}", &long[1..]).parse::<Token>().is_ok());
    }

    #[cfg(feature = "tls")]
    #[test]
    fn the_hash_is_sha_256_of_the_secrets_bytes() {
        let token: Token = format!("rls_a.{}", "A".repeat(43)).parse().unwrap();
        // sha256sum of 32 zero bytes
        let wanted = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        let hash: String = token.secret_hash().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, wanted);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn only_the_same_secret_is_of_the_hash() {
        let token = Token::generate("a").unwrap();
        let same: Token = token.expose().parse().unwrap();
        let other = Token::generate("a").unwrap();
        assert!(same.is_of_hash(&token.secret_hash()));
        assert!(!other.is_of_hash(&token.secret_hash()));
        assert_ne!(other.expose(), token.expose());
        assert!(!equal_in_constant_time(b"key", b"keys"));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_new_token_has_a_good_id_or_is_none() {
        let error = Token::generate("a.b").unwrap_err();
        assert_eq!(error, TokenError::Id(InvalidToken::IdCharacter));
        assert_eq!(Token::generate("a-b").unwrap().id(), "a-b");
    }
}
