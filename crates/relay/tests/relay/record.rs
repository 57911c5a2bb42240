//! A real relay's life under load, written down and replayed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use relayserver_core::record::{ReplayError, replay};
use relayserver_transport::Heard;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::peers::{
    Command, Data, Secure, TestRelay, connect_from, content, reset, session, within,
};

const CLIENTS: usize = 400;
const HOSTS: u8 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_under_load_was_told_replays_to_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("life");
    let mut relay = TestRelay::with(|config| {
        config.record = Some(path.clone());
        config.default_service().limits.assign_timeout = Duration::from_millis(300);
        config.default_service().limits.queue_max = 60;
        config.limits.channels_max = 150;
        config.limits.clients_max = 120;
        config.drain_timeout = Duration::from_millis(100);
    });
    load(&relay).await;
    // Some sessions are left for the drain to end.
    let mut host = relay.host(1).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(session(&relay, &mut host).await);
    }
    relay.handle().drain();
    relay.ended().await;
    relay.until_empty().await;
    // The recording is written out when the relay's last task is gone.
    drop(relay);

    let life = whole(&path).await;
    let inputs = life.lines().filter(|line| line.contains(" < ")).count();
    assert!(inputs > 3 * CLIENTS, "{inputs} inputs: not much of a load");
    for happened in
        [" > assigned ", " > refused ", " > host_left ", " > announce ", " > end_session "]
    {
        assert!(life.contains(happened), "never{happened}");
    }
    assert_eq!(replay(life.as_bytes()).unwrap(), inputs);
    assert_a_changed_line_shows(&life);
}

/// Channels that carry one session after another, and more clients than channels; each client has its own bytes back, and only those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_was_told_whose_channels_come_back_replays_to_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("life");
    let mut relay = Secure::plain_with(|config| config.record = Some(path.clone()));
    let mut channels = JoinSet::new();
    let mut hosts = Vec::new();
    for id in ["laptop", "desktop"] {
        let host = relay.member(id, &["ssh"]).await;
        for _ in 0..3 {
            let channel = host.idle_channel_for_many(&relay, "ssh").await;
            channels.spawn(serve_many(channel));
        }
        hosts.push(host);
    }
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let address = relay.clients_addr("ssh");
        clients.spawn(async move {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            let (mut reader, mut writer) = client.split();
            // Who sends nothing but its end while it waits is gone.
            let question = content(number as u64, 1 + number * 37 % 20_000);
            let mut answer = Vec::new();
            let asking = async {
                writer.write_all(&question).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let reading = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer);
            let ((), read) = tokio::join!(asking, reading);
            read.unwrap();
            assert!(answer == question, "{} bytes are not the client's own", answer.len());
        });
    }
    within("all clients to be served", clients.join_all()).await;
    relay.until("all channels are back", |it| (it.idle, it.sessions) == (6, 0)).await;
    relay.handle().drain();
    relay.relay.ended().await;
    relay.until_empty().await;
    let served = within("the ends of all channels", channels.join_all()).await;
    assert_eq!(served.into_iter().sum::<usize>(), CLIENTS, "none was served twice");
    drop((relay, hosts));

    let life = whole(&path).await;
    assert_eq!(life.matches(" < channel_returned ").count(), CLIENTS);
    assert_eq!(life.matches(" > reserved ").count(), 6);
    replay(life.as_bytes()).unwrap();
}

/// Sends every client its own bytes back, until the relay ends the channel. Gives how many there were.
async fn serve_many(mut channel: Data) -> usize {
    let mut served = 0;
    while !matches!(channel.stream.waits().await, Heard::End) {
        channel.accept().await;
        let received = channel.rest_in_parts().await;
        channel.send(&received).await;
        channel.end().await;
        served += 1;
    }
    served
}

/// Hosts that come, serve and go; clients that do too.
async fn load(relay: &TestRelay) {
    let mut peers = JoinSet::new();
    for last in 1..=HOSTS {
        let (hosts, command) = (relay.hosts, relay.command);
        peers.spawn(async move {
            for round in 0..6 {
                let address = [127, 0, 0, last].into();
                let _command = Command::over(connect_from(address, command).await);
                let mut channels = JoinSet::new();
                for number in 0..10 {
                    let stream = connect_from(address, hosts).await;
                    channels.spawn(serve_one(stream, number % 4));
                }
                // Some stay for all their sessions, some leave in the middle.
                let serving = async { while channels.join_next().await.is_some() {} };
                let stay = Duration::from_millis(100 * (round % 3 + 1));
                let _left = tokio::time::timeout(stay, serving).await;
            }
        });
    }
    for number in 0..CLIENTS {
        let clients = relay.clients;
        peers.spawn(async move {
            let pause = Duration::from_millis(u64::try_from(number * 4).unwrap());
            tokio::time::sleep(pause).await;
            let Ok(client) = tokio::net::TcpStream::connect(clients).await else { return };
            ask(client, number % 5).await;
        });
    }
    within("all peers to be done", peers.join_all()).await;
}

/// Serves one session, in one of four ways.
async fn serve_one(mut stream: tokio::net::TcpStream, way: usize) {
    use relayserver_wire::hello::Hello;
    if stream.write_all(&Hello { version: 1, v2: None }.encode()).await.is_err() {
        return;
    }
    let mut received = vec![0; 64];
    if way == 3 {
        // It has no patience for its answer.
        return;
    }
    let _asked = tokio::io::AsyncReadExt::read(&mut stream, &mut received).await;
    let _asked = tokio::io::AsyncReadExt::read(&mut stream, &mut received).await;
    let _answered = stream.write_all(&content(1, 5_000)).await;
    if way == 2 {
        reset(stream);
    }
}

/// Asks for something, in one of five ways.
async fn ask(mut client: tokio::net::TcpStream, way: usize) {
    let mut received = Vec::new();
    match way {
        0 => return,
        1 => return reset(client),
        2 => {
            let _sent = client.shutdown().await;
        }
        _ => {
            let _sent = client.write_all(b"question").await;
            let _sent = client.shutdown().await;
        }
    }
    let _ended = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut received).await;
}

/// The recording once its end has been written.
async fn whole(path: &Path) -> String {
    let reading = async {
        loop {
            let life = fs::read_to_string(path).unwrap();
            if life.ends_with('\n')
                && life.contains(" < end_all ")
                && replay(life.as_bytes()).is_ok()
            {
                return life;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the recording", reading).await
}

fn assert_a_changed_line_shows(life: &str) {
    let changed = |from: &str, to: &str| {
        let at = life.find(from).unwrap();
        [&life[..at], to, &life[at + from.len()..]].concat()
    };
    let swapped = changed(" > assigned ", " > refused ");
    assert!(matches!(replay(swapped.as_bytes()), Err(ReplayError::Differs { .. })));
    let unsaid = changed(" > assigned ", " ? assigned ");
    assert!(matches!(replay(unsaid.as_bytes()), Err(ReplayError::Malformed { .. })));

    // An input that never came.
    let (at, _) = life.match_indices(" < channel_idle ").nth(5).unwrap();
    let begin = life[..at].rfind('\n').unwrap() + 1;
    let end = at + life[at..].find('\n').unwrap() + 1;
    let forgotten = [&life[..begin], &life[end..]].concat();
    assert!(matches!(replay(forgotten.as_bytes()), Err(ReplayError::Differs { .. })));
}
