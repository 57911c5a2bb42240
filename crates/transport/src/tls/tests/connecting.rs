//! Whom a client trusts, and what it says of the others.

use std::future::Future;
use std::io::ErrorKind;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::abort;

#[tokio::test]
async fn two_of_ours_agree_on_keys_that_no_quantum_computer_finds() {
    let (client, server) = pair().await;
    for stream in [&client, &server] {
        assert!(stream.is_encrypted());
        assert_eq!(tls(stream).key_exchange().unwrap(), "X25519MLKEM768");
        let session = tls(stream).inner.get_ref().1;
        assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(session.alpn_protocol(), Some(&b"relayserver/2"[..]));
    }
    assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
    assert_eq!(client.local_addr().unwrap(), server.peer_addr().unwrap());
}

#[tokio::test]
async fn any_of_several_pins_will_do() {
    let (old, new) = (server(), server());
    let client = ClientTls::pinned(&[old.pin(), new.pin()]).unwrap();
    for server in [&old, &new] {
        let (connected, accepted) = handshake(&client, server).await;
        assert!(connected.is_ok() && accepted.is_ok());
    }
    assert_eq!(ClientTls::pinned(&[]).unwrap_err(), TlsError::NoPins);
}

#[tokio::test]
async fn a_renewed_certificate_with_the_same_key_keeps_its_hosts() {
    let identity = generate_identity(&["old.test".to_owned()]).unwrap();
    let key = identity.key_pem.as_bytes();
    let old = ServerTls::from_pem(identity.certificate_pem.as_bytes(), key).unwrap();
    let params = CertificateParams::new(["new.test".to_owned()]).unwrap();
    let renewed = params.self_signed(&KeyPair::from_pem(&identity.key_pem).unwrap()).unwrap();
    let new = ServerTls::from_pem(renewed.pem().as_bytes(), key).unwrap();
    assert_ne!(renewed.pem(), identity.certificate_pem);
    assert_eq!(new.pin(), old.pin());
    let (connected, _accepted) = handshake(&pinning(&old), &new).await;
    connected.unwrap();
}

#[tokio::test]
async fn another_key_is_refused_and_named_by_its_pin() {
    let (expected, other) = (server(), server());
    let (connected, accepted) = handshake(&pinning(&expected), &other).await;
    let error = connected.unwrap_err();
    let TlsConnectError::PinMismatch { presented } = &error else { panic!("{error:?}") };
    assert_eq!(*presented, other.pin());
    assert!(error.to_string().contains(&other.pin().to_string()), "{error}");
    let refused = accepted.unwrap_err();
    let TlsAcceptError::Alert { alert } = &refused else { panic!("{refused:?}") };
    assert_eq!(alert, "CertificateUnknown");
}

#[tokio::test]
async fn the_right_certificate_without_its_key_is_refused() {
    let (ours, thiefs) = (generate_identity(&[]).unwrap(), generate_identity(&[]).unwrap());
    let right = CertificateDer::from_pem_slice(ours.certificate_pem.as_bytes()).unwrap();
    let pin = Pin::of_certificate(&right).unwrap();
    let key = PrivateKeyDer::from_pem_slice(thiefs.key_pem.as_bytes()).unwrap();
    let key = provider().key_provider.load_private_key(key).unwrap();
    let mut config = server_config(CertifiedKey::new(vec![right], key));
    config.alpn_protocols = vec![ALPN.to_vec()];
    let error = refused_by(&ClientTls::pinned(&[pin]).unwrap(), config).await;
    assert_eq!(error.to_string(), "the certificate is not trusted: its signature is wrong");
}

/// A server as others write them, with whatever key.
fn server_config(key: CertifiedKey) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&TLS13]).unwrap().with_no_client_auth();
    builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
}

