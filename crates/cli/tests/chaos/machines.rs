//! The relay and the hosts as processes, and what is done to them. Each fault is written down with when it began, when it was over, and for
//! the relay when it was ready again.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::plan::{DRAIN, Fault, HOMES};
use crate::support::program::{Event, Program, run};
use crate::support::world::World;

/// The processes, and their history.
pub(crate) struct Machines {
    relay: Mutex<Option<Program>>,
    hosts: [Mutex<Option<Program>>; HOMES as usize],
    happened: Mutex<Vec<Happened>>,
    pub(crate) said: Arc<Said>,
    // Last: what runs in it ends before.
    world: World,
}

/// A fault that began, and when it was over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happened {
    pub(crate) fault: Fault,
    pub(crate) began: Instant,
    /// When a frozen host was thawed, a home's cable mended, or a process ready again. None: not yet.
    pub(crate) over: Option<Instant>,
}

/// What the relay has said about sessions and clients.
#[derive(Default)]
pub(crate) struct Said {
    /// Why the last session of a client address ended, or was refused, and when that was said.
    reasons: Mutex<HashMap<SocketAddr, (String, Instant)>>,
    /// How often for which reason.
    counts: Mutex<BTreeMap<String, u64>>,
}

/// What the relay holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings {
    /// Its descriptors, without those of idle channels and command channels, whose numbers depend on what clients did of late.
    pub(crate) descriptors: i64,
    /// How many idle channels it has.
    pub(crate) idle: i64,
    /// Its memory.
    pub(crate) rss_kib: i64,
}

impl Machines {
    /// All of them, ready. `None`, and says why, where they cannot be made.
    pub(crate) fn start() -> Option<Machines> {
        let settings = "queue = { wait = \"15s\" }\n[relay.limits]\n";
        let world = World::new(HOMES, &format!("{settings}drain_timeout = \"{DRAIN:?}\""))?;
        let said = Arc::new(Said::default());
        let machines = Machines {
            relay: Mutex::default(),
            hosts: Default::default(),
            happened: Mutex::default(),
            said,
            world,
        };
        *lock(&machines.relay) = Some(machines.start_relay());
        for home in 0..HOMES {
            *lock(&machines.hosts[usize::from(home)]) = Some(machines.start_host(home));
        }
        Some(machines)
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// What has happened so far.
    pub(crate) fn happened(&self) -> Vec<Happened> {
        lock(&self.happened).clone()
    }

    /// Does one thing to them, and resolves when it is over.
    pub(crate) fn perform(&self, fault: Fault) {
        let index = {
            let mut happened = lock(&self.happened);
            happened.push(Happened { fault, began: Instant::now(), over: None });
            happened.len() - 1
        };
        match fault {
            Fault::KillHost { home, away } => self.replace_host(home, Signal::KILL, away),
            Fault::RestartHost { home } => self.replace_host(home, Signal::TERM, Duration::ZERO),
            Fault::KillRelay { away } => self.replace_relay(Signal::KILL, away),
            Fault::RestartRelay { away } => self.replace_relay(Signal::TERM, away),
            Fault::FreezeHost { home, lasts } => {
                self.signal_host(home, Signal::STOP);
                sleep(lasts);
                self.signal_host(home, Signal::CONT);
            }
            Fault::FreezeRelay { lasts } => {
                self.signal_relay(Signal::STOP);
                sleep(lasts);
                self.signal_relay(Signal::CONT);
            }
            Fault::CutHome { home, ways, lasts } => {
                self.world.cut(usize::from(home), ways);
                sleep(lasts);
                self.world.mend(usize::from(home));
            }
        }
        lock(&self.happened)[index].over = Some(Instant::now());
    }

    /// What the relay holds, where it can be asked.
    pub(crate) fn holdings(&self) -> Option<Holdings> {
        let relay = lock(&self.relay);
        let pid = relay.as_ref()?.pid();
        let status = self.status()?;
        let hosts = status["hosts"].as_array()?;
        let idle: i64 = status["services"][0]["idle"].as_i64()?;
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        let rss_kib = rss_kib(pid)?;
        let of_hosts = idle + i64::try_from(hosts.len()).ok()?;
        Some(Holdings { descriptors: i64::try_from(descriptors).ok()? - of_hosts, idle, rss_kib })
    }

    /// Whether all hosts are well, and nothing goes on.
    pub(crate) fn are_quiet(&self) -> bool {
        let Some(status) = self.status() else { return false };
        let Some(hosts) = status["hosts"].as_array() else { return false };
        let is_quiet = |host: &serde_json::Value| {
            let idle = host["idle"]["default"].as_i64().unwrap_or(0);
            host["sessions"] == 0
                && host["suspect"] == false
                && host["has_command"] == true
                && idle >= 10
        };
        hosts.len() == usize::from(HOMES)
            && hosts.iter().all(is_quiet)
            && status["services"][0]["waiting"] == 0
    }

    /// What the relay says of itself; `None` where it is not there.
    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        let said = run(self.world.status_command());
        serde_json::from_str(&said.stdout).ok()
    }

