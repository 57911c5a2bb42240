//! What a server takes for its key and certificate, and what it says of peers that are none of ours.

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::*;

#[test]
fn an_identity_of_no_use_says_what_is_wrong() {
    let (one, other) = (generate_identity(&[]).unwrap(), generate_identity(&[]).unwrap());
    let (certificate, key) = (one.certificate_pem.as_str(), one.key_pem.as_str());
    let broken = certificate.replace("MII", "AAA");
    let error = |certificate: &str, key: &str| {
        ServerTls::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err()
    };
    assert_eq!(error("", key), TlsError::NoCertificate);
    assert_eq!(error(key, key), TlsError::NoCertificate);
    assert!(matches!(error(&broken, key), TlsError::BadCertificate { number: 1, .. }));
    let second = format!("{certificate}{}", certificate.replace("-----END CERTIFICATE-----", ""));
    assert!(matches!(error(&second, key), TlsError::BadCertificate { number: 2, .. }));
    assert_eq!(error(certificate, ""), TlsError::NoKey);
    assert_eq!(error(certificate, certificate), TlsError::NoKey);
    assert!(matches!(error(certificate, &key.replace("MIG", "AAA")), TlsError::BadKey(_)));
    assert_eq!(error(certificate, &other.key_pem), TlsError::KeyMismatch);
    assert!(ServerTls::from_pem(certificate.as_bytes(), key.as_bytes()).is_ok());
}

#[tokio::test]
async fn a_client_of_another_protocol_is_refused() {
    let server = server();
    for protocols in [vec![], vec![b"h2".to_vec()]] {
        let mut config = ClientConfig::clone(&pinning(&server).config);
        config.alpn_protocols = protocols;
        let connector = TlsConnector::from(Arc::new(config));
        let (dialled, accepted) = tcp_pair().await;
        let name = ServerName::try_from("relay.test").unwrap();
        let both =
            async { tokio::join!(connector.connect(name, dialled), server.accept(accepted)) };
        let (_connected, accepted) = timeout(DEADLINE, both).await.unwrap();
        let error = accepted.unwrap_err();
        assert!(matches!(error, TlsAcceptError::AlpnRefused), "{error:?}");
    }
}

/// What a server says of somebody who sends these bytes and ends.
async fn said_of(bytes: &[u8]) -> TlsAcceptError {
    let (mut dialled, accepted) = tcp_pair().await;
    dialled.write_all(bytes).await.unwrap();
    dialled.shutdown().await.unwrap();
    timeout(DEADLINE, server().accept(accepted)).await.unwrap().unwrap_err()
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_from_who_breaks_it() {
    let error = said_of(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(matches!(error, TlsAcceptError::NotTls(_)), "{error:?}");
    let error = said_of(b"\x17\x03\x03\x00\x01\x00").await;
    assert!(matches!(error, TlsAcceptError::Handshake(_)), "{error:?}");
    for cut_off in [&b""[..], b"\x16", b"\x16\x03\x01\x02"] {
        let error = said_of(cut_off).await;
        assert!(matches!(error, TlsAcceptError::Closed), "{error:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_given_up_closes_the_connection() {
    let (mut dialled, accepted) = tcp_pair().await;
    let server = server();
    {
        let accepting = server.accept(accepted);
        tokio::pin!(accepting);
        tokio::select! {
            biased;
            outcome = &mut accepting => panic!("{outcome:?}"),
            () = std::future::ready(()) => {}
        }
    }
    assert_eq!(timeout(DEADLINE, dialled.read(&mut [0])).await.unwrap().unwrap(), 0);
}
