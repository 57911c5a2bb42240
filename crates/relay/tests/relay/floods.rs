//! Floods on the host port: those who mean no good take places from one another, and never all of them from a host that lives.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use relayserver_relay::{Access, Reason};
use relayserver_transport::Token;
use relayserver_wire::hello::{Hello, HelloV2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::peers::{Knock, Member, Secure, echo, within};

const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_thousand_silent_connections_delay_nobody() {
    const SILENT: usize = 4_000;
    let relay = Secure::with(|config| config.hello_timeout = HELLO_TIMEOUT);
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut silent = Vec::new();
    for number in 0..SILENT {
        // From four addresses, the host's own among them.
        let address = Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(number % 4).unwrap());
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        silent.push(within("connecting", socket.connect(relay.hosts_addr())).await.unwrap());
    }
    let begun = Instant::now();
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    echo(&mut client, &mut channel.stream).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "assigned after {:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..10 {
        let mut channel = within("a channel", host.channel(&relay, "ssh")).await.unwrap();
        let mut client = relay.client_of("ssh").await;
        channel.accept().await;
        echo(&mut client, &mut channel.stream).await;
    }
    let took = begun.elapsed();
    assert!(took < HELLO_TIMEOUT, "10 channels dialled and assigned after {took:?}");
    drop(silent);
}

/// Shows a wrong token and waits for what comes of it.
async fn show_wrong_token(
    relay: Arc<Secure>,
    token: Token,
    refused: Arc<AtomicUsize>,
    stays: Duration,
) {
    let socket = TcpSocket::new_v4().unwrap();
    // Plain, as is allowed from here: the places are what matters, and not whose processor is faster at handshakes.
    let Ok(mut stream) = socket.connect(relay.hosts_addr()).await else { return };
    let Knock { host, role, .. } = Knock::command(Some(&token), &["ssh"]);
    let v2 = Some(HelloV2 { host_id: host, role, features: vec![] });
    let _said = stream.write_all(&Hello { version: 1, v2 }.encode()).await;
    let _said = stream.flush().await;
    let mut answer = Vec::new();
    let _ended = stream.read_to_end(&mut answer).await;
    let told = String::from_utf8_lossy(&answer).contains(Reason::TokenUnknown.code());
    refused.fetch_add(usize::from(told), Ordering::Relaxed);
    tokio::time::sleep(stays).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_tokens_a_second_do_not_keep_a_host_behind_the_same_address_out() {
    a_host_redials_under_attack(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_where_those_who_show_them_do_not_close() {
    a_host_redials_under_attack(Duration::from_secs(3)).await;
}

async fn a_host_redials_under_attack(stays: Duration) {
    const CHANNELS: usize = 20;
    let relay = Arc::new(Secure::with(|config| {
        config.hello_timeout = HELLO_TIMEOUT;
        config.access = Access::Loopback;
    }));
    let host = Arc::new(relay.member("laptop", &["ssh"]).await);
    let wrong = Token::generate("laptop").unwrap();
    let refused = Arc::new(AtomicUsize::new(0));
    let (attacked, counted) = (Arc::clone(&relay), Arc::clone(&refused));
    let attack = tokio::spawn(async move {
        let mut every = interval(Duration::from_millis(1));
        let mut attempts = JoinSet::new();
        for _ in 0..20_000 {
            every.tick().await;
            let (relay, refused) = (Arc::clone(&attacked), Arc::clone(&counted));
            attempts.spawn(show_wrong_token(relay, wrong.clone(), refused, stays));
            while attempts.try_join_next().is_some() {}
        }
    });
    within("the attack to be under way", async {
        while refused.load(Ordering::Relaxed) < 300 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let begun = Instant::now();
    let mut dials = JoinSet::new();
    for _ in 0..CHANNELS {
        let (relay, host) = (Arc::clone(&relay), Arc::clone(&host));
        dials.spawn(async move { host.channel(&relay, "ssh").await.unwrap() });
    }
    let channels = within("the channels", dials.join_all()).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{CHANNELS} channels after {took:?}");
    assert!(!attack.is_finished(), "nobody attacked any more");
    attack.abort();
    assert_eq!(channels.len(), CHANNELS);
    let mut client = relay.client_of("ssh").await;
    // One of them gets it.
    let mut waiting = JoinSet::new();
    for mut channel in channels {
        waiting.spawn(async move {
            channel.accept().await;
            channel
        });
    }
    let mut serving = within("a start", waiting.join_next()).await.unwrap().unwrap();
    echo(&mut client, &mut serving.stream).await;
}

#[tokio::test]
async fn a_wrong_token_costs_nobody_else_anything() {
    let relay = Secure::start();
    let token = relay.token("laptop", &["*"]);
    let wrong = Token::generate("laptop").unwrap();
    let told = Member::join(&relay, Some(&wrong), &["ssh"]);
    let joined = async {
        let begun = Instant::now();
        let host = Member::join(&relay, Some(&token), &["ssh"]).await;
        (host.is_ok(), begun.elapsed())
    };
    let (told, (joined, took)) = tokio::join!(told, joined);
    assert_eq!(told.err().unwrap().reason, Reason::TokenUnknown.code());
    assert!(joined && took < Duration::from_secs(1), "after {took:?}");
}
