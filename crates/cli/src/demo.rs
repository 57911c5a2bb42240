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

/// How many channels its host keeps waiting.
const POOL_SIZE: u8 = 10;

/// Shows a relay, a host and a client at work.
pub(crate) async fn run(args: DemoArgs) -> Exit {
    match show(&args, &Screen::new()).await {
        Ok(exit) => exit,
        // Whoever read the demo's output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
        Err(error) => exit::failure(&format!("the demo did not work: {error}")),
    }
}

/// What the demo has started.
struct Started {
    relay: Child,
    host: Child,
    /// Where clients connect.
    clients: SocketAddr,
}

async fn show(args: &DemoArgs, screen: &Screen) -> io::Result<Exit> {
    let mut signals = Signals::new()?;
    let mut started = tokio::select! {
        biased;
        // What was started by now is killed as it is dropped.
        number = signals.next() => return Ok(Exit::Signal(number)),
        started = start(screen) => started?,
    };
    if !args.once {
        screen.invitation(started.clients)?;
        tokio::select! {
            _number = signals.next() => {}
            () = started.relay.ended() => return Err(io::Error::other("the relay ended")),
            () = started.host.ended() => return Err(io::Error::other("the host ended")),
        }
        screen.leaving()?;
    }
    // The host first, so that it leaves a relay that is still there.
    for child in [started.host, started.relay] {
        tokio::select! {
            () = child.leave() => {}
            number = signals.next() => return Ok(Exit::Signal(number)),
        }
    }
    if !args.once {
        screen.ended()?;
    }
    Ok(Exit::Success)
}

/// The three steps, each told when it is done.
async fn start(screen: &Screen) -> io::Result<Started> {
    screen.title()?;

    let mut relay = Child::start("relay", ["0", "0", "0"])?;
    let ready = within("the relay to start", relay.event("relay ready")).await?;
    let address = |field: &str| {
        let address = ready.get(field).and_then(|value| value.as_str()?.parse().ok());
        address.ok_or_else(|| io::Error::other(format!("the relay named no address for {field}")))
    };
    let (hosts, command, clients): (SocketAddr, SocketAddr, SocketAddr) =
        (address("hosts")?, address("command")?, address("clients")?);
    screen.step("relay", &format!("is up, clients connect to {clients}"), relay.age())?;

    let (ip, data, command) = (hosts.ip(), hosts.port(), command.port());
    let args = format!("{ip} {data} {command} -n {POOL_SIZE} --demo-target");
    let mut host = Child::start("host", args.split(' '))?;
    within("the host to reach the relay", host.event("host ready")).await?;
    let did = format!("dialled out and keeps {POOL_SIZE} channels waiting");
    screen.step("host", &did, host.age())?;

    let sent = Instant::now();
    within("the line to come back", round_trip(clients)).await?;
    let did = format!("sent {:?} and got it back", LINE.trim_end());
    screen.step("client", &did, sent.elapsed())?;
    Ok(Started { relay, host, clients })
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
