//! A network in memory, for the simulation of the whole: machines with addresses, links with delays that can be cut, connections with
//! half-close, resets and back-pressure. Driven by the simulation's world, one step after the other, in one thread; the time is the
//! world's.
//!
//! What is not simulated: loss and reordering below TCP, congestion, `TCP_USER_TIMEOUT`, and of keepalive more than that it finds out
//! who does not know a connection any more.

mod sockets;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::options::KEEPALIVE;
pub use sockets::{TcpListener, TcpStream, connect, tcp};

/// How much one side may have sent that the other's program has not read.
const WINDOW: usize = 64 * 1024;

/// When a connection that was not answered is asked for again, as kernels do.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// How many connections wait at a listener.
const BACKLOG: usize = 4096;

thread_local! {
    static NETWORK: RefCell<Network> = RefCell::new(Network::default());
}

/// Does something with this thread's network.
pub fn with<R>(apply: impl FnOnce(&mut Network) -> R) -> R {
    NETWORK.with(|network| apply(&mut network.borrow_mut()))
}

/// The time of this thread's world; `None` in the middle of something that its network does.
pub fn now() -> Option<Duration> {
    NETWORK.with(|network| network.try_borrow().ok().map(|network| network.now))
}

/// Names one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct End(u64);

/// All machines, listeners and connections.
#[derive(Default)]
pub struct Network {
    now: Duration,
    /// Whose program runs now: it is where connections come from.
    current: Option<IpAddr>,
    /// How long a segment takes.
    latency: Duration,
    /// Machines that cannot be reached.
    cut: BTreeSet<IpAddr>,
    /// Machines that are switched off.
    off: BTreeSet<IpAddr>,
    next: u64,
    ends: BTreeMap<End, Side>,
    listeners: BTreeMap<SocketAddr, Listening>,
    dials: BTreeMap<u64, Dial>,
    /// Sums up all that was delivered, and when.
    trace: u64,
}

/// What a machine knows of its end of a connection.
struct Side {
    address: SocketAddr,
    peer_address: SocketAddr,
    peer: End,
    /// Sent by the other side, and not here yet.
    coming: VecDeque<(Duration, Segment)>,
    arrived: VecDeque<u8>,
    has_end: bool,
    failure: Option<ErrorKind>,
    /// Sent, and not read by the other side's program.
    unread: usize,
    has_sent_end: bool,
    end_has_arrived: bool,
    /// Its program has closed it.
    is_closed: bool,
    /// Since when the other side, which can be reached, does not know of it.
    alone_since: Option<Duration>,
    resets_on_close: bool,
    wakers: Vec<Waker>,
}

enum Segment {
    Bytes(Vec<u8>),
    End,
    Reset,
}

#[derive(Default)]
struct Listening {
    backlog: VecDeque<End>,
    wakers: Vec<Waker>,
}

/// A connection that is being asked for.
struct Dial {
    from: SocketAddr,
    to: SocketAddr,
    due: Duration,
    outcome: Option<Result<End, ErrorKind>>,
    waker: Option<Waker>,
}

/// What the world does.
impl Network {
    /// Forgets everything; segments take `latency` from now on.
    pub fn reset(&mut self, latency: Duration) {
        *self = Network { latency, ..Network::default() };
    }

    /// The time of the world.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Whose program runs from now on.
    pub fn enter(&mut self, machine: IpAddr) {
        self.current = Some(machine);
    }

    /// It is `now`: delivers what is due, in a fixed order.
    pub fn advance(&mut self, now: Duration) {
        self.now = now;
        let dials: Vec<u64> = self.dials.keys().copied().collect();
        dials.into_iter().for_each(|dial| self.advance_dial(dial));
        let ends: Vec<End> = self.ends.keys().copied().collect();
        ends.into_iter().for_each(|end| self.deliver(end));
    }

    /// Nothing comes from or to this machine any more, or again. What is on its way waits.
    pub fn set_cut(&mut self, machine: IpAddr, is_cut: bool) {
        if is_cut {
            self.cut.insert(machine);
        } else {
            self.cut.remove(&machine);
        }
    }

    /// The machine's program is killed: its connections are reset, and nobody listens there any more.
    pub fn kill(&mut self, machine: IpAddr) {
        self.listeners.retain(|address, _| address.ip() != machine);
        self.dials.retain(|_, dial| dial.from.ip() != machine);
        for end in self.ends_of(machine) {
            self.close(end, true);
        }
    }

    /// The machine loses its power: nobody hears of it. Its connections are unknown there when it is on again.
    pub fn switch_off(&mut self, machine: IpAddr) {
        self.off.insert(machine);
        self.listeners.retain(|address, _| address.ip() != machine);
        self.dials.retain(|_, dial| dial.from.ip() != machine);
        for end in self.ends_of(machine) {
            self.ends.remove(&end);
        }
    }

    /// The machine has its power back.
    pub fn switch_on(&mut self, machine: IpAddr) {
        self.off.remove(&machine);
    }

    /// Sums up what has happened: the same in every run of the same seed.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    fn ends_of(&self, machine: IpAddr) -> Vec<End> {
        let of = |(_, side): &(&End, &Side)| side.address.ip() == machine;
        self.ends.iter().filter(of).map(|(end, _)| *end).collect()
    }
}

