//! `relayserver demo`: a relay and a host as child processes on free loopback ports, a line sent there and back, and an
//! address to try. The children are the same command that anybody runs; the demo learns their ports from their logs.

mod child;
mod screen;
pub(crate) mod target;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::args::DemoArgs;
use crate::exit::{self, Exit};
use crate::signals::Signals;
use child::Child;
use screen::Screen;

/// How long each step may take before the demo says that it did not work. Every step is one of milliseconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// What the demo sends there and back.
const LINE: &str = "hello through the relay\n";

/// Shows a relay, a host and a client at work.
pub(crate) async fn run(args: DemoArgs) -> Exit {
    let screen = Screen::new();
    match show(&args, &screen).await {
        Ok(()) => Exit::Success,
        // Whoever read the demo's output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
        Err(error) => exit::failure(&format!("the demo did not work: {error}")),
    }
}

async fn show(args: &DemoArgs, screen: &Screen) -> io::Result<()> {
    let mut signals = Signals::new()?;
    screen.title()?;

    let mut relay = Child::start("relay", ["0", "0", "0"])?;
    let ready = within("the relay to start", relay.event("relay ready")).await?;
    let address = |field: &str| {
        let address = ready.get(field).and_then(|value| value.as_str()?.parse().ok());
        address.ok_or_else(|| io::Error::other(format!("the relay named no address for {field}")))
    };
    let (hosts, command, clients): (SocketAddr, SocketAddr, SocketAddr) =
        (address("hosts")?, address("command")?, address("clients")?);
    screen.step("relay", &format!("is up, clients come to {clients}"), relay.age())?;

    let ports = [hosts.port().to_string(), command.port().to_string()];
    let mut host = Child::start(
        "host",
        [&hosts.ip().to_string(), ports[0].as_str(), ports[1].as_str(), "--demo-target"],
    )?;
    within("the host to reach the relay", host.event("host ready")).await?;
    screen.step("host", "dialled out and keeps 10 channels waiting", host.age())?;

    let started = Instant::now();
    within("the line to come back", round_trip(clients)).await?;
    screen.step(
        "client",
        &format!("sent {:?} and got it back", LINE.trim_end()),
        started.elapsed(),
    )?;

    if !args.once {
        screen.invitation(clients)?;
        tokio::select! {
            _number = signals.next() => {}
            () = relay.ended() => return Err(io::Error::other("the relay ended")),
            () = host.ended() => return Err(io::Error::other("the host ended")),
        }
        screen.leaving()?;
    }
    // The host first, so that it leaves a relay that is still there.
    for child in [host, relay] {
        tokio::select! {
            () = child.leave() => {}
            _number = signals.next() => {}
        }
    }
    Ok(())
}

async fn within<T>(what: &str, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(STEP_TIMEOUT, step).await {
        Ok(done) => done,
        Err(_elapsed) => {
            let waited = STEP_TIMEOUT.as_secs();
            Err(io::Error::other(format!("waited {waited} s for {what}")))
        }
    }
}

/// Sends the line, ends, and reads what comes back to its end.
async fn round_trip(clients: SocketAddr) -> io::Result<()> {
    let mut client = TcpStream::connect(clients).await?;
    client.write_all(LINE.as_bytes()).await?;
    client.shutdown().await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    if answer == LINE {
        Ok(())
    } else {
        Err(io::Error::other(format!("sent {LINE:?}, got {answer:?} back")))
    }
}
