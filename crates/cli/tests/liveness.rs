//! A service with two hosts, one of which stands still or is cut off in mid-traffic: what its clients notice of it, and when it is back.
//!
//! The command's configuration has no times of liveness, so that these are the real ones: suspect after 5 s, gone after 30 s.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::checked::{Asked, Ledger, Manner, Outcome, Question, ask, serve};
use support::peers::text;
use support::program::{DEADLINE, Program, have, output_of};
use support::world::{Ways, World};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// The host that goes away, and the one that does not.
const AWAY: u8 = 0;
const THERE: u8 = 1;

const SUSPECT_AFTER: Duration = Duration::from_secs(5);
const GONE_AFTER: Duration = Duration::from_secs(30);

/// How soon a host is in the pool again that can tell that it stood still; and one that cannot, once it is reachable: the longest pause
/// between two of its tries, and what a try takes.
const BACK_AT_ONCE: Duration = Duration::from_secs(1);
const BACK_IN_REACH: Duration = Duration::from_millis(5_500);

/// Silence is counted from what was heard last, which may be a ping's interval before the fault.
const PING_INTERVAL: Duration = Duration::from_millis(1_700);

/// How late something may be noticed on a busy machine.
const SLACK: Duration = Duration::from_millis(1_000);

/// How many sessions run when a host goes away, on both hosts together.
const SESSIONS: u64 = 8;

/// How a host goes away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Freeze,
    Cut,
}

/// Relay, hosts, their servers, and where clients run. In this order they end.
struct Scene {
    runtime: Runtime,
    hosts: [Program; 2],
    relay: Program,
    ledger: Arc<Ledger>,
    last_id: u64,
    world: World,
}

impl Scene {
    /// `None`, and says why, where it cannot be made.
    fn new() -> Option<Scene> {
        if !have(&["ip"]) {
            return None;
        }
        let world = World::new(2, "")?;
        let (runtime, ledger) = (world.client().runtime(), Arc::<Ledger>::default());
        for home in [AWAY, THERE] {
            runtime.spawn(serve(world.listen(usize::from(home)), home, Arc::clone(&ledger)));
        }
        let relay = world.relay();
        let hosts = [AWAY, THERE].map(|home| world.host(usize::from(home), &[]));
        let scene = Scene { runtime, hosts, relay, ledger, last_id: 0, world };
        scene.wait_until("both hosts have idle channels", DEADLINE, |scene| scene.are_well());
        Some(scene)
    }

    fn begin(&self, fault: Fault) {
        match fault {
            Fault::Freeze => self.hosts[usize::from(AWAY)].signal(Signal::STOP),
            Fault::Cut => self.world.cut(usize::from(AWAY), Ways::Both),
        }
    }

    fn end(&self, fault: Fault) {
        match fault {
            Fault::Freeze => self.hosts[usize::from(AWAY)].signal(Signal::CONT),
            Fault::Cut => self.world.mend(usize::from(AWAY)),
        }
    }

    fn ask(&mut self, len: u64, lasts: Duration) -> JoinHandle<Asked> {
        self.last_id += 1;
        let question = Question {
            id: self.last_id,
            len,
            lasts,
            half_closes: true,
            patience: DEADLINE * 3,
            manner: Manner::Prompt,
        };
        let relay: SocketAddr = self.world.clients();
        self.runtime.spawn(ask(relay, question))
    }

    /// Asks one short question after the other, none waiting for the one before, until this moment or until something holds.
    fn ask_until(&mut self, until: Instant, holds: impl Fn(&Scene) -> bool) -> Vec<Asked> {
        let mut asking = Vec::new();
        while Instant::now() < until && !holds(self) {
            asking.push(self.ask(500, Duration::ZERO));
            sleep(Duration::from_millis(50));
        }
        self.all(asking)
    }

    fn all(&self, asking: Vec<JoinHandle<Asked>>) -> Vec<Asked> {
        asking.into_iter().map(|asked| self.runtime.block_on(asked).unwrap()).collect()
    }

    /// Sessions with traffic all the time, some on each host. They are the first that are asked for.
    fn sessions(&mut self, lasts: Duration) -> Vec<JoinHandle<Asked>> {
        assert_eq!(self.last_id, 0, "they have the ids from 1 on");
        let len = lasts.as_millis().try_into().unwrap_or(u64::MAX) * 100;
        let sessions: Vec<_> = (0..SESSIONS).map(|_| self.ask(len, lasts)).collect();
        self.ledger.wait_for(sessions.len(), DEADLINE);
        sessions
    }

