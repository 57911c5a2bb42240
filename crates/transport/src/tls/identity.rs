//! The key and certificate that a relay makes for itself. Nothing here writes a file.

use std::fmt;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use zeroize::Zeroizing;

use super::{TlsError, cryptography};

/// A certificate and its key, as PEM text.
pub struct Identity {
    /// `BEGIN CERTIFICATE`: for everybody.
    pub certificate_pem: String,
    /// `BEGIN PRIVATE KEY` (PKCS #8): for the relay alone. Overwritten when it is dropped.
    pub key_pem: Zeroizing<String>,
}

/// Makes a new key (ECDSA on P-256) and a certificate for it, made out to `names` and signed with the key itself. It is for
/// hosts that hold its [`Pin`](crate::Pin): nobody has vouched for it, and it is valid until the year 9999.
///
/// # Errors
/// [`TlsError::BadName`]; [`TlsError::Cryptography`] where there is no randomness.
pub fn generate_identity(names: &[String]) -> Result<Identity, TlsError> {
    let mut params = CertificateParams::default();
    for name in names {
        let named = CertificateParams::new([name.clone()]);
        let named = named.map_err(|_| TlsError::BadName(name.clone()))?;
        params.subject_alt_names.extend(named.subject_alt_names);
    }
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "relayserver");
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(cryptography)?;
    let key = Zeroizing::new(key);
    let certificate = params.self_signed(&*key).map_err(cryptography)?;
    let key_pem = Zeroizing::new(key.serialize_pem());
    Ok(Identity { certificate_pem: certificate.pem(), key_pem })
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificate_pem", &self.certificate_pem)
            .field("key_pem", &"***")
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_not_shown() {
        let identity = generate_identity(&["relay.example.com".to_owned()]).unwrap();
        assert!(identity.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
        let secret = identity.key_pem.lines().nth(1).unwrap();
        let shown = format!("{identity:?} {identity:#?}");
        assert!(shown.contains("BEGIN CERTIFICATE"), "{shown}");
        assert!(!shown.contains(secret) && !shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let error = generate_identity(&["relay".to_owned(), "bücher".to_owned()]).unwrap_err();
        assert_eq!(error, TlsError::BadName("bücher".to_owned()));
    }

    #[test]
    fn each_identity_has_a_key_of_its_own() {
        let make = || generate_identity(&[]).unwrap().key_pem;
        assert_ne!(*make(), *make());
    }
}