async fn refused_by(client: &ClientTls, config: ServerConfig) -> TlsConnectError {
    let (dialled, accepted) = tcp_pair().await;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let both =
        async { tokio::join!(client.connect(dialled, "relay.test"), acceptor.accept(accepted)) };
    timeout(DEADLINE, both).await.unwrap().0.unwrap_err()
}

#[tokio::test]
async fn a_server_of_another_protocol_is_refused() {
    for protocols in [vec![], vec![b"h2".to_vec(), b"http/1.1".to_vec()]] {
        let identity = generate_identity(&[]).unwrap();
        let certificate =
            CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
        let client = ClientTls::pinned(&[Pin::of_certificate(&certificate).unwrap()]).unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
        let key = CertifiedKey::from_der(vec![certificate], key, &provider()).unwrap();
        let mut config = server_config(key);
        config.alpn_protocols = protocols;
        let error = refused_by(&client, config).await;
        assert!(matches!(error, TlsConnectError::AlpnRefused), "{error:?}");
    }
}

/// A certificate authority and what it has vouched for.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn named(name: &str) -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Authority(issuer.unwrap())
    }

    fn client(&self) -> ClientTls {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        ClientTls::trusting(roots).unwrap()
    }

    fn server(&self, name: &str, expired: bool) -> ServerTls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = key.serialize_pem();
        ServerTls::from_pem(certificate.pem().as_bytes(), key.as_bytes()).unwrap()
    }
}

#[tokio::test]
async fn without_pins_the_authority_the_name_and_the_date_decide() {
    let authority = Authority::named("ours");
    let client = authority.client();
    let (connected, accepted) = handshake(&client, &authority.server("relay.test", false)).await;
    assert!(connected.is_ok() && accepted.is_ok());

    for (server, wanted) in [
        (authority.server("other.test", false), "not valid for name"),
        (authority.server("relay.test", true), "expired"),
        (Authority::named("another").server("relay.test", false), "nobody whom this system trusts"),
        (server(), "nobody whom this system trusts"),
    ] {
        let (connected, _accepted) = handshake(&client, &server).await;
        let error = connected.unwrap_err();
        let TlsConnectError::Untrusted { reason } = &error else { panic!("{error:?}") };
        assert!(reason.contains(wanted), "{reason}");
    }
}