    /// The ends of those sessions that ran at one of the two hosts, as its server says: their clients may not have had a byte of it.
    fn at<'a>(&self, sessions: &'a [Asked], home: u8) -> Vec<&'a Asked> {
        let ran_there = |id| self.ledger.runs_of(id).iter().any(|run| run.home == home);
        (1..=SESSIONS)
            .zip(sessions)
            .filter(|(id, _)| ran_there(*id))
            .map(|(_, asked)| asked)
            .collect()
    }

    fn hosts_in_status(&self) -> Vec<serde_json::Value> {
        let status: serde_json::Value =
            serde_json::from_str(&output_of(self.world.status_command())).unwrap();
        status["hosts"].as_array().unwrap().clone()
    }

    /// Whether both hosts may be given clients.
    fn are_well(&self) -> bool {
        let hosts = self.hosts_in_status();
        let is_well = |host: &serde_json::Value| {
            host["suspect"] == false
                && host["has_command"] == true
                && host["idle"]["default"].as_u64() >= Some(1)
        };
        hosts.iter().filter(|host| is_well(host)).count() == 2
    }

    fn one_is_suspect(&self) -> bool {
        self.hosts_in_status().iter().any(|host| host["suspect"] == true)
    }

    /// Another process has to be asked again and again. Gives how long it took.
    fn wait_until(&self, what: &str, within: Duration, holds: impl Fn(&Scene) -> bool) -> Duration {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < within, "not within {within:?}: {what}\n{}", self.said());
            sleep(Duration::from_millis(10));
        }
        began.elapsed()
    }

    /// Waits until a question runs at the host that was away.
    fn wait_until_served_again(&mut self, within: Duration) {
        let until = Instant::now() + within;
        loop {
            let asked = self.ask(100, Duration::ZERO);
            let asked = self.runtime.block_on(asked).unwrap();
            if asked.outcome == (Outcome::Whole { home: AWAY }) {
                return;
            }
            assert!(Instant::now() < until, "not given a client within {within:?}: {asked:?}");
        }
    }

    fn said(&self) -> String {
        let [away, there] = &self.hosts;
        format!("relay:\n{}\naway:\n{}\nthere:\n{}", self.relay.said(), away.said(), there.said())
    }
}

fn assert_served_there(asked: &[Asked], within: Duration) {
    for asked in asked {
        assert_eq!(asked.outcome, Outcome::Whole { home: THERE });
        let took = asked.ended - asked.began;
        assert!(took <= within, "took {took:?}, expected at most {within:?}");
    }
}

/// From the moment when it is away: who comes is served by the other host, the unaccepted once it is suspect, all others at once.
fn clients_go_to_the_other(scene: &mut Scene, began: Instant) {
    let until = began + SUSPECT_AFTER + SLACK * 3;
    let unaccepted = scene.ask_until(until, Scene::one_is_suspect);
    let noticed = began.elapsed();
    assert!(noticed >= SUSPECT_AFTER - PING_INTERVAL, "suspect after {noticed:?}");
    assert!(noticed <= SUSPECT_AFTER + SLACK, "suspect after {noticed:?}\n{}", scene.said());
    assert_served_there(&unaccepted, SUSPECT_AFTER + SLACK);
    let slow = unaccepted.iter().filter(|asked| asked.ended - asked.began > SLACK).count();
    assert!(slow >= 1, "nobody had been given to it");
    let withdrawn = scene.relay.events("session not accepted", slow);
    assert!(withdrawn.iter().all(|event| text(event, "reason") == "host_suspect"), "{withdrawn:?}");
    // From now on nobody is given to it.
    let later = scene.ask_until(Instant::now() + Duration::from_secs(2), |_| false);
    assert!(later.len() > 10);
    assert_served_there(&later, SLACK);
    assert_eq!(scene.relay.events_so_far("session not accepted").len(), withdrawn.len());
}

