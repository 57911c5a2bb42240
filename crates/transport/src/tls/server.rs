//! The relay's side of TLS: one key, one certificate, tickets of its own.

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{Error, InconsistentKeys, ServerConfig};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use super::opening::Opening;
use super::{ALPN, Failure, TlsError, TlsStream, cryptography, provider};
use crate::net::TcpStream;
use crate::{Pin, Stream};

/// A relay's key and certificate, ready to accept connections. Clones are one and the same.
///
/// Session tickets are sealed with keys made here and replaced every 6 hours: another `ServerTls` opens none of them, so they
/// die with the key and certificate that they were issued under.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub(super) config: Arc<ServerConfig>,
    pin: Pin,
}

/// Why a connection that was accepted does not speak our TLS.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsAcceptError {
    /// It closed before the handshake was done.
    #[error("closed before the handshake was done")]
    Closed,
    /// It speaks something else.
    #[error("not TLS: {0}")]
    NotTls(String),
    /// It speaks TLS, but not our protocol.
    #[error("expected ALPN protocol relayserver/2, got none that is it")]
    AlpnRefused,
    /// It ended the handshake with an alert: where it expects another key, certificate, or protocol.
    #[error("the peer ended the handshake with alert {alert}")]
    Alert {
        /// The alert's name (RFC 8446, section 6), as in `CertificateUnknown`.
        alert: String,
    },
    /// Its TLS and ours have nothing in common, as where it knows no TLS 1.3; or it broke the protocol.
    #[error("handshake failed: {0}")]
    Handshake(String),
    /// The connection failed.
    #[error("connection failed: {0}")]
    Io(#[source] io::Error),
}

impl ServerTls {
    /// Reads PEM texts: the relay's certificate, followed by those that vouch for it, and its private key (PKCS #8, PKCS #1 or
    /// SEC 1).
    ///
    /// # Errors
    /// [`TlsError`] says which of them is missing or of no use.
    pub fn from_pem(cert_chain: &[u8], key: &[u8]) -> Result<ServerTls, TlsError> {
        let provider = provider();
        let chain = certificates(cert_chain)?;
        let leaf = chain.first().ok_or(TlsError::NoCertificate)?;
        let pin = Pin::of_certificate(leaf)
            .map_err(|error| TlsError::BadCertificate { number: 1, detail: error.to_string() })?;
        let certified = certified_key(chain, key, &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(cryptography)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        config.ticketer = Ticketer::new().map_err(cryptography)?;
        Ok(ServerTls { config: Arc::new(config), pin })
    }

    /// The pin of its key, for join lines.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// Performs the handshake. There is no deadline in here.
    ///
    /// # Errors
    /// [`TlsAcceptError`]; the connection is closed by then.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection with it.
    pub async fn accept(&self, stream: TcpStream) -> Result<Stream, TlsAcceptError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let accepted = acceptor.accept(Opening::new(stream)).into_fallible().await;
        let stream = accepted.map_err(|(error, opening)| why(error.into(), &opening))?;
        // A peer that names other protocols has been refused in the handshake; this one has named none.
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(TlsAcceptError::AlpnRefused);
        }
        Ok(Stream::Tls(Box::new(TlsStream::new(stream.into()))))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let numbered = CertificateDer::pem_slice_iter(pem).zip(1..);
    let read = numbered.map(|(read, number)| {
        read.map_err(|error| TlsError::BadCertificate { number, detail: error.to_string() })
    });
    read.collect()
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey,
        error => TlsError::BadKey(error.to_string()),
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyMismatch,
        error => TlsError::BadKey(error.to_string()),
    })
}

fn why(failure: Failure, opening: &Opening) -> TlsAcceptError {
    match failure {
        Failure::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            TlsAcceptError::Closed
        }
        Failure::Io(error) => TlsAcceptError::Io(error),
        Failure::Tls(error) if !opening.is_tls() => TlsAcceptError::NotTls(error.to_string()),
        Failure::Tls(Error::NoApplicationProtocol) => TlsAcceptError::AlpnRefused,
        Failure::Tls(Error::AlertReceived(alert)) => {
            TlsAcceptError::Alert { alert: format!("{alert:?}") }
        }
        Failure::Tls(error) => TlsAcceptError::Handshake(error.to_string()),
    }
}