#[tokio::test]
async fn an_address_is_as_good_as_a_name() {
    let authority = Authority::named("ours");
    let client = authority.client();
    for (certified, dialled_as, good) in [
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.2", "127.0.0.1", false),
        ("fe80::1", "fe80::1%eth0", true),
    ] {
        let server = authority.server(certified, false);
        let (dialled, accepted) = tcp_pair().await;
        let (connected, _accepted) =
            tokio::join!(client.connect(dialled, dialled_as), server.accept(accepted));
        assert_eq!(connected.is_ok(), good, "{connected:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_none_matters_only_where_names_do() {
    let server = server();
    let (dialled, accepted) = tcp_pair().await;
    let client = pinning(&server);
    let (connected, _accepted) =
        tokio::join!(client.connect(dialled, "not..a name"), server.accept(accepted));
    connected.unwrap();

    let (dialled, _accepted) = tcp_pair().await;
    let error =
        Authority::named("ours").client().connect(dialled, "not..a name").await.unwrap_err();
    assert!(matches!(&error, TlsConnectError::BadName(name) if name == "not..a name"), "{error:?}");
}

#[tokio::test]
async fn the_systems_roots_vouch_for_nobody_who_signed_himself() {
    let client = match ClientTls::system_roots() {
        Ok(client) => client,
        // A machine without any.
        Err(error) => return assert!(matches!(error, TlsError::NoSystemRoots(_)), "{error}"),
    };
    let (connected, _accepted) = handshake(&client, &server()).await;
    let error = connected.unwrap_err();
    assert!(matches!(error, TlsConnectError::Untrusted { .. }), "{error:?}");
}

/// What a client says of somebody who does `act` with its connection.
async fn said_of<F: Future<Output = ()>>(act: impl FnOnce(TcpStream) -> F) -> TlsConnectError {
    let (dialled, accepted) = tcp_pair().await;
    let client = pinning(&server());
    let both = async { tokio::join!(client.connect(dialled, "relay.test"), act(accepted)) };
    timeout(DEADLINE, both).await.unwrap().0.unwrap_err()
}

/// Takes the client's first bytes.
async fn hears_hello(stream: &mut TcpStream) {
    assert!(stream.read(&mut [0; 16 * 1024]).await.unwrap() > 0);
}

/// Answers the client's first bytes, and waits for its end.
async fn answers(mut stream: TcpStream, answer: &[u8]) {
    hears_hello(&mut stream).await;
    stream.write_all(answer).await.unwrap();
    while !matches!(stream.read(&mut [0; 1024]).await, Ok(0) | Err(_)) {}
}

#[tokio::test]
async fn who_speaks_something_else_is_quoted() {
    for (answer, wanted) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], r#"first bytes are "HTTP/1.1 400 Bad""#),
        (b"SSH-2.0-OpenSSH_9.9\r\n", r#"first bytes are "SSH-2.0-OpenSSH_""#),
        // An answer of version 1.
        (b"\0\0\0\x04\x08\x01\x12\x00", r#"first bytes are "\x00\x00\x00\x04\x08\x01\x12\x00""#),
        // The first byte alone might be TLS.
        (b"\x16SSH-2.0", r#"first bytes are "\x16SSH-2.0""#),
    ] {
        let error = said_of(|stream| answers(stream, answer)).await;
        let TlsConnectError::NotTls { first_bytes: said } = &error else { panic!("{error:?}") };
        assert!(answer.starts_with(said.as_bytes()), "{said:?}");
        let text = error.to_string();
        assert!(text.ends_with(wanted), "{text}");
    }
}

#[tokio::test]
async fn who_speaks_something_else_and_closes_is_quoted_too() {
    let error = said_of(|mut stream| async move {
        hears_hello(&mut stream).await;
        stream.write_all(b"no").await.unwrap();
    });
    let error = error.await;
    assert!(error.to_string().ends_with(r#"first bytes are "no""#), "{error:?}");
}

#[tokio::test]
async fn who_closes_without_a_word_speaks_no_tls() {
    let ends = said_of(|mut stream| async move {
        hears_hello(&mut stream).await;
    });
    let resets = said_of(|stream| async move { abort(stream) });
    for error in [ends.await, resets.await] {
        let TlsConnectError::NotTls { first_bytes } = &error else { panic!("{error:?}") };
        assert_eq!(first_bytes.as_bytes(), b"");
        assert!(error.to_string().ends_with("closed before its first byte"), "{error}");
    }
}

#[tokio::test]
async fn another_alert_is_named() {
    // What a server that knows no TLS 1.3 answers: record, version 1.2, 2 bytes: fatal, protocol_version.
    let error = said_of(|stream| answers(stream, b"\x15\x03\x03\x00\x02\x02\x46")).await;
    let TlsConnectError::Alert { alert } = &error else { panic!("{error:?}") };
    assert_eq!(alert, "ProtocolVersion");
}

#[tokio::test]
async fn tls_that_makes_no_sense_is_a_failed_handshake() {
    let error = said_of(|stream| answers(stream, b"\x17\x03\x03\x00\x01\x00")).await;
    assert!(matches!(error, TlsConnectError::Handshake(_)), "{error:?}");
}

#[tokio::test]
async fn a_connection_lost_halfway_is_a_failed_connection() {
    let error = said_of(|mut stream| async move {
        hears_hello(&mut stream).await;
        stream.write_all(b"\x16\x03\x03\x00").await.unwrap();
    });
    let error = error.await;
    let TlsConnectError::Io(io) = &error else { panic!("{error:?}") };
    assert_eq!(io.kind(), ErrorKind::UnexpectedEof);
}
