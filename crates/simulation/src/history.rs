//! One history: a relay, hosts and clients, and what goes wrong around them, all of it by one seed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use relayserver_relay::RelayHandle;
use relayserver_transport::net::simulated as network;
use tokio::sync::{Notify, mpsc};

use crate::checks::{Fault, Kind, Summary, check, check_relay};
use crate::clients::{self, Plan};
use crate::hosts;
use crate::ledger::Ledger;
use crate::world::{CLIENTS, LATENCY, Machine, RELAY, TICK, host_ip, start_relay};

const HOSTS: usize = 3;

/// When things begin to go wrong, and when the last of them begins.
const TROUBLE: std::ops::Range<u64> = 5_000..60_000;

/// No fault lasts longer than this, nor what follows from it: a host that was cut off is gone after 30 s and back soon after.
const FAULT_MAX: u64 = 40_000;
const AFTERMATH: u64 = 45_000;

/// The last clients come at the end of this.
const CLIENTS_FOR: u64 = TROUBLE.end + FAULT_MAX + AFTERMATH + 10_000;

/// And this is when all is over.
const END: u64 = CLIENTS_FOR + 40_000;

/// Something that goes wrong, or is mended.
#[derive(Clone, Copy, Debug)]
enum Event {
    Freeze(usize),
    Thaw(usize),
    Cut(usize),
    Mend(usize),
    Kill(usize),
    Off(usize),
    Leave(usize),
    Start(usize),
    RelayKilled,
    RelayLeaves,
    RelayFreezes,
    RelayThaws,
    RelayStarts,
}

/// What there is.
struct Living {
    relay: Machine,
    handle: Option<RelayHandle>,
    hosts: Vec<Machine>,
    leave: Vec<Option<Arc<Notify>>>,
    clients: Machine,
    ledger: Ledger,
    faults: Vec<Fault>,
}

/// Lives the history of `seed`.
pub(crate) fn live(seed: u64) -> Result<Summary, String> {
    network::with(|network| network.reset(LATENCY));
    fastrand::seed(seed);
    let mut random = Rng::with_seed(seed);
    let mut events = events(&mut random);
    let mut plans = plans(&mut random);
    let (mut living, newcomers) = Living::begin(seed)?;
    let mut now = Duration::ZERO;
    while now < Duration::from_millis(END) {
        now += TICK;
        network::with(|network| network.advance(now));
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        while events.last().is_some_and(|(due, _)| *due <= millis)
            && let Some((_, event)) = events.pop()
        {
            living.happens(now, event);
        }
        while plans.last().is_some_and(|(due, _)| *due <= millis)
            && let Some((_, plan)) = plans.pop()
        {
            newcomers.send(plan).map_err(|_| "the clients' machine is gone".to_owned())?;
        }
        living.step();
    }
    let trace = network::with(|network| network.trace());
    let handle = living.handle.as_ref().ok_or("the relay is gone")?;
    check_relay(&handle.snapshot(), HOSTS)?;
    let summary = check(&living.ledger.pages(), &living.faults, trace)?;
    let all = summary.served + summary.refused + summary.reset + summary.gave_up;
    living.end();
    if all == 0 { Err("nobody came".to_owned()) } else { Ok(summary) }
}

impl Living {
    fn begin(seed: u64) -> Result<(Living, mpsc::UnboundedSender<Plan>), String> {
        let seed_of = |machine: u64| seed.wrapping_mul(1_000).wrapping_add(machine * 100);
        let machine = |index| Machine::new(host_ip(index), seed_of(index as u64 + 1));
        let mut living = Living {
            relay: Machine::new(RELAY, seed_of(0)),
            handle: None,
            hosts: (0..HOSTS).map(machine).collect(),
            leave: vec![None; HOSTS],
            clients: Machine::new(CLIENTS, seed_of(9)),
            ledger: Ledger::default(),
            faults: Vec::new(),
        };
        living.handle = start_relay(&mut living.relay);
        living.handle.as_ref().ok_or("the relay does not start")?;
        (0..HOSTS).for_each(|index| living.start(index));
        let (newcomers, mut queue) = mpsc::unbounded_channel();
        let ledger = living.ledger.clone();
        living.clients.start(|runtime| {
            runtime.spawn(async move {
                while let Some(plan) = queue.recv().await {
                    tokio::spawn(clients::live(plan, ledger.clone()));
                }
            })
        });
        Ok((living, newcomers))
    }

    fn start(&mut self, index: usize) {
        if let (Some(machine), Some(leave)) = (self.hosts.get_mut(index), self.leave.get_mut(index))
        {
            network::with(|network| network.switch_on(machine.ip));
            *leave = hosts::start(machine, &self.ledger);
        }
    }

    fn step(&mut self) {
        self.relay.step();
        self.hosts.iter_mut().for_each(Machine::step);
        self.clients.step();
    }

    /// In the order in which nobody is left waiting for another.
    fn end(mut self) {
        self.clients.kill();
        self.hosts.iter_mut().for_each(Machine::kill);
        self.relay.kill();
    }

