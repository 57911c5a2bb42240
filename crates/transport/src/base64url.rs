//! 32 bytes as 43 characters of base64url without padding (RFC 4648, section 5), as pins and tokens write them.
//!
//! Works in constant time, as the bytes may be a secret. Of the text, no more than its length ever gets into an error.

use base64ct::{Base64UrlUnpadded, Encoding};
use thiserror::Error;
use zeroize::Zeroizing;

/// How many characters 32 bytes make.
pub(crate) const LEN: usize = 43;

/// The text is not 32 bytes in base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Invalid {
    #[error("{0} characters where 43 are due")]
    Length(usize),
    #[error("a character other than A-Z, a-z, 0-9, '-' and '_'")]
    Character,
    #[error("a last character that no 32 bytes end in")]
    LastCharacter,
}

pub(crate) fn encode(bytes: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(Base64UrlUnpadded::encode_string(bytes))
}

/// One text alone stands for each value.
pub(crate) fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, Invalid> {
    let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if text.len() != LEN {
        return Err(Invalid::Length(text.chars().count()));
    }
    if !text.bytes().all(is_ours) {
        return Err(Invalid::Character);
    }
    let mut bytes = Zeroizing::new([0; 32]);
    match Base64UrlUnpadded::decode(text, bytes.as_mut()) {
        Ok(_decoded) => Ok(bytes),
        Err(_) => Err(Invalid::LastCharacter),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_alphabet_is_base64url() {
        let bytes = [0xfb; 32];
        let text = encode(&bytes);
        assert_eq!(text.as_str(), "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s");
        assert_eq!(*decode(&text).unwrap(), bytes);
    }

    #[test]
    fn each_value_has_one_text() {
        let text = "A".repeat(LEN);
        assert_eq!(*decode(&text).unwrap(), [0; 32]);
        let error = |text: &str| decode(text).unwrap_err();
        assert_eq!(error(&text[1..]), Invalid::Length(42));
        assert_eq!(error(&format!("{text}=")), Invalid::Length(44));
        assert_eq!(error(&format!("{}B", &text[1..])), Invalid::LastCharacter);
        for character in ['=', '+', '/', ' ', '\n'] {
            assert_eq!(error(&format!("{}{character}", &text[1..])), Invalid::Character);
        }
        // 43 bytes, but fewer characters.
        assert_eq!(error(&format!("{}ß", &text[2..])), Invalid::Character);
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(bytes: [u8; 32]) {
            let text = encode(&bytes);
            prop_assert_eq!(text.len(), LEN);
            prop_assert_eq!(*decode(&text).unwrap(), bytes);
        }

        #[test]
        fn what_is_decoded_is_written_the_same(text in "[A-Za-z0-9_-]{43}") {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(&*encode(&bytes), &text);
            }
        }
    }
}