/// Segments.
impl Network {
    fn is_linked(&self, one: IpAddr, other: IpAddr) -> bool {
        one == other
            || [one, other].iter().all(|it| !self.cut.contains(it) && !self.off.contains(it))
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn note(&mut self, what: u64) {
        // FNV-1a.
        let micros = u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX);
        for word in [micros, what] {
            self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn advance_dial(&mut self, number: u64) {
        let Some(dial) = self.dials.get(&number) else { return };
        let (from, to) = (dial.from, dial.to);
        if dial.outcome.is_some() || dial.due > self.now {
            return;
        }
        let listens = self.listeners.get(&to).map(|it| it.backlog.len() < BACKLOG);
        let outcome = match listens {
            _ if !self.is_linked(from.ip(), to.ip()) => None,
            Some(true) => Some(Ok(self.connected(from, to))),
            Some(false) => None,
            None => Some(Err(ErrorKind::ConnectionRefused)),
        };
        self.note(number);
        let now = self.now;
        if let Some(dial) = self.dials.get_mut(&number) {
            match outcome {
                Some(outcome) => dial.outcome = Some(outcome),
                None => dial.due = now + SYN_AGAIN,
            }
            dial.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    fn connected(&mut self, from: SocketAddr, to: SocketAddr) -> End {
        let (dialled, accepted) = (End(self.number()), End(self.number()));
        for (end, peer, address, peer_address) in
            [(dialled, accepted, from, to), (accepted, dialled, to, from)]
        {
            self.ends.insert(end, Side::new(address, peer_address, peer));
        }
        if let Some(listening) = self.listeners.get_mut(&to) {
            listening.backlog.push_back(accepted);
            listening.wakers.drain(..).for_each(Waker::wake);
        }
        dialled
    }

    /// Has `end` get a segment from its peer.
    fn send(&mut self, end: End, segment: Segment) {
        let due = self.now + self.latency;
        if let Some(side) = self.ends.get_mut(&end) {
            side.coming.push_back((due, segment));
        }
    }

    fn deliver(&mut self, end: End) {
        while let Some(side) = self.ends.get(&end)
            && side.coming.front().is_some_and(|(due, _)| *due <= self.now)
            && self.is_linked(side.address.ip(), side.peer_address.ip())
        {
            let peer = side.peer;
            self.note(end.0);
            let Some(side) = self.ends.get_mut(&end) else { return };
            let Some((_, segment)) = side.coming.pop_front() else { return };
            let mut answers_reset = side.is_closed;
            match segment {
                Segment::Bytes(bytes) if !side.is_closed => side.arrived.extend(bytes),
                Segment::Bytes(_) => {}
                Segment::End => {
                    side.has_end = true;
                    answers_reset = false;
                    if let Some(peer) = self.ends.get_mut(&peer) {
                        peer.end_has_arrived = true;
                    }
                }
                Segment::Reset => {
                    // What arrived ahead of it can still be read, as with Linux.
                    side.failure = Some(ErrorKind::ConnectionReset);
                    answers_reset = false;
                }
            }
            if let Some(side) = self.ends.get_mut(&end) {
                side.wakers.drain(..).for_each(Waker::wake);
            }
            if answers_reset {
                self.send(peer, Segment::Reset);
            }
            self.forget_if_over(end);
        }
        self.probe(end);
    }

    /// Who was switched off does not know the connection any more, and says so when it gets bytes of it, its end or a keepalive
    /// probe.
    fn probe(&mut self, end: End) {
        let Some(side) = self.ends.get(&end) else { return };
        let (ours, theirs) = (side.address.ip(), side.peer_address.ip());
        let is_over = side.failure.is_some() || (side.has_end && side.end_has_arrived);
        if is_over || self.ends.contains_key(&side.peer) {
            return;
        }
        if !self.is_linked(ours, theirs) {
            return;
        }
        let now = self.now;
        let Some(side) = self.ends.get_mut(&end) else { return };
        let since = *side.alone_since.get_or_insert(now);
        let sends_again = side.unread > 0 || (side.has_sent_end && !side.end_has_arrived);
        if sends_again || now >= since + KEEPALIVE.idle {
            self.send(end, Segment::Reset);
        }
    }

    /// The program of this end has closed it.
    fn close(&mut self, end: End, is_kill: bool) {
        let Some(side) = self.ends.get_mut(&end) else { return };
        if std::mem::replace(&mut side.is_closed, true) {
            return;
        }
        let aborts = is_kill || side.resets_on_close || !side.arrived.is_empty();
        let (peer, has_sent_end) = (side.peer, side.has_sent_end);
        if aborts {
            self.send(peer, Segment::Reset);
            if let Some(side) = self.ends.get_mut(&end) {
                side.failure = Some(ErrorKind::ConnectionReset);
            }
        } else if !has_sent_end {
            self.send_end(end);
        }
        self.forget_if_over(end);
    }

    fn send_end(&mut self, end: End) {
        let Some(side) = self.ends.get_mut(&end) else { return };
        if !std::mem::replace(&mut side.has_sent_end, true) {
            let peer = side.peer;
            self.send(peer, Segment::End);
        }
    }

    fn forget_if_over(&mut self, end: End) {
        let over = |side: &Side| {
            side.is_closed && (side.failure.is_some() || (side.has_end && side.end_has_arrived))
        };
        if self.ends.get(&end).is_some_and(over) {
            self.ends.remove(&end);
        }
    }
}

impl Side {
    fn new(address: SocketAddr, peer_address: SocketAddr, peer: End) -> Side {
        Side {
            address,
            peer_address,
            peer,
            coming: VecDeque::new(),
            arrived: VecDeque::new(),
            has_end: false,
            failure: None,
            unread: 0,
            has_sent_end: false,
            end_has_arrived: false,
            is_closed: false,
            alone_since: None,
            resets_on_close: false,
            wakers: Vec::new(),
        }
    }

    /// Has the task woken when something happens here.
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
    }

    fn check(&self) -> io::Result<()> {
        self.failure.map_or(Ok(()), |failure| Err(failure.into()))
    }
}