    /// What the processes said last, for the message of a failure.
    pub(crate) fn last_words(&self) -> String {
        let words = |program: &Mutex<Option<Program>>| {
            lock(program).as_ref().map_or_else(String::new, Program::said)
        };
        let hosts: Vec<String> = self.hosts.iter().map(words).collect();
        format!("relay:\n{}\nhosts:\n{}", words(&self.relay), hosts.join("\n--\n"))
    }

    fn replace_host(&self, home: u8, signal: Signal, away: Duration) {
        let mut place = lock(&self.hosts[usize::from(home)]);
        end(place.take(), signal);
        sleep(away);
        *place = Some(self.start_host(home));
    }

    fn replace_relay(&self, signal: Signal, away: Duration) {
        let mut place = lock(&self.relay);
        end(place.take(), signal);
        sleep(away);
        self.said.forget();
        *place = Some(self.start_relay());
    }

    fn signal_host(&self, home: u8, signal: Signal) {
        let host = lock(&self.hosts[usize::from(home)]);
        host.as_ref().unwrap().signal(signal);
    }

    fn signal_relay(&self, signal: Signal) {
        lock(&self.relay).as_ref().unwrap().signal(signal);
    }

    fn start_relay(&self) -> Program {
        let said = Arc::clone(&self.said);
        let relay =
            Program::start_heard(self.world.relay_command(), Box::new(move |line| said.hear(line)));
        relay.event("relay ready");
        relay
    }

    fn start_host(&self, home: u8) -> Program {
        let drain = format!("{DRAIN:?}");
        let line = self.world.host_command(usize::from(home), &["--drain-timeout", &drain]);
        // Not waited for to be ready: its relay may be away.
        let host = Program::start_heard(line, Box::new(|line| !is_about_a_session(line)));
        host.event("host started");
        host
    }
}

impl Said {
    /// Why the session of a client ended, or was refused, as far as that was said after `since`.
    pub(crate) fn reason(&self, client: SocketAddr, since: Instant) -> Option<String> {
        let mut reasons = lock(&self.reasons);
        reasons.get(&client).filter(|(_, at)| *at >= since)?;
        reasons.remove(&client).map(|(reason, _)| reason)
    }

    /// How often which reason was given for an end or a refusal.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        lock(&self.counts).clone()
    }

    fn forget(&self) {
        lock(&self.reasons).clear();
    }

    /// Hears a line of the relay's, and says whether it is kept.
    fn hear(&self, line: &str) -> bool {
        if !is_about_a_session(line) {
            return true;
        }
        let Ok(event) = serde_json::from_str::<Event>(line) else { return true };
        let word = |field: &str| Some(event.get(field)?.as_str()?.to_owned());
        if let Some(reason) = word("end.reason").or_else(|| word("reason"))
            && let Some(client) = word("client.addr").and_then(|addr| addr.parse().ok())
        {
            *lock(&self.counts).entry(reason.clone()).or_default() += 1;
            lock(&self.reasons).insert(client, (reason, Instant::now()));
        }
        false
    }
}

/// The lines of which there is one for each session.
fn is_about_a_session(line: &str) -> bool {
    line.contains("\"session ended\"") || line.contains("\"client refused\"")
}

fn end(program: Option<Program>, signal: Signal) {
    let mut program = program.unwrap();
    program.signal(signal);
    let status = program.end();
    assert!(signal == Signal::KILL || status.success(), "{status}:\n{}", program.said());
}

fn rss_kib(pid: u32) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
