//! Session tickets: good for the relay that gave them, and for nothing else.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Connects and has the tickets read. Whether an older ticket was used.
async fn resumes(client: &ClientTls, server: &ServerTls) -> bool {
    let (connected, accepted) = handshake(client, server).await;
    let (mut connected, mut accepted) = (connected.unwrap(), accepted.unwrap());
    // The tickets lie ahead of it.
    accepted.write_all(b"!").await.unwrap();
    connected.read_exact(&mut [0]).await.unwrap();
    assert_eq!(tls(&connected).key_exchange().unwrap(), "X25519MLKEM768");
    assert_eq!(tls(&connected).is_resumed(), tls(&accepted).is_resumed());
    tls(&connected).is_resumed()
}

#[tokio::test]
async fn a_ticket_is_good_at_the_relay_that_gave_it() {
    let server = server();
    let client = pinning(&server);
    assert!(!resumes(&client, &server).await);
    assert!(resumes(&client, &server).await);
    assert!(resumes(&client.clone(), &server.clone()).await);
}

#[tokio::test]
async fn a_ticket_is_of_no_use_where_the_key_is_another() {
    let (old, new) = (server(), server());
    let both = ClientTls::pinned(&[old.pin(), new.pin()]).unwrap();
    assert!(!resumes(&both, &old).await);
    assert!(!resumes(&both, &new).await, "the ticket of the old key was taken");

    // Nor does it stand in for the pin.
    let client = pinning(&old);
    assert!(!resumes(&client, &old).await);
    let (connected, _accepted) = handshake(&client, &new).await;
    let error = connected.unwrap_err();
    let TlsConnectError::PinMismatch { presented } = error else { panic!("{error:?}") };
    assert_eq!(presented, new.pin());
}

#[tokio::test]
async fn the_same_key_loaded_again_takes_no_older_ticket() {
    let identity = generate_identity(&[]).unwrap();
    let load = || {
        let certificate = identity.certificate_pem.as_bytes();
        ServerTls::from_pem(certificate, identity.key_pem.as_bytes()).unwrap()
    };
    let (before, after) = (load(), load());
    let client = pinning(&before);
    assert!(!resumes(&client, &before).await);
    assert!(!resumes(&client, &after).await);
}

#[test]
fn nothing_is_sent_ahead_of_the_handshake() {
    let server = server();
    assert_eq!(server.config.max_early_data_size, 0);
    assert!(!server.config.send_half_rtt_data);
    assert!(!pinning(&server).config.enable_early_data);
}
