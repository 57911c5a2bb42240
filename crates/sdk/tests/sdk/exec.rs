//! A program for each session: what only a client that does not behave brings out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use relayserver::handlers::Exec;
use relayserver_testing::TestRelay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::{rest, within};

async fn served(script: &str, test: impl AsyncFnOnce(&TestRelay)) {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let program = Exec::new("sh").args(["-c", script]);
    tokio::select! {
        () = within(test(&relay)) => {}
        _ended = listener.serve(program) => panic!("the listener stopped serving"),
    }
}

#[tokio::test]
async fn a_client_that_talks_on_still_gets_all_that_the_program_said() {
    served("exec 0<&-; sleep 0.2; head -c 300000 /dev/zero", async |relay| {
        let client = relay.connect().await.unwrap();
        let (mut reader, mut writer) = client.into_split();
        let mut said = Vec::new();
        tokio::select! {
            read = reader.read_to_end(&mut said) => drop(read.unwrap()),
            // Nobody reads this, and the program's input is closed.
            () = async { while writer.write_all(&[7; 1000]).await.is_ok() {} std::future::pending().await } => {}
        }
        assert_eq!(said.len(), 300_000);
    })
    .await;
}

#[tokio::test]
async fn a_program_dies_with_its_session_and_so_does_what_it_started() {
    // The shell ends at once, and what it has started would hold its output open.
    served("sleep 600 & echo $$ $!.", async |relay| {
        let mut client = relay.connect().await.unwrap();
        let (shell, started) = processes(&mut client).await;
        ended(&shell).await;
        ended(&started).await;
        assert_eq!(rest(&mut client).await, b"\n", "the session has ended in order");
    })
    .await;
}

#[tokio::test]
async fn a_program_dies_with_an_aborted_listener_and_so_does_what_it_started() {
    let relay = TestRelay::start();
    let listener = within(relay.listener().listen()).await.unwrap();
    let program = Exec::new("sh").args(["-c", "sleep 600 & echo $$ $!.; wait"]);
    let aborting = async {
        let mut client = relay.connect().await.unwrap();
        let (shell, started) = processes(&mut client).await;
        listener.abort();
        ended(&shell).await;
        ended(&started).await;
    };
    let (served, ()) = within(async { tokio::join!(listener.serve(program), aborting) }).await;
    served.unwrap();
}

/// Reads what the scripts print: the shell's number, and that of what it has started.
async fn processes(client: &mut TcpStream) -> (PathBuf, PathBuf) {
    let mut said = String::new();
    while !said.contains('.') {
        said.push(char::from(client.read_u8().await.unwrap()));
    }
    let (shell, started) = said.trim_end_matches('.').split_once(' ').unwrap();
    (Path::new("/proc").join(shell), Path::new("/proc").join(started))
}

async fn ended(process: &Path) {
    // The system has no event for the end of somebody else's child: look again soon.
    while is_alive(process) {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Runs, and is not merely waiting to be reaped.
fn is_alive(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}
