//! Many clients, several hosts: pools that follow the arrivals, hosts that weigh more than others, take only so many sessions, or none
//! for now.

use std::time::Duration;

use relayserver::{Error, Listener, Session};
use relayserver_testing::TestRelay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{assert_reset, status_becomes, within};

/// Sends back what a client sends.
async fn echo(mut session: Session) -> std::io::Result<()> {
    let mut received = Vec::new();
    session.read_to_end(&mut received).await?;
    session.write_all(&received).await
}

async fn asked(address: std::net::SocketAddr, question: Vec<u8>) {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&question).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, question);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_500_clients_on_a_pool_of_10_is_served_in_full() {
    let relay = TestRelay::secure();
    let builder = Listener::join(relay.join()).pool(10..=256);
    let listener = within(builder.listen()).await.unwrap();
    within(relay.wait_until(|it| it.idle == 10)).await;
    let status = listener.status();
    let address = relay.clients_addr();
    let clients = async {
        let mut clients = JoinSet::new();
        for number in 0..500_u32 {
            clients.spawn(asked(address, number.to_be_bytes().repeat(50)));
        }
        let all = clients.join_all().await;
        assert_eq!(all.len(), 500, "none refused");
        // The next burst finds its channels.
        relay.wait_until(|it| it.idle >= 256).await;
        listener.close();
    };
    let (served, ()) = within(async { tokio::join!(listener.serve(echo), clients) }).await;
    served.unwrap();
    drop(status);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crowd_leaves_beyond_what_is_wanted_goes_again() {
    let relay = TestRelay::secure();
    let builder = Listener::join(relay.join()).pool(10..=256);
    let listener = within(builder.listen()).await.unwrap();
    within(relay.wait_until(|it| it.idle == 10)).await;
    let crowd = async {
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(relay.connect().await.unwrap());
        }
        // As many channels again replace those that they hold.
        relay.wait_until(|it| it.sessions == 40 && it.idle >= 40).await;
        for mut client in clients {
            client.shutdown().await.unwrap();
            assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        }
        relay.wait_until(|it| it.idle >= 80).await;
        relay.wait_until(|it| it.idle <= 60).await;
        assert!(relay.occupancy().idle >= 40, "no more than is too many");
        listener.close();
    };
    let (served, ()) = within(async { tokio::join!(listener.serve(echo), crowd) }).await;
    served.unwrap();
}

/// A host that holds every session that it gets until it is dropped, and how many there are.
async fn hold(listener: &Listener, sessions: usize) -> Vec<Session> {
    let mut held = Vec::new();
    while held.len() < sessions {
        let mut session = within(listener.accept()).await.unwrap();
        // That accepts it.
        within(session.write_all(b"x")).await.unwrap();
        held.push(session);
    }
    held
}

#[tokio::test]
async fn a_host_of_three_times_the_weight_gets_three_times_the_sessions() {
    let relay = TestRelay::secure();
    let light = Listener::join(relay.join()).pool_size(40).weight(50);
    let heavy = Listener::join(relay.join()).pool_size(40).weight(150);
    let light = within(light.listen()).await.unwrap();
    let heavy = within(heavy.listen()).await.unwrap();
    within(relay.wait_until(|it| it.idle == 80)).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(relay.connect().await.unwrap());
    }
    // Within one, which is the order that ties are broken in.
    let (few, many) = tokio::join!(hold(&light, 5), hold(&heavy, 15));
    assert_eq!((few.len(), many.len()), (5, 15));
}

#[tokio::test]
async fn a_host_takes_no_more_sessions_than_it_said_and_others_wait_their_turn() {
    let relay = TestRelay::secure();
    let listener = Listener::join(relay.join()).max_sessions(2);
    let listener = within(listener.listen()).await.unwrap();
    within(relay.wait_until(|it| it.idle == 10)).await;
    let _one = relay.connect().await.unwrap();
    let _two = relay.connect().await.unwrap();
    let mut held = hold(&listener, 2).await;
    let mut third = relay.connect().await.unwrap();
    within(relay.wait_until(|it| it.waiting == 1)).await;
    assert_eq!(listener.sessions_open(), 2);
    held.pop().unwrap().reset();
    let mut session = within(listener.accept()).await.unwrap();
    session.write_all(b"third").await.unwrap();
    let mut answer = [0; 5];
    within(third.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"third");
}

