//! Busy sessions, which relay and host move to a thread of their own: nothing is lost on the way there, and
//! everything that can happen to a session happens to it there too.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use support::net::{expect, noise, rest};
use support::peers::{Host, Relay};
use support::program::{DEADLINE, Program, skip};

/// Far more than make a session a busy one.
const MESSAGES: usize = 2000;

/// A client of a relay, and the connection that it became at the server behind the host.
struct Session {
    relay: Relay,
    host: Host,
    client: TcpStream,
    served: TcpStream,
}

/// A session that has talked so much that it has a lane. `None` on a machine with a single core, where there are none.
fn busy_session() -> Option<Session> {
    if thread::available_parallelism().unwrap().get() == 1 {
        skip("lanes need two cores");
        return None;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let relay = Relay::start(&[]);
    let host = Host::start(&relay, &["--forward", &address]);
    let before = [&relay.program, &host.program].map(turns);
    let mut client = relay.client();
    client.write_all(b"first").unwrap();
    let (mut served, _) = listener.accept().unwrap();
    served.set_read_timeout(Some(DEADLINE)).unwrap();
    served.set_nodelay(true).unwrap();
    expect(&mut served, b"first");
    converse(&mut client, &mut served);
    // Nearly each message woke a lane, going and coming, and nobody else but for the first of them.
    for (program, before) in [&relay.program, &host.program].into_iter().zip(before) {
        let after = turns(program);
        let (lanes, others) = after.since(&before);
        let half = MESSAGES as u64 / 2;
        assert!(lanes > half && others < half, "{lanes} turns on lanes, {others} elsewhere");
    }
    Some(Session { relay, host, client, served })
}

/// Messages of all small lengths, there and back, each looked at.
fn converse(client: &mut TcpStream, served: &mut TcpStream) {
    for number in 0..MESSAGES {
        let message = noise(1 + number % 700, number as u64);
        client.write_all(&message).unwrap();
        expect(served, &message);
        let answer = noise(1 + number % 300, !(number as u64));
        served.write_all(&answer).unwrap();
        expect(client, &answer);
    }
}

/// What the threads of a program have done.
struct Done {
    lanes: u64,
    others: u64,
}

impl Done {
    /// What lanes have done since, and what others have. One that has ended is not missed.
    fn since(&self, before: &Done) -> (u64, u64) {
        (self.lanes - before.lanes, self.others.saturating_sub(before.others))
    }
}

fn done(program: &Program, by: impl Fn(&Path) -> io::Result<u64>) -> Done {
    let mut done = Done { lanes: 0, others: 0 };
    for thread in fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap() {
        let thread = thread.unwrap().path();
        let name = fs::read_to_string(thread.join("comm"));
        match (name, by(&thread)) {
            (Ok(name), Ok(count)) if name.starts_with("lane-") => done.lanes += count,
            (Ok(_), Ok(count)) => done.others += count,
            // It has ended meanwhile.
            _ => {}
        }
    }
    done
}

/// How often they have slept.
fn turns(program: &Program) -> Done {
    done(program, |thread| {
        let status = fs::read_to_string(thread.join("status"))?;
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap();
        Ok(line.split_whitespace().nth(1).unwrap().parse().unwrap())
    })
}

/// For how many nanoseconds they have run.
fn on_processor(program: &Program) -> Done {
    done(program, |thread| {
        let line = fs::read_to_string(thread.join("schedstat"))?;
        Ok(line.split_whitespace().next().unwrap().parse().unwrap())
    })
}

/// The cores that each thread of this name may run on, in the kernel's words.
fn cores_of(program: &Program, name: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap();
    let threads = threads.map(|thread| thread.unwrap().path());
    let named = |thread: &PathBuf| {
        fs::read_to_string(thread.join("comm")).unwrap().trim().starts_with(name)
    };
    let mut cores: Vec<_> = threads.filter(named).map(|thread| allowed(&thread)).collect();
    cores.sort();
    cores
}

fn allowed(thread: &Path) -> String {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cores.unwrap().trim().to_owned()
}

/// Reads all that comes, in a thread.
fn reader(stream: &TcpStream) -> JoinHandle<(Vec<u8>, Option<io::Error>)> {
    let mut stream = stream.try_clone().unwrap();
    thread::spawn(move || rest(&mut stream))
}

/// Drops it with a RST.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// That a connection was reset, and nothing came before.
fn assert_reset(stream: &mut TcpStream) {
    let (received, error) = rest(stream);
    assert_eq!((received.len(), error.map(|it| it.kind())), (0, Some(ErrorKind::ConnectionReset)));
}

#[test]
fn nothing_is_lost_and_a_half_close_is_one() {
    let Some(mut session) = busy_session() else { return };
    // Bulk in both directions at once, behind the messages.
    let (up, down) = (noise(20_000_000, 1), noise(15_000_000, 2));
    let (at_server, at_client) = (reader(&session.served), reader(&session.client));
    let mut client = session.client.try_clone().unwrap();
    let sent = up.clone();
    let sending = thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    });
    session.served.write_all(&down).unwrap();
    sending.join().unwrap();
    let (received, error) = at_server.join().unwrap();
    assert!(error.is_none(), "{error:?}");
    assert!(received == up, "{} bytes of {} at the server, or others", received.len(), up.len());
    // The client has ended, and still gets what comes.
    session.served.write_all(b"and this").unwrap();
    session.served.shutdown(Shutdown::Write).unwrap();
    let (received, error) = at_client.join().unwrap();
    assert!(error.is_none(), "{error:?}");
    assert!(
        received == [&down[..], b"and this"].concat(),
        "{} bytes at the client",
        received.len()
    );
    assert_eq!(session.relay.reason_of_session(1), "finished");
}

