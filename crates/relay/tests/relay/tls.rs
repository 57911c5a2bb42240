//! TLS on the host port: what is not TLS inside it, what is slow in it, and ends over it.

use std::net::Ipv4Addr;
use std::time::Duration;

use relayserver_relay::Reason;
use tokio::io::AsyncWriteExt;

use crate::peers::{
    Secure, assert_reset, connect_from, content, echo, read_exactly, within, write,
};

#[tokio::test]
async fn a_tls_handshake_that_does_not_end_is_cut_at_the_deadline() {
    let relay = Secure::with(|config| config.hello_timeout = Duration::from_millis(500));
    let mut slow = connect_from(Ipv4Addr::LOCALHOST, relay.hosts_addr()).await;
    let dripping = async {
        // The head of a record of 512 bytes, and a byte of it now and then.
        let mut next = [0x16, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(0));
        while slow.write_all(&[next.next().unwrap()]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the connection's end", dripping).await;
}

#[tokio::test]
async fn a_hello_that_does_not_end_inside_tls_is_cut_at_the_deadline() {
    let relay = Secure::with(|config| config.hello_timeout = Duration::from_millis(500));
    let mut slow = relay.connect_from(Ipv4Addr::LOCALHOST).await;
    write(&mut slow, &[0, 0, 0, 40, 8]).await;
    let mut rest = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut slow, &mut rest);
    let _ended = within("the connection's end", reading).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn garbage_behind_the_first_byte_of_tls_is_closed_and_others_are_served() {
    let relay = Secure::start();
    for seed in 0..20 {
        let mut garbage = connect_from(Ipv4Addr::LOCALHOST, relay.hosts_addr()).await;
        let mut bytes = content(seed, 2000);
        bytes[0] = 0x16;
        let _sent = garbage.write_all(&bytes).await;
        let _ended = garbage.shutdown().await;
        let mut rest = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut garbage, &mut rest);
        let _ended = within("the connection's end", reading).await;
    }
    let mut http = relay.connect_from(Ipv4Addr::LOCALHOST).await;
    write(&mut http, b"GET / HTTP/1.1\r\n\r\n").await;
    let mut rest = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut http, &mut rest);
    let _ended = within("the connection's end", reading).await;
    assert_eq!(rest, b"");

    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    channel.accept().await;
    echo(&mut client, &mut channel.stream).await;
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_abort_for_the_client() {
    let relay = Secure::start();
    let mut host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    let start = channel.accept().await;
    write(&mut channel.stream, b"half an answer").await;
    assert_eq!(read_exactly(&mut client, 14).await, b"half an answer");
    // The socket's FIN, and no close_notify ahead of it.
    drop(channel);
    assert_eq!(assert_reset(&mut client).await, b"");
    host.assert_ended(&start, Reason::HostAborted, (0, 14)).await;
}

#[tokio::test]
async fn a_clients_reset_is_an_abort_for_a_host_over_tls() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    let client = relay.client_of("ssh").await;
    channel.accept().await;
    crate::peers::reset(client);
    let mut rest = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut channel.stream, &mut rest);
    let ended = within("the channel's end", reading).await;
    assert!(ended.is_err(), "an end would say that all was well");
}

#[tokio::test]
async fn who_speaks_over_an_idle_channel_is_closed() {
    let relay = Secure::start();
    let host = relay.member("laptop", &["ssh"]).await;
    let mut channel = host.idle_channel(&relay, "ssh").await;
    write(&mut channel.stream, b"hello?").await;
    let mut rest = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut channel.stream, &mut rest);
    let _ended = within("the channel's end", reading).await;
    relay.until_idle(0).await;
}
