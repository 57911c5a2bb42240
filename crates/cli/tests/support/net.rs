//! Clients on plain sockets, free ports, and data to send. Every wait on a peer has a deadline.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::program::DEADLINE;

/// A connected client.
pub(crate) fn client(address: SocketAddr) -> TcpStream {
    set_up(TcpStream::connect_timeout(&address, DEADLINE).unwrap())
}

/// What a client gets that sends nothing, and how it ended. Where the relay is so fast that the reset comes before the client
/// has seen itself connected, that is its reset.
pub(crate) fn receive(address: SocketAddr) -> (Vec<u8>, Option<io::Error>) {
    match TcpStream::connect_timeout(&address, DEADLINE) {
        Ok(stream) => rest(&mut set_up(stream)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (Vec::new(), Some(error)),
        Err(error) => panic!("{address}: {error}"),
    }
}

fn set_up(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends it, ends, and gives all that comes back.
pub(crate) fn ask(address: SocketAddr, question: &[u8]) -> Vec<u8> {
    let mut stream = client(address);
    stream.write_all(question).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Reads as many bytes as `expected` has, which must be these.
pub(crate) fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(String::from_utf8_lossy(&received), String::from_utf8_lossy(expected));
}

/// Reads to the end: what came before it, and the error where the end was none in good order.
pub(crate) fn rest(stream: &mut TcpStream) -> (Vec<u8>, Option<io::Error>) {
    let mut received = Vec::new();
    let error = stream.read_to_end(&mut received).err();
    if let Some(error) = &error {
        let waited = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        assert!(!waited, "the connection has not ended within {DEADLINE:?}");
    }
    (received, error)
}

/// A port that stays free: below those that the system gives out by itself. For programs that cannot take one of the
/// system's choice, and for those that must come back on the same one.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    // Test programs that run at the same time begin at different places.
    let start = u16::try_from(std::process::id() % 600).unwrap() * 20;
    loop {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + offset)).is_ok() {
            return FIRST + offset;
        }
    }
}

/// Bytes that neither repeat nor compress.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> =
        std::iter::repeat_with(&mut next).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// Compares two files in full.
pub(crate) fn assert_same_file(one: &Path, other: &Path) {
    let len = |path: &Path| {
        path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display())).len()
    };
    assert_eq!(len(one), len(other), "lengths of {} and {}", one.display(), other.display());
    let mut files = [one, other].map(|path| BufReader::new(File::open(path).unwrap()));
    let mut chunks = [vec![0; 1 << 16], vec![0; 1 << 16]];
    let mut offset = 0;
    loop {
        let lens = [0, 1].map(|at| files[at].read(&mut chunks[at]).unwrap());
        assert_eq!(lens[0], lens[1], "a file read short at {offset}");
        assert!(
            chunks[0][..lens[0]] == chunks[1][..lens[0]],
            "contents differ at or after {offset}"
        );
        if lens[0] == 0 {
            return;
        }
        offset += lens[0];
    }
}

/// Lets this process and its children have as many descriptors as the system permits, and says how many these are.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _raised =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
