//! A relay with a thousand hosts: what it costs that they are there, and how they come back when it restarts.

use std::time::{Duration, Instant};

use relayserver::{Listener, Session};
use relayserver_testing::TestRelay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::within;

const HOSTS: usize = 1000;

/// Beyond what any of it takes on a machine that is busy with other tests besides.
const DEADLINE: Duration = Duration::from_secs(60);

async fn fleet(relay: &TestRelay) -> Vec<Listener> {
    let mut listening = JoinSet::new();
    for _ in 0..HOSTS {
        let builder = Listener::join(relay.join()).pool(2..=256);
        listening.spawn(async move { builder.listen().await.unwrap() });
    }
    let listeners = timeout(DEADLINE, listening.join_all()).await.unwrap();
    until_all_are_there(relay).await;
    listeners
}

async fn until_all_are_there(relay: &TestRelay) {
    let there = async {
        while relay.occupancy().hosts < HOSTS || relay.occupancy().idle < 2 * HOSTS {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let occupancy = || format!("{:?}", relay.occupancy());
    timeout(DEADLINE, there).await.unwrap_or_else(|_elapsed| panic!("{}", occupancy()));
}

/// A client that comes as soon as the relay takes connections, and is served by whichever host is back first.
async fn first_client(relay: &TestRelay) -> Duration {
    let began = Instant::now();
    loop {
        let asked = async {
            let mut client = TcpStream::connect(relay.clients_addr()).await?;
            client.write_all(b"?").await?;
            let mut answer = [0];
            client.read_exact(&mut answer).await
        };
        if asked.await.is_ok() {
            return began.elapsed();
        }
        assert!(began.elapsed() < DEADLINE, "no client is served");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_hosts_are_back_after_an_announced_restart_and_after_one_that_was_not() {
    let mut relay = TestRelay::secure();
    let listeners = fleet(&relay).await;
    let mut serving = JoinSet::new();
    for listener in listeners {
        serving.spawn(async move { listener.serve(answer).await });
    }
    let restarts = async {
        for is_announced in [true, false] {
            if is_announced {
                relay.drain();
                // Its ports are closed, and the hosts know when to come back.
                within(relay.wait_until(|it| it.idle == 0)).await;
            } else {
                relay.stop();
                sleep(Duration::from_secs(2)).await;
            }
            relay.restart();
            let began = Instant::now();
            let first = first_client(&relay).await;
            until_all_are_there(&relay).await;
            eprintln!(
                "announced: {is_announced}; first client served after {first:?}, all hosts back after {:?}",
                began.elapsed()
            );
        }
    };
    restarts.await;
    serving.abort_all();
}

async fn answer(mut session: Session) -> std::io::Result<()> {
    let mut byte = [0];
    session.read_exact(&mut byte).await?;
    session.write_all(&byte).await
}
