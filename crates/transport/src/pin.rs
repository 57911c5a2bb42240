//! Pins: how a host knows the relay that it was told of, whoever signed the relay's certificate and whatever its dates.
//!
//! A pin is no secret. It is made here and compared by `tls.rs`; nothing here decides whom to trust.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::base64url;

/// The SHA-256 of a public key, as a certificate carries it (SubjectPublicKeyInfo in DER, RFC 5280, section 4.1.2.7). As text
/// it is 43 characters of base64url. A renewed certificate with the same key has the same pin.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// The text is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a pin of 43 characters, A-Z, a-z, 0-9, '-' and '_', got {0}")]
pub struct InvalidPin(base64url::Invalid);

/// The bytes are no certificate, or none with a public key to be found.
#[cfg(feature = "tls")]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not an X.509 certificate: {0}")]
pub struct NotACertificate(String);

impl Pin {
    /// The pin of the key in a certificate in DER.
    ///
    /// # Errors
    /// [`NotACertificate`].
    #[cfg(feature = "tls")]
    pub fn of_certificate(der: &[u8]) -> Result<Pin, NotACertificate> {
        use aws_lc_rs::digest::{SHA256, digest};

        let der = rustls::pki_types::CertificateDer::from(der);
        let certificate = rustls::server::ParsedCertificate::try_from(&der)
            .map_err(|error| NotACertificate(error.to_string()))?;
        let hash = digest(&SHA256, &certificate.subject_public_key_info());
        let bytes = hash.as_ref().try_into();
        bytes.map(Pin).map_err(|_| NotACertificate("SHA-256 is not 32 bytes".to_owned()))
    }

    /// The hash itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Pin {
    fn from(hash: [u8; 32]) -> Pin {
        Pin(hash)
    }
}

impl FromStr for Pin {
    type Err = InvalidPin;

    fn from_str(text: &str) -> Result<Pin, InvalidPin> {
        base64url::decode(text).map(|hash| Pin(*hash)).map_err(InvalidPin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_back() {
        let pin = Pin([0xfb; 32]);
        let text = pin.to_string();
        assert_eq!(text.parse::<Pin>().unwrap(), pin);
        assert_eq!(format!("{pin:?}"), format!("Pin({text})"));
    }

    #[test]
    fn what_is_no_pin_is_refused_with_what_is_wrong() {
        let error = "abc".parse::<Pin>().unwrap_err().to_string();
        assert!(error.ends_with("got 3 characters where 43 are due"), "{error}");
    }
}