    fn happens(&mut self, now: Duration, event: Event) {
        tracing::debug!(?event, "what happens");
        match event {
            Event::Freeze(index) => {
                self.fault_begins(host_ip(index), Kind::Frozen, now);
                self.with_host(index, Machine::freeze);
            }
            Event::Thaw(index) => {
                self.with_host(index, Machine::thaw);
                self.fault_ends(host_ip(index), &[Kind::Frozen], now);
            }
            Event::Cut(index) => {
                self.fault_begins(host_ip(index), Kind::Cut, now);
                network::with(|network| network.set_cut(host_ip(index), true));
            }
            Event::Mend(index) => {
                network::with(|network| network.set_cut(host_ip(index), false));
                self.fault_ends(host_ip(index), &[Kind::Cut], now);
            }
            Event::Kill(index) => {
                self.fault_begins(host_ip(index), Kind::Down, now);
                self.with_host(index, Machine::kill);
            }
            Event::Off(index) => {
                self.fault_begins(host_ip(index), Kind::Off, now);
                self.with_host(index, Machine::switch_off);
            }
            Event::Leave(index) => {
                self.leave.get(index).into_iter().flatten().for_each(|leave| leave.notify_one());
            }
            Event::Start(index) => {
                // One that runs is ended first: one that leaves has had its time.
                self.fault_begins(host_ip(index), Kind::Down, now);
                self.with_host(index, Machine::kill);
                self.start(index);
                let ended = [Kind::Frozen, Kind::Down, Kind::Off];
                self.fault_ends(host_ip(index), &ended, now);
            }
            Event::RelayKilled => {
                self.fault_begins(RELAY, Kind::Down, now);
                self.relay.kill();
            }
            Event::RelayLeaves => {
                self.fault_begins(RELAY, Kind::Down, now);
                self.handle.iter().for_each(RelayHandle::drain);
            }
            Event::RelayFreezes => {
                self.fault_begins(RELAY, Kind::Frozen, now);
                self.relay.freeze();
            }
            Event::RelayThaws => {
                self.relay.thaw();
                self.fault_ends(RELAY, &[Kind::Frozen], now);
            }
            Event::RelayStarts => {
                self.fault_begins(RELAY, Kind::Down, now);
                self.relay.kill();
                self.handle = start_relay(&mut self.relay);
                self.fault_ends(RELAY, &[Kind::Frozen, Kind::Down], now);
            }
        }
    }

    fn with_host(&mut self, index: usize, act: impl FnOnce(&mut Machine)) {
        if let Some(machine) = self.hosts.get_mut(index) {
            act(machine);
        }
    }

    fn fault_begins(&mut self, machine: IpAddr, kind: Kind, now: Duration) {
        self.faults.push(Fault { machine, kind, from: now, to: Duration::MAX });
    }

    fn fault_ends(&mut self, machine: IpAddr, kinds: &[Kind], now: Duration) {
        let is_meant = |it: &&mut Fault| {
            it.machine == machine && kinds.contains(&it.kind) && it.to == Duration::MAX
        };
        self.faults.iter_mut().filter(is_meant).for_each(|it| it.to = now);
    }
}

/// What goes wrong when, the last first.
fn events(random: &mut Rng) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    let mut due = TROUBLE.start;
    while due < TROUBLE.end {
        let host = random.usize(0..HOSTS);
        // Mostly short.
        let lasts = if random.bool() { random.u64(50..4_000) } else { random.u64(50..FAULT_MAX) };
        let (event, mended, lasts) = match random.u8(0..18) {
            // It stands still with clients in its hands, and goes on without having been told that they were given to others.
            16.. => {
                let (cut, thaw) = (random.u64(30..4_000), random.u64(5_500..12_000));
                events.extend([(due + cut, Event::Cut(host)), (due + thaw, Event::Thaw(host))]);
                (Event::Freeze(host), Event::Mend(host), thaw + random.u64(10..20_000))
            }
            0..4 => (Event::Freeze(host), Event::Thaw(host), lasts),
            4..8 => (Event::Cut(host), Event::Mend(host), lasts),
            8..10 => (Event::Kill(host), Event::Start(host), lasts.min(8_000)),
            10 => (Event::Off(host), Event::Start(host), lasts.min(20_000)),
            11..13 => (Event::Leave(host), Event::Start(host), lasts.max(3_000)),
            13 => (Event::RelayKilled, Event::RelayStarts, lasts.min(5_000)),
            14 => (Event::RelayLeaves, Event::RelayStarts, 11_000),
            _ => (Event::RelayFreezes, Event::RelayThaws, lasts.min(20_000)),
        };
        events.push((due, event));
        events.push((due + lasts, mended));
        due += random.u64(200..9_000);
    }
    // Whatever overlapped, in the end all is mended.
    let end = TROUBLE.end + FAULT_MAX;
    events.push((end, Event::RelayThaws));
    for host in 0..HOSTS {
        events.extend([
            (end, Event::Mend(host)),
            (end, Event::Thaw(host)),
            (end, Event::Start(host)),
        ]);
    }
    events.sort_by_key(|(due, _)| std::cmp::Reverse(*due));
    events
}

/// Who comes when, the last first.
fn plans(random: &mut Rng) -> Vec<(u64, Plan)> {
    let mut plans = Vec::new();
    let (mut due, mut request) = (1_000, 0);
    while due < CLIENTS_FOR {
        // Now and then a crowd.
        let crowd = if random.u8(0..20) == 0 { random.usize(5..40) } else { 1 };
        for _ in 0..crowd {
            request += 1;
            let len_max = random.choice([20, 500, 20_000, 120_000]).unwrap_or(20);
            let pause = random.choice([0, 0, 1, 20]).unwrap_or(0);
            let hesitates = if random.u8(0..4) == 0 { random.u64(0..9_000) } else { 0 };
            let plan = Plan {
                request,
                len: random.usize(0..=len_max),
                half_closes: random.bool(),
                pause: Duration::from_millis(pause),
                hesitates: Duration::from_millis(hesitates),
            };
            plans.push((due, plan));
        }
        due += random.u64(20..1_500);
    }
    plans.reverse();
    plans
}