#[tokio::test]
async fn a_host_that_is_not_available_gets_no_clients_and_keeps_its_sessions() {
    let relay = TestRelay::secure();
    let ill = within(Listener::join(relay.join()).listen()).await.unwrap();
    within(relay.wait_until(|it| it.idle == 10)).await;
    let mut first = relay.connect().await.unwrap();
    let mut session = hold(&ill, 1).await.remove(0);
    assert!(matches!(ill.set_available("web", false), Err(Error::Service(_))));
    ill.set_available("default", false).unwrap();
    within(relay.wait_until(|it| it.idle == 0)).await;
    // It waits for a host that serves.
    let mut second = relay.connect().await.unwrap();
    within(relay.wait_until(|it| it.waiting == 1)).await;
    let well = within(Listener::join(relay.join()).listen()).await.unwrap();
    let mut other = within(well.accept()).await.unwrap();
    other.write_all(b"2").await.unwrap();
    let mut answer = [0; 1];
    within(second.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"2");
    session.write_all(b"y").await.unwrap();
    let mut answers = [0; 2];
    within(first.read_exact(&mut answers)).await.unwrap();
    assert_eq!(&answers, b"xy", "what runs goes on");
    drop(well);
    // Else a client may be given one of its channels.
    within(relay.wait_until(|it| it.idle == 0)).await;
    ill.set_available("default", true).unwrap();
    within(relay.wait_until(|it| it.idle >= 10)).await;
    let _third = relay.connect().await.unwrap();
    hold(&ill, 1).await;
}

#[tokio::test]
async fn a_host_that_is_ill_from_the_start_is_ready_and_is_given_nobody() {
    let relay = TestRelay::secure();
    let listener = within(Listener::join(relay.join()).listen()).await.unwrap();
    listener.set_available("default", false).unwrap();
    status_becomes(&listener, |status| matches!(status, relayserver::Status::Ready { .. })).await;
    within(relay.wait_until(|it| it.idle == 0)).await;
    listener.set_available("default", true).unwrap();
    within(relay.wait_until(|it| it.idle == 10)).await;
}

#[tokio::test]
async fn a_session_that_is_rejected_by_all_ends_with_their_last_word() {
    let relay = TestRelay::secure();
    let one = within(Listener::join(relay.join()).listen()).await.unwrap();
    let other = within(Listener::join(relay.join()).listen()).await.unwrap();
    let mut client = relay.connect().await.unwrap();
    let rejecting = async {
        let first = tokio::select! {
            session = one.accept() => (session, &other),
            session = other.accept() => (session, &one),
        };
        first.0.unwrap().reject("target_unreachable");
        first.1.accept().await.unwrap().reject("target_unreachable");
    };
    within(rejecting).await;
    assert_reset(&mut client).await;
    let refused = relay.snapshot().unwrap().counts.refused_clients();
    let reasons: Vec<(&str, u64)> =
        refused.iter().map(|(reason, count)| (reason.code(), *count)).collect();
    assert_eq!(reasons, [("target_unreachable", 1)]);
}

#[tokio::test]
async fn sessions_go_on_while_their_relay_leaves_and_their_end_is_told() {
    let mut relay = TestRelay::secure_with(|config| config.drain_timeout = Duration::from_secs(60));
    let listener = within(Listener::join(relay.join()).listen()).await.unwrap();
    let mut events = listener.events();
    let mut client = relay.connect().await.unwrap();
    let mut session = hold(&listener, 1).await.remove(0);
    let id = session.id();
    relay.drain();
    status_becomes(&listener, |status| matches!(status, relayserver::Status::Connecting { .. }))
        .await;
    client.write_all(b"still there?").await.unwrap();
    let mut question = [0; 12];
    within(session.read_exact(&mut question)).await.unwrap();
    assert_eq!(&question, b"still there?");
    session.write_all(b"yes").await.unwrap();
    drop(session);
    let mut answer = Vec::new();
    within(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"xyes");
    drop(client);
    let ended = async {
        loop {
            if let relayserver::Event::Ended { id: ended, reason, .. } =
                events.next().await.unwrap()
            {
                return (ended, reason);
            }
        }
    };
    assert_eq!(within(ended).await, (id, "finished".to_owned()));
    // And it comes back to whoever listens there next.
    relay.restart();
    status_becomes(&listener, |status| matches!(status, relayserver::Status::Ready { .. })).await;
}
