//! Trust by pin: whose key it is decides, and not who signed the certificate, its names or its dates.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use thiserror::Error;

use crate::{Pin, equal_in_constant_time};

#[derive(Debug)]
pub(super) struct PinVerifier {
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

/// The key that a relay presented is none of those that were expected.
#[derive(Debug, Error)]
#[error("the key's pin is {presented}")]
pub(super) struct PinMismatch {
    pub(super) presented: Pin,
}

impl PinVerifier {
    pub(super) fn new(pins: &[Pin], provider: Arc<CryptoProvider>) -> PinVerifier {
        PinVerifier { pins: pins.to_vec(), provider }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = Pin::of_certificate(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        // Each pin is compared, whichever of them it is.
        let is_it = |pin: &Pin| equal_in_constant_time(pin.as_bytes(), presented.as_bytes());
        if self.pins.iter().fold(false, |found, pin| found | is_it(pin)) {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = OtherError(Arc::new(PinMismatch { presented }));
        Err(Error::InvalidCertificate(CertificateError::Other(mismatch)))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Never asked for: this is built for TLS 1.3 alone.
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