/// A host is away for less than it takes to be given up.
fn away_for_a_while(fault: Fault, back_within: Duration) {
    let Some(mut scene) = Scene::new() else { return };
    let sessions = scene.sessions(Duration::from_secs(25));
    let began = Instant::now();
    scene.begin(fault);
    clients_go_to_the_other(&mut scene, began);
    let asked_by_now = scene.last_id;
    scene.end(fault);
    scene.wait_until("the host is back in the pool", back_within, Scene::are_well);
    scene.wait_until_served_again(back_within);
    let sessions = scene.all(sessions);
    for session in &sessions {
        assert!(matches!(session.outcome, Outcome::Whole { .. }), "{session:?}\n{}", scene.said());
    }
    let (stood, ran) = (scene.at(&sessions, AWAY), scene.at(&sessions, THERE));
    assert!(stood.len() >= 2 && ran.len() >= 2, "{sessions:?}");
    assert_eq!(stood.len() + ran.len(), sessions.len(), "each ran at one");
    assert!(stood.iter().all(|session| session.longest_silence >= SUSPECT_AFTER), "{stood:?}");
    assert!(ran.iter().all(|session| session.longest_silence < SLACK * 2), "{ran:?}");
    assert_ran_once(&scene, SESSIONS + 1..=asked_by_now);
}

/// A host is away for longer than it takes to be given up.
fn away_for_too_long(fault: Fault, back_within: Duration) {
    let Some(mut scene) = Scene::new() else { return };
    let sessions = scene.sessions(Duration::from_secs(45));
    let began = Instant::now();
    scene.begin(fault);
    clients_go_to_the_other(&mut scene, began);
    let lost = |scene: &Scene| {
        let ended = scene.relay.events_so_far("session ended");
        ended.iter().any(|event| text(event, "end.reason") == "host_lost")
    };
    scene.wait_until("its sessions have ended", GONE_AFTER + SLACK, lost);
    let asked_by_now = scene.last_id;
    // Its clients know by now, so that whatever it does when it is back is too late for them.
    scene.end(fault);
    scene.wait_until("the host is back in the pool", back_within, Scene::are_well);
    scene.wait_until_served_again(back_within);
    let sessions = scene.all(sessions);
    let (lost, ran) = (scene.at(&sessions, AWAY), scene.at(&sessions, THERE));
    assert!(lost.len() >= 2 && ran.len() >= 2, "{sessions:?}");
    assert_eq!(lost.len() + ran.len(), sessions.len(), "each ran at one");
    for session in lost {
        let aborted = matches!(session.outcome, Outcome::Aborted { home: None | Some(AWAY), .. });
        assert!(aborted, "{session:?}");
        let after = session.ended - began;
        assert!(after >= GONE_AFTER - PING_INTERVAL, "ended after {after:?}");
        assert!(after <= GONE_AFTER + SLACK, "ended after {after:?}");
    }
    for session in ran {
        assert_eq!(session.outcome, Outcome::Whole { home: THERE }, "{session:?}");
        assert!(session.longest_silence < SLACK * 2, "{session:?}");
    }
    assert_ran_once(&scene, SESSIONS + 1..=asked_by_now);
}

/// That each of these questions ran, at the host that was there, and there alone. It was asked while the other was away.
fn assert_ran_once(scene: &Scene, mut ids: std::ops::RangeInclusive<u64>) {
    assert!(scene.ledger.repeated().is_empty(), "{:?}", scene.ledger.repeated());
    assert_eq!(scene.ledger.wrong(), 0);
    let homes = |id| scene.ledger.runs_of(id).iter().map(|run| run.home).collect::<Vec<_>>();
    assert!(ids.all(|id| homes(id) == [THERE]));
}

#[test]
fn of_two_hosts_one_is_frozen_and_nobody_notices_who_is_not_with_it() {
    away_for_a_while(Fault::Freeze, BACK_AT_ONCE);
}

#[test]
fn of_two_hosts_one_is_cut_off_and_nobody_notices_who_is_not_with_it() {
    away_for_a_while(Fault::Cut, BACK_IN_REACH);
}

#[test]
fn of_two_hosts_one_is_frozen_for_too_long_and_its_sessions_end_with_a_reason() {
    away_for_too_long(Fault::Freeze, BACK_AT_ONCE);
}

#[test]
fn of_two_hosts_one_is_cut_off_for_too_long_and_its_sessions_end_with_a_reason() {
    away_for_too_long(Fault::Cut, BACK_IN_REACH);
}
