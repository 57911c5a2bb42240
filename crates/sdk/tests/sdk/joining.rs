//! Hosts with a join line: over TLS, with a token, in protocol version 2, and in no other way.

use std::io::ErrorKind;
use std::time::Duration;

use relayserver::{Error, Join, Listener, Session, Status};
use relayserver_testing::{Service, ServiceName, TestRelay};
use relayserver_transport::{ServerTls, generate_identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{noise, rest, status_becomes, within};

async fn refused(join: Join) -> Error {
    within(Listener::join(join).listen()).await.unwrap_err()
}

#[tokio::test]
async fn a_host_with_a_join_line_serves_sessions_over_tls() {
    let relay = TestRelay::secure();
    let listener = within(Listener::join(relay.join()).listen()).await.unwrap();
    let mut client = relay.connect().await.unwrap();
    let question = noise(100_000, 1);
    let asking = async {
        client.write_all(&question).await.unwrap();
        client.shutdown().await.unwrap();
        rest(&mut client).await
    };
    let serving = async {
        let mut session = within(listener.accept()).await.unwrap();
        assert_eq!(session.service(), "default");
        assert!(session.client_addr().is_some());
        assert_eq!(session.id().to_string().len(), 32);
        let mut received = Vec::new();
        within(session.read_to_end(&mut received)).await.unwrap();
        session.write_all(&received).await.unwrap();
        received
    };
    let (answer, received) = tokio::join!(asking, serving);
    assert_eq!(received, question);
    assert_eq!(answer, question, "a session that is dropped ends in order");
}

#[tokio::test]
async fn a_rejected_session_is_offered_to_another_host_from_its_first_byte() {
    let relay = TestRelay::secure();
    let one = within(Listener::join(relay.join()).listen()).await.unwrap();
    let mut client = relay.connect().await.unwrap();
    client.write_all(b"question").await.unwrap();
    let session = within(one.accept()).await.unwrap();
    let other = within(Listener::join(relay.join()).listen()).await.unwrap();
    session.reject("target_unreachable");
    let mut session = within(other.accept()).await.unwrap();
    let mut question = [0; 8];
    within(session.read_exact(&mut question)).await.unwrap();
    assert_eq!(&question, b"question");
    session.write_all(b"answer").await.unwrap();
    drop(session);
    assert_eq!(rest(&mut client).await, b"answer");
}

#[tokio::test]
async fn refusals_that_no_waiting_can_mend_are_permanent() {
    let relay = TestRelay::secure();
    let (join, id) = relay.join_for(&["default"]);
    relay.revoke(&id);
    let error = refused(join).await;
    assert_eq!(error.reason(), Some("token_revoked"), "{error}");
    assert!(error.is_permanent());
    let (join, _) = relay.join_for(&["ssh"]);
    let error = refused(join).await;
    assert_eq!(error.reason(), Some("service_not_granted"), "{error}");
    assert!(error.is_permanent());
}

#[tokio::test]
async fn a_running_host_whose_token_is_revoked_is_told() {
    let relay = TestRelay::secure();
    let (join, id) = relay.join_for(&["default"]);
    let listener = within(Listener::join(join).listen()).await.unwrap();
    relay.revoke(&id);
    let error = within(listener.accept()).await.unwrap_err();
    assert_eq!(error.reason(), Some("token_revoked"), "{error}");
    assert!(error.is_permanent());
}

#[tokio::test]
async fn a_relay_with_another_key_is_not_trusted() {
    let error = refused(wrong_pin(&TestRelay::secure())).await;
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    assert!(error.is_permanent());
}

/// A join line for `relay` with a pin that is no key's.
fn wrong_pin(relay: &TestRelay) -> Join {
    let secret = "A".repeat(43);
    format!("relayserver://rls_x.{secret}@{}/fp={secret}", relay.hosts_addr()).parse().unwrap()
}

#[tokio::test]
async fn a_plain_relay_gets_no_byte_of_the_token() {
    let relay = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let secret = "S".repeat(42) + "A";
    let address = relay.local_addr().unwrap();
    let line = format!("relayserver://rls_host.{secret}@{address}");
    let line = format!("{line}/fp={}", "A".repeat(43));
    let listening = tokio::spawn(refused(line.parse().unwrap()));
    let (mut stream, _) = within(relay.accept()).await.unwrap();
    // A relay of version 1 would take this for a frame, and answers with one.
    let mut received = vec![0; 16];
    within(stream.read_exact(&mut received)).await.unwrap();
    stream.write_all(&[0, 0, 0, 2, 8, 1]).await.unwrap();
    let _reset = within(stream.read_to_end(&mut received)).await;
    assert_eq!(received[0], 0x16, "a TLS handshake");
    let contains = |what: &[u8]| received.windows(what.len()).any(|window| window == what);
    assert!(!contains(b"rls_") && !contains(b"SSSS"));
    assert!(within(listening).await.unwrap().is_permanent());
}

/// Has a session that is not accepted before its relay falls silent used in some way, which is to fail.
async fn used_too_late(used: impl AsyncFnOnce(Session) -> Vec<std::io::Error>) {
    let relay = TestRelay::secure_with(|config| {
        config.patience.suspect_after = Duration::from_millis(300);
    });
    let listener = within(Listener::join(relay.join()).listen()).await.unwrap();
    let mut client = relay.connect().await.unwrap();
    client.write_all(b"run me once").await.unwrap();
    let session = within(listener.accept()).await.unwrap();
    let frozen = relay.freeze();
    status_becomes(&listener, |status| !matches!(status, Status::Ready { .. })).await;
    for error in within(used(session)).await {
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    }
    drop(frozen);
}

#[tokio::test]
async fn a_session_that_was_not_accepted_before_the_relay_fell_silent_is_not_served() {
    used_too_late(async |mut session| vec![session.read(&mut [0; 64]).await.unwrap_err()]).await;
}

#[tokio::test]
async fn nor_is_it_in_halves() {
    used_too_late(async |session| {
        let (mut reader, mut writer) = session.into_split();
        vec![
            reader.read(&mut [0; 64]).await.unwrap_err(),
            writer.write(b"answer").await.unwrap_err(),
            writer.flush().await.unwrap_err(),
            writer.shutdown().await.unwrap_err(),
        ]
    })
    .await;
}

#[tokio::test]
async fn a_tls_server_with_another_key_gets_nothing_but_an_aborted_handshake() {
    let identity = generate_identity(&["localhost".to_owned()]).unwrap();
    let key = identity.key_pem.as_bytes();
    let other = ServerTls::from_pem(identity.certificate_pem.as_bytes(), key).unwrap();
    let server = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (secret, pin) = ("S".repeat(42) + "A", "A".repeat(43));
    let address = server.local_addr().unwrap();
    let line = format!("relayserver://rls_host.{secret}@{address}/fp={pin}");
    let listening = tokio::spawn(refused(line.parse().unwrap()));
    let (stream, _) = within(server.accept()).await.unwrap();
    let outcome = within(other.accept(stream)).await;
    assert!(outcome.is_err(), "a host that went on would send its token next");
    let error = within(listening).await.unwrap();
    assert!(matches!(error, Error::Untrusted { .. }) && error.is_permanent(), "{error}");
}

#[tokio::test]
async fn several_services_are_served_over_one_listener() {
    let relay = TestRelay::secure_with(|config| {
        let clients = config.default_service().listen;
        for name in ["ssh", "web"] {
            config.services.insert(ServiceName::new(name), Service::on(clients));
        }
    });
    let (join, _) = relay.join_for(&["ssh", "web"]);
    let builder = Listener::join(join).service("ssh").service_with_pool("web", 2..=2);
    let listener = within(builder.listen()).await.unwrap();
    let ready = |status: &Status| matches!(status, Status::Ready { .. });
    let Status::Ready { services } = status_becomes(&listener, ready).await else {
        panic!("not ready");
    };
    for served in services {
        let mut client = tokio::net::TcpStream::connect(served.clients.unwrap()).await.unwrap();
        client.write_all(served.service.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut session = within(listener.accept()).await.unwrap();
        assert_eq!(session.service(), served.service);
        let mut asked = String::new();
        within(session.read_to_string(&mut asked)).await.unwrap();
        assert_eq!(asked, served.service);
    }
}

#[tokio::test]
async fn a_session_that_is_dropped_unused_goes_to_another_host() {
    let relay = TestRelay::secure();
    let one = within(Listener::join(relay.join()).pool_size(1).listen()).await.unwrap();
    let mut client = relay.connect().await.unwrap();
    client.write_all(b"question").await.unwrap();
    let session = within(one.accept()).await.unwrap();
    let other = within(Listener::join(relay.join()).listen()).await.unwrap();
    drop(session);
    let mut session = within(other.accept()).await.unwrap();
    let mut question = [0; 8];
    within(session.read_exact(&mut question)).await.unwrap();
    assert_eq!(&question, b"question");
    session.write_all(b"answer").await.unwrap();
    drop(session);
    assert_eq!(rest(&mut client).await, b"answer");
}

#[tokio::test]
async fn over_tls_what_was_written_arrives_whole_however_the_session_is_dropped() {
    let relay = TestRelay::secure();
    let listener = within(Listener::join(relay.join()).listen()).await.unwrap();
    let answer = noise(3_000_000, 7);
    for divided in [false, true] {
        let mut client = relay.connect().await.unwrap();
        client.write_all(b"ask").await.unwrap();
        client.shutdown().await.unwrap();
        let session = within(listener.accept()).await.unwrap();
        let sent = answer.clone();
        let serving = tokio::spawn(async move {
            let mut asked = String::new();
            if divided {
                let (mut reader, mut writer) = session.into_split();
                reader.read_to_string(&mut asked).await.unwrap();
                writer.write_all(&sent).await.unwrap();
            } else {
                let mut session = session;
                session.read_to_string(&mut asked).await.unwrap();
                session.write_all(&sent).await.unwrap();
            }
            asked
        });
        // A reader that takes its time: buffers fill up meanwhile.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let received = rest(&mut client).await;
        assert!(received == answer, "{} bytes, divided: {divided}", received.len());
        assert_eq!(within(serving).await.unwrap(), "ask");
    }
}

#[tokio::test]
async fn over_tls_a_session_that_a_panic_drops_is_reset() {
    let relay = TestRelay::secure();
    let listener = within(Listener::join(relay.join()).listen()).await.unwrap();
    let mut client = relay.connect().await.unwrap();
    client.write_all(b"ask").await.unwrap();
    let mut session = within(listener.accept()).await.unwrap();
    let serving = tokio::spawn(async move {
        session.write_all(b"half an answer").await.unwrap();
        panic!("on purpose");
    });
    assert!(serving.await.unwrap_err().is_panic());
    crate::assert_reset(&mut client).await;
}

#[tokio::test]
async fn a_host_whose_relay_was_frozen_is_back_with_channels_that_serve() {
    let relay = TestRelay::secure_with(|config| {
        config.patience.suspect_after = Duration::from_millis(300);
    });
    let listener = within(Listener::join(relay.join()).listen()).await.unwrap();
    let frozen = relay.freeze();
    status_becomes(&listener, |status| !matches!(status, Status::Ready { .. })).await;
    drop(frozen);
    status_becomes(&listener, |status| matches!(status, Status::Ready { .. })).await;
    let mut client = relay.connect().await.unwrap();
    client.write_all(b"are you back?").await.unwrap();
    let mut session = within(listener.accept()).await.unwrap();
    let mut asked = [0; 13];
    within(session.read_exact(&mut asked)).await.unwrap();
    assert_eq!(&asked, b"are you back?");
}

#[tokio::test]
async fn a_host_that_leaves_finishes_what_it_serves() {
    let relay = TestRelay::secure();
    let listener = within(Listener::join(relay.join()).listen()).await.unwrap();
    let mut client = relay.connect().await.unwrap();
    client.write_all(b"ask").await.unwrap();
    let mut session = within(listener.accept()).await.unwrap();
    session.accept().await.unwrap();
    let draining = listener.drain();
    relay.wait_until(|now| now.idle == 0).await;
    assert_eq!(listener.status().get(), Status::Draining);
    session.write_all(b"answer").await.unwrap();
    drop(session);
    assert_eq!(rest(&mut client).await, b"answer");
    drop(client);
    within(draining).await;
    relay.wait_until(|now| now.commands == 0).await;
}
