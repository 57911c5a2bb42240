//! The host's side of TLS: whom it trusts, and why a relay was not trusted, told so that its user can do something about it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConfigBuilder, Error, RootCertStore,
    WantsVerifier,
};
use thiserror::Error;
use tokio_rustls::TlsConnector;

use super::opening::Opening;
use super::verifier::{PinMismatch, PinVerifier};
use super::{ALPN, Failure, TlsError, TlsStream, cryptography, provider};
use crate::net::TcpStream;
use crate::{Pin, Stream};

/// Whom to trust, ready to connect. Clones are one and the same, and share session tickets.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    names_matter: bool,
}

/// Why there is no connection to a relay that can be trusted. Nothing was sent by then but the handshake.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsConnectError {
    /// The relay has another key than those that were pinned: the key was changed, or somebody stands in between.
    #[error("the key's pin is {presented}, and that is not one that was expected")]
    PinMismatch {
        /// The pin of the key that it has.
        presented: Pin,
    },
    /// Its certificate is not vouched for, is for another name, is not valid now, or its signature is wrong.
    #[error("the certificate is not trusted: {reason}")]
    Untrusted {
        /// What is wrong with it.
        reason: String,
    },
    /// What listens there does not speak TLS: its first bytes are something else, or it closed before any.
    #[error("no TLS is spoken there: {first_bytes}")]
    NotTls {
        /// What it sent instead.
        first_bytes: FirstBytes,
    },
    /// It speaks TLS, and not our protocol.
    #[error("it speaks TLS, but not relayserver/2")]
    AlpnRefused,
    /// It ended the handshake with an alert, as where it knows no TLS 1.3.
    #[error("it ended the handshake with alert {alert}")]
    Alert {
        /// The alert's name (RFC 8446, section 6), as in `ProtocolVersion`.
        alert: String,
    },
    /// Its TLS and ours have nothing in common, or it broke the protocol.
    #[error("handshake failed: {0}")]
    Handshake(String),
    /// The name cannot be one of a certificate, and certificates decide.
    #[error("{0:?} is neither a host name nor an address")]
    BadName(String),
    /// The connection failed.
    #[error("connection failed: {0}")]
    Io(#[source] io::Error),
}

/// How somebody who does not speak TLS begins: the first bytes of something else (16 at most), or none, where the connection
/// was closed before any.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstBytes(Vec<u8>);

impl ClientTls {
    /// Trusts whoever has a key with one of these pins. Names and dates in its certificate do not matter.
    ///
    /// # Errors
    /// [`TlsError::NoPins`].
    pub fn pinned(pins: &[Pin]) -> Result<ClientTls, TlsError> {
        if pins.is_empty() {
            return Err(TlsError::NoPins);
        }
        let verifier = PinVerifier::new(pins, provider());
        let config = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(ClientTls::new(config, false))
    }

    /// Trusts whoever has a certificate for the name that is dialled from an authority that this system trusts.
    ///
    /// The authorities are read here and now, from where the system keeps them, or from where `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` say. rustls itself verifies, so that a certificate is good or bad on every system alike.
    ///
    /// Blocks on files.
    ///
    /// # Errors
    /// [`TlsError::NoSystemRoots`].
    pub fn system_roots() -> Result<ClientTls, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Systems have some that are no certificates by today's rules.
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map(|error| format!(": {error}"));
            return Err(TlsError::NoSystemRoots(why.unwrap_or_default()));
        }
        ClientTls::trusting(roots)
    }

    pub(super) fn trusting(roots: RootCertStore) -> Result<ClientTls, TlsError> {
        let config = builder()?.with_root_certificates(roots).with_no_client_auth();
        Ok(ClientTls::new(config, true))
    }

    fn new(mut config: ClientConfig, names_matter: bool) -> ClientTls {
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_early_data = false;
        ClientTls { config: Arc::new(config), names_matter }
    }

    /// Performs the handshake with the relay at the other end of `stream`, which was dialled as `host`: a name, or an
    /// address without brackets. There is no deadline in here.
    ///
    /// # Errors
    /// [`TlsConnectError`]; the connection is closed by then.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection with it.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> Result<Stream, TlsConnectError> {
        let name = self.server_name(&stream, host)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connected = connector.connect(name, Opening::new(stream)).into_fallible().await;
        let stream = connected.map_err(|(error, opening)| why(error.into(), &opening))?;
        // A server that knows nothing of ALPN agrees to any handshake.
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(TlsConnectError::AlpnRefused);
        }
        Ok(Stream::Tls(Box::new(TlsStream::new(stream.into()))))
    }

    /// What is asked for in the handshake, and what certificates must be for where they decide.
    fn server_name(
        &self,
        stream: &TcpStream,
        host: &str,
    ) -> Result<ServerName<'static>, TlsConnectError> {
        // Certificates know nothing of the zones of IPv6 addresses.
        let name = host.split_once('%').map_or(host, |(address, _zone)| address);
        match ServerName::try_from(name.to_owned()) {
            Ok(name) => Ok(name),
            Err(_) if self.names_matter => Err(TlsConnectError::BadName(host.to_owned())),
            Err(_) => {
                let address = stream.peer_addr().map_err(TlsConnectError::Io)?;
                Ok(ServerName::IpAddress(address.ip().into()))
            }
        }
    }
}

impl FirstBytes {
    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_bytes() {
            [] => f.write_str("the connection was closed before its first byte"),
            first => write!(f, "the first bytes are \"{}\"", first.escape_ascii()),
        }
    }
}

impl fmt::Debug for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FirstBytes(\"{}\")", self.as_bytes().escape_ascii())
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider());
    builder.with_protocol_versions(&[&TLS13]).map_err(cryptography)
}

fn why(failure: Failure, opening: &Opening) -> TlsConnectError {
    let first = opening.first_bytes();
    let not_tls = || TlsConnectError::NotTls { first_bytes: FirstBytes(first.to_vec()) };
    match failure {
        Failure::Tls(_) if !opening.is_tls() => not_tls(),
        Failure::Io(error) if !opening.is_tls() && (!first.is_empty() || is_close(&error)) => {
            not_tls()
        }
        Failure::Tls(Error::InvalidCertificate(error)) => untrusted(error),
        Failure::Tls(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            TlsConnectError::AlpnRefused
        }
        Failure::Tls(Error::AlertReceived(alert)) => {
            TlsConnectError::Alert { alert: format!("{alert:?}") }
        }
        Failure::Tls(error) => TlsConnectError::Handshake(error.to_string()),
        Failure::Io(error) => TlsConnectError::Io(error),
    }
}

/// Whether the other end closed, in whatever way. One that speaks something else often does so over what we sent.
fn is_close(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

fn untrusted(error: CertificateError) -> TlsConnectError {
    if let CertificateError::Other(other) = &error
        && let Some(mismatch) = other.0.downcast_ref::<PinMismatch>()
    {
        return TlsConnectError::PinMismatch { presented: mismatch.presented };
    }
    let reason = match error {
        CertificateError::UnknownIssuer => {
            "nobody whom this system trusts vouches for it".to_owned()
        }
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        error => error.to_string(),
    };
    TlsConnectError::Untrusted { reason }
}
