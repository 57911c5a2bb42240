//! Who is not let in, what it is told, and when.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use relayserver_core::Role as TokenRole;
use relayserver_relay::{Access, Reason, Version1};
use relayserver_transport::{Stream, Token};
use relayserver_wire::HostId;
use relayserver_wire::hello::{Refusal, Role};
use tokio::time::Instant;

use crate::peers::{
    Knock, Member, Secure, TestRelay, assert_closed, assert_ended, connect_from, echo, within,
    write,
};

async fn refused(relay: &Secure, knock: Knock) -> Refusal {
    let mut stream = relay.connect_from(Ipv4Addr::LOCALHOST).await;
    let refusal = knock.say(&mut stream).await.expect_err("it was let in");
    assert_ended(&mut stream).await;
    refusal
}

#[tokio::test]
async fn each_wrong_token_is_told_what_is_wrong_with_it_and_not_at_once() {
    let relay = Secure::start();
    let right = relay.token("laptop", &["*"]);
    let unknown = Token::generate("nobody").unwrap();
    let forged = Token::generate("laptop").unwrap();
    let revoked = relay.token_with("revoked", &["*"], |it| it.revoked = true);
    let past = Some(SystemTime::now() - Duration::from_secs(1));
    let expired = relay.token_with("expired", &["*"], |it| it.expires = past);
    let client = relay.token_with("client", &["*"], |it| it.role = TokenRole::Client);
    assert!(Member::join(&relay, Some(&right), &["ssh"]).await.is_ok());
    for (token, reason) in [
        (unknown, Reason::TokenUnknown),
        (forged, Reason::TokenUnknown),
        (revoked, Reason::TokenRevoked),
        (expired, Reason::TokenExpired),
        (client, Reason::RoleNotGranted),
    ] {
        let begun = Instant::now();
        let refusal = refused(&relay, Knock::command(Some(&token), &["ssh"])).await;
        assert_eq!(refusal.reason, reason.code());
        assert!(begun.elapsed() >= Duration::from_secs(1), "{reason} after {:?}", begun.elapsed());
        let detail = refusal.detail.unwrap();
        let secret = token.expose();
        let secret = secret.split_once('.').unwrap().1;
        assert!(!detail.contains(secret) && detail.contains(token.id()), "{detail}");
    }
    relay.until("nobody but nobody came in", |it| it.commands == 0).await;
}

#[tokio::test]
async fn a_host_that_may_not_serve_what_it_wants_is_told_which_service() {
    let relay = Secure::start();
    let token = relay.token("laptop", &["ssh", "data-*"]);
    for (services, reason, named) in [
        (&["ssh", "web"][..], Reason::ServiceNotGranted, "web"),
        (&["data-one"], Reason::ServiceUnknown, "data-one"),
    ] {
        let refusal = refused(&relay, Knock::command(Some(&token), services)).await;
        assert_eq!(refusal.reason, reason.code());
        let detail = refusal.detail.unwrap();
        assert!(detail.contains(&format!("service {named}")), "{detail}");
    }
}

#[tokio::test]
async fn without_a_token_nobody_serves() {
    let relay = Secure::start();
    let refusal = refused(&relay, Knock::command(None, &["default"])).await;
    assert_eq!(refusal.reason, Reason::TokenRequired.code());
}

#[tokio::test]
async fn inside_tls_too_who_has_no_token_must_come_from_a_network_of_version_1() {
    let free = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let elsewhere = vec!["192.0.2.0/24".parse().unwrap()];
    let relay = Secure::with(|config| {
        config.v1 = Some(Version1 { command: free, service: Default::default(), mixed: true });
        config.access = Access::Networks(elsewhere);
    });
    // Loopback counts as this machine, which may.
    let host = Member::join(&relay, None, &["default"]).await.unwrap();
    let mut channel = host.idle_channel(&relay, "default").await;
    let mut client = relay.client().await;
    channel.accept().await;
    echo(&mut client, &mut channel.stream).await;
    let refusal = refused(&relay, Knock::command(None, &["ssh"])).await;
    assert_eq!(refusal.reason, Reason::TokenRequired.code(), "and only what version 1 serves");
}

#[tokio::test]
async fn roles_that_are_not_served_are_refused_and_never_taken_for_another() {
    let relay = Secure::start();
    for role in [Role::Client, Role::Relay, Role::Unknown(0), Role::Unknown(77)] {
        let refusal =
            refused(&relay, Knock { host: HostId([7; 16]), role, features: vec![] }).await;
        assert_eq!(refusal.reason, Reason::UnsupportedVersion.code());
    }
    assert_eq!(relay.occupancy().idle, 0);
}

#[tokio::test]
async fn where_tls_is_due_a_plain_hello_is_told_so_whatever_it_shows() {
    let relay = Secure::start();
    let token = relay.token("laptop", &["*"]);
    let host = relay.member("desktop", &["ssh"]).await;
    for knock in [
        Knock::command(Some(&token), &["ssh"]),
        Knock::command(None, &["ssh"]),
        Knock::data(host.id, host.key, "ssh"),
    ] {
        let plain = connect_from(Ipv4Addr::LOCALHOST, relay.hosts_addr()).await;
        let mut plain = Stream::Tcp(plain);
        let refusal = knock.say(&mut plain).await.expect_err("it was let in");
        assert_eq!(refusal.reason, Reason::TlsRequired.code());
        assert_ended(&mut plain).await;
    }
    assert_eq!(relay.occupancy().idle, 0);
}

#[tokio::test]
async fn where_tls_is_due_a_host_of_version_1_is_closed() {
    let relay = Secure::start();
    let mut plain = connect_from(Ipv4Addr::LOCALHOST, relay.hosts_addr()).await;
    write(&mut plain, &relayserver_wire::hello::Hello { version: 1, v2: None }.encode()).await;
    assert_closed(&mut plain).await;
    let mut inside = relay.connect_from(Ipv4Addr::LOCALHOST).await;
    write(&mut inside, &relayserver_wire::hello::Hello { version: 1, v2: None }.encode()).await;
    let mut rest = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut inside, &mut rest);
    let _ended = within("the connection's end", ended).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn where_tls_is_off_its_handshake_is_closed_at_once() {
    let relay = TestRelay::start();
    let mut stream = connect_from(Ipv4Addr::LOCALHOST, relay.hosts).await;
    // The first byte is enough.
    write(&mut stream, &[0x16]).await;
    assert_closed(&mut stream).await;
}

#[tokio::test]
async fn a_service_of_version_1_is_not_mixed_with_hosts_that_have_tokens_unless_told() {
    let free = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    for mixed in [false, true] {
        let relay = Secure::with(|config| {
            config.v1 = Some(Version1 { command: free, service: Default::default(), mixed });
        });
        let token = relay.token("laptop", &["*"]);
        let joined = Member::join(&relay, Some(&token), &["default"]).await;
        match joined {
            Ok(_) => assert!(mixed),
            Err(refusal) => {
                assert!(!mixed);
                assert_eq!(refusal.reason, Reason::ServiceOfVersion1.code());
            }
        }
    }
}
