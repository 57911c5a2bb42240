//! Tokens that are taken back, narrowed, or expire while their hosts serve.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use relayserver_relay::Reason;
use tokio::time::Instant;

use crate::peers::{Data, Knock, Member, Secure, assert_ended, assert_reset, echo, within, write};

async fn serving(relay: &Secure, host: &Member) -> (tokio::net::TcpStream, Data) {
    let mut channel = host.idle_channel(relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    echo(&mut client, &mut channel.stream).await;
    (client, channel)
}

fn revoke(relay: &Secure, id: &str) {
    relay.grants.change(|tokens| tokens.get_mut(id).unwrap().revoked = true);
}

#[tokio::test]
async fn a_revoked_host_is_cut_off_and_others_are_not() {
    let relay = Secure::start();
    let mut host = relay.member("laptop", &["ssh"]).await;
    let (mut client, _channel) = serving(&relay, &host).await;
    let mut idle = host.idle_channel(&relay, "ssh").await;
    let other = relay.member("desktop", &["ssh"]).await;
    let mut of_other = other.idle_channel(&relay, "ssh").await;
    let begun = Instant::now();
    revoke(&relay, "laptop");
    assert_reset(&mut client).await;
    assert_ended(&mut idle.stream).await;
    host.assert_closed().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "took {:?}", begun.elapsed());

    let mut next = relay.client_of("ssh").await;
    of_other.accept().await;
    echo(&mut next, &mut of_other.stream).await;
    relay.until_sessions(1).await;
    let refusal = host.channel(&relay, "ssh").await.err().unwrap();
    assert_eq!(refusal.reason, Reason::ChannelKeyUnknown.code());
}

#[tokio::test]
async fn a_host_whose_command_channel_is_away_is_cut_off_as_well() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let (mut client, mut channel) = serving(&relay, &host).await;
    let Member { command, .. } = host;
    drop(command);
    relay.until("the command channel has ended", |it| it.commands == 0).await;
    echo(&mut client, &mut channel.stream).await;
    revoke(&relay, "laptop");
    assert_reset(&mut client).await;
    relay.until_empty().await;
}

#[tokio::test]
async fn all_hosts_of_a_token_are_cut_off() {
    let relay = Secure::start();
    let token = relay.token("fleet", &["ssh"]);
    let mut one = Member::join(&relay, Some(&token), &["ssh"]).await.unwrap();
    let mut other = Member::join(&relay, Some(&token), &["ssh"]).await.unwrap();
    revoke(&relay, "fleet");
    one.assert_closed().await;
    other.assert_closed().await;
    relay.until_empty().await;
}

#[tokio::test]
async fn a_token_that_expires_ends_what_its_host_serves() {
    let relay = Secure::start();
    let expires = SystemTime::now() + Duration::from_secs(2);
    let token = relay.token_with("laptop", &["ssh"], |it| it.expires = Some(expires));
    let mut host = Member::join(&relay, Some(&token), &["ssh"]).await.unwrap();
    let (mut client, _channel) = serving(&relay, &host).await;
    assert!(SystemTime::now() < expires, "the test was too slow");
    assert_reset(&mut client).await;
    assert!(SystemTime::now() >= expires, "it ended too early");
    host.assert_closed().await;
    let knock = Knock::command(Some(&token), &["ssh"]);
    let refusal = Member::knock(&relay, Ipv4Addr::LOCALHOST, knock).await.err().unwrap();
    assert_eq!(refusal.reason, Reason::TokenExpired.code());
}

#[tokio::test]
async fn a_narrowed_token_closes_the_channels_of_what_it_covers_no_more() {
    let relay = Secure::start();
    let token = relay.token("laptop", &["*"]);
    let host = Member::join(&relay, Some(&token), &["ssh", "web"]).await.unwrap();
    let mut of_ssh = host.idle_channel(&relay, "ssh").await;
    let mut of_web = host.idle_channel(&relay, "web").await;
    relay.grants.change(|tokens| {
        tokens.get_mut("laptop").unwrap().services = vec!["web".parse().unwrap()];
    });
    assert_ended(&mut of_ssh.stream).await;
    let mut client = relay.client_of("web").await;
    of_web.accept().await;
    echo(&mut client, &mut of_web.stream).await;
    let refusal = host.channel(&relay, "ssh").await.err().unwrap();
    assert_eq!(refusal.reason, Reason::ServiceNotGranted.code());
}

#[tokio::test]
async fn a_new_token_is_honoured_at_once() {
    let relay = Secure::start();
    for number in 0..50 {
        let token = relay.token(&format!("host-{number}"), &["ssh"]);
        let joined = within("a host", Member::join(&relay, Some(&token), &["ssh"])).await;
        assert!(joined.is_ok(), "also where the host is ahead of what tells the relay");
    }
    let token = relayserver_transport::Token::generate("late").unwrap();
    let joining = Member::join(&relay, Some(&token), &["ssh"]);
    let telling = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        relay.token_of(&token, &["ssh"]);
    };
    let (joined, ()) = tokio::join!(joining, telling);
    assert!(joined.is_ok(), "it was heard of while the host waited for its refusal");
    let (mut client, mut channel) = serving(&relay, &relay.member("last", &["ssh"]).await).await;
    write(&mut client, b"x").await;
    assert_eq!(crate::peers::read_exactly(&mut channel.stream, 1).await, b"x");
}
