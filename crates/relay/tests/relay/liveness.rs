//! Hosts that are silent: suspect, gone, and well again.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use relayserver_core::liveness::Patience;
use relayserver_relay::Reason;

use crate::peers::{
    Data, Knock, Member, Secure, assert_ended, assert_reset, echo, read_exactly, within, write,
};

fn patient(suspect_after: u64, gone_after: u64) -> Secure {
    Secure::with(|config| {
        config.patience = Patience {
            suspect_after: Duration::from_millis(suspect_after),
            gone_after: Duration::from_millis(gone_after),
        };
    })
}

async fn idle(relay: &Secure, id: &str) -> (Member, Data) {
    let host = relay.member(id, &["ssh"]).await;
    let channel = host.idle_channel(relay, "ssh").await;
    (host, channel)
}

#[tokio::test]
async fn a_silent_host_gets_nobody_and_what_it_has_not_accepted_goes_to_others() {
    let relay = patient(600, 600_000);
    let (_silent, mut stuck) = idle(&relay, "laptop").await;
    let mut client = relay.client_of("ssh").await;
    write(&mut client, b"request").await;
    let offered = stuck.start().await;
    let (mut well, mut accepting) = idle(&relay, "desktop").await;
    let serving = async {
        let accepted = accepting.accept().await;
        assert_eq!(accepted, offered);
        assert_eq!(read_exactly(&mut accepting.stream, 7).await, b"request");
        echo(&mut client, &mut accepting.stream).await;
    };
    tokio::select! {
        () = within("the session at the other host", serving) => {}
        () = well.stay_alive() => {}
    }
}

#[tokio::test]
async fn a_suspect_host_keeps_what_it_serves_and_is_given_clients_again_once_it_is_heard() {
    let relay = patient(300, 600_000);
    let (mut host, mut serving) = idle(&relay, "laptop").await;
    let mut client = relay.client_of("ssh").await;
    serving.accept().await;
    let mut pooled = host.idle_channel(&relay, "ssh").await;
    assert_ended(&mut pooled.stream).await;
    let mut waiting = relay.client_of("ssh").await;
    write(&mut waiting, b"request").await;
    relay.until_waiting(1).await;
    echo(&mut client, &mut serving.stream).await;
    let knock = Knock::data(host.id, host.key, "ssh");
    let again = async {
        let mut stream = relay.connect_from(Ipv4Addr::LOCALHOST).await;
        knock.say(&mut stream).await.unwrap();
        let mut fresh = Data { stream };
        fresh.accept().await;
        assert_eq!(read_exactly(&mut fresh.stream, 7).await, b"request");
    };
    tokio::select! {
        () = within("the client that waited", again) => {}
        () = host.stay_alive() => {}
    }
}

#[tokio::test]
async fn a_host_that_is_gone_loses_its_sessions() {
    let relay = patient(200, 800);
    let (mut host, mut serving) = idle(&relay, "laptop").await;
    let mut client = relay.client_of("ssh").await;
    serving.accept().await;
    echo(&mut client, &mut serving.stream).await;
    let mut idle = host.channel(&relay, "ssh").await.unwrap();
    host.assert_closed().await;
    assert_ended(&mut idle.stream).await;
    assert_eq!(assert_reset(&mut client).await, b"", "half an answer is none");
    relay.until_empty().await;
    let refusal = host.channel(&relay, "ssh").await.err().unwrap();
    assert_eq!(refusal.reason, Reason::ChannelKeyUnknown.code());
}

#[tokio::test]
async fn a_host_whose_sessions_carry_its_bytes_is_not_silent() {
    let relay = patient(300, 900);
    let (mut host, mut serving) = idle(&relay, "laptop").await;
    let mut client = relay.client_of("ssh").await;
    serving.accept().await;
    // Nothing comes over the command channel, for three times as long as would be its end.
    for _ in 0..54 {
        write(&mut serving.stream, b"x").await;
        assert_eq!(read_exactly(&mut client, 1).await, b"x");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(relay.occupancy().commands, 1);
    // And then it is.
    host.assert_closed().await;
    assert_eq!(assert_reset(&mut client).await, b"");
}

#[tokio::test]
async fn what_a_session_carried_before_a_silence_does_not_put_it_off() {
    let relay = patient(1500, 600_000);
    let (host, mut pooled) = idle(&relay, "laptop").await;
    let mut serving = host.idle_channel(&relay, "ssh").await;
    let mut client = relay.client_of("ssh").await;
    serving.accept().await;
    // Long before the relay looks at what was carried, which is when it would ping.
    echo(&mut client, &mut serving.stream).await;
    let silent = Instant::now();
    assert_ended(&mut pooled.stream).await;
    let noticed = silent.elapsed();
    assert!(noticed < Duration::from_millis(1500 + 250), "suspect after {noticed:?}");
}

#[tokio::test]
async fn a_host_that_answers_is_never_suspect() {
    let relay = patient(200, 500);
    let (mut host, mut channel) = idle(&relay, "laptop").await;
    let serving = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut client = relay.client_of("ssh").await;
        channel.accept().await;
        echo(&mut client, &mut channel.stream).await;
    };
    tokio::select! {
        () = serving => {}
        () = host.stay_alive() => {}
    }
}