#[test]
fn many_at_once_keep_their_bytes_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let relay = Relay::start(&[]);
    let _host = Host::start(&relay, &["--forward", &address]);
    let sessions: Vec<_> = (0..16)
        .map(|number: u64| {
            let clients: SocketAddr = relay.clients;
            // One after the other, so that it is known who is who.
            let mut client = support::net::client(clients);
            client.write_all(&number.to_be_bytes()).unwrap();
            let (mut served, _) = listener.accept().unwrap();
            served.set_read_timeout(Some(DEADLINE)).unwrap();
            served.set_nodelay(true).unwrap();
            expect(&mut served, &number.to_be_bytes());
            thread::spawn(move || {
                converse(&mut client, &mut served);
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(rest(&mut served).0, b"");
            })
        })
        .collect();
    for session in sessions {
        session.join().unwrap();
    }
}

#[test]
fn the_clients_reset_reaches_the_server() {
    let Some(mut session) = busy_session() else { return };
    reset(session.client);
    assert_reset(&mut session.served);
    assert_eq!(session.relay.reason_of_session(1), "client_aborted");
}

#[test]
fn the_servers_reset_reaches_the_client() {
    let Some(mut session) = busy_session() else { return };
    reset(session.served);
    assert_reset(&mut session.client);
    assert_eq!(session.relay.reason_of_session(1), "host_aborted");
}

#[test]
fn a_relay_that_leaves_waits_for_it_and_no_longer_when_told_twice() {
    let Some(mut session) = busy_session() else { return };
    session.relay.program.signal(Signal::TERM);
    session.relay.program.event("draining: waiting for sessions to end");
    converse(&mut session.client, &mut session.served);
    session.relay.program.signal(Signal::TERM);
    assert_eq!(session.relay.program.end().code(), Some(143));
    let mut one = [0];
    assert!(!matches!(session.client.read(&mut one), Ok(1)), "something came");
    assert!(!matches!(session.served.read(&mut one), Ok(1)), "something came");
}

#[test]
fn a_host_that_leaves_waits_for_it() {
    let Some(mut session) = busy_session() else { return };
    session.host.program.signal(Signal::TERM);
    session.host.program.event("draining: waiting for sessions to end");
    converse(&mut session.client, &mut session.served);
    session.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut session.served).0, b"");
    drop(session.served);
    assert_eq!(session.host.program.end().code(), Some(0));
}

#[test]
fn lanes_stay_where_they_are_pinned_and_others_do_not() {
    if thread::available_parallelism().unwrap().get() == 1 {
        skip("there is one core to be on");
        return;
    }
    let all = allowed(Path::new("/proc/self"));
    let relay = Relay::start(&["--pin-threads"]);
    let lanes = cores_of(&relay.program, "lane-");
    assert_eq!(lanes.len(), thread::available_parallelism().unwrap().get());
    assert!(lanes.iter().all(|core| core.parse::<u32>().is_ok()), "{lanes:?}");
    assert!(lanes.windows(2).all(|pair| pair[0] != pair[1]), "two on one core: {lanes:?}");
    let workers = cores_of(&relay.program, "tokio-rt-worker");
    assert!(!workers.is_empty() && workers.iter().all(|cores| *cores == all), "{workers:?}");

    let free = Relay::start(&[]);
    for name in ["lane-", "tokio-rt-worker"] {
        let cores = cores_of(&free.program, name);
        assert!(!cores.is_empty() && cores.iter().all(|cores| *cores == all), "{name}: {cores:?}");
    }
}

#[test]
fn bulk_goes_to_lanes_that_are_pinned_and_none_is_lost() {
    if thread::available_parallelism().unwrap().get() == 1 {
        skip("lanes need two cores");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let relay = Relay::start(&["--pin-threads"]);
    let _host = Host::start(&relay, &["--forward", &address]);
    let mut client = relay.client();
    client.write_all(b"download").unwrap();
    let (mut served, _) = listener.accept().unwrap();
    served.set_read_timeout(Some(DEADLINE)).unwrap();
    served.set_write_timeout(Some(DEADLINE)).unwrap();
    expect(&mut served, b"download");
    let before = on_processor(&relay.program);
    // Much more than the some 64 MiB that may pass before a session counts as busy.
    let (down, at_client) = (noise(250_000_000, 3), reader(&client));
    served.write_all(&down).unwrap();
    served.shutdown(Shutdown::Write).unwrap();
    let (received, error) = at_client.join().unwrap();
    assert!(error.is_none(), "{error:?}");
    assert!(
        received == down,
        "{} bytes of {} at the client, or others",
        received.len(),
        down.len()
    );
    let after = on_processor(&relay.program);
    let (lanes, others) = after.since(&before);
    assert!(lanes > others, "{lanes} ns on lanes, {others} elsewhere");
    // The other direction is open, and goes on there.
    client.write_all(b"thanks").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut served).0, b"thanks");
    assert_eq!(relay.reason_of_session(1), "finished");
}
