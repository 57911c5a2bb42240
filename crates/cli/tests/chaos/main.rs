//! Chaos with real processes: a relay, hosts in networks of their own and a crowd of clients that check every byte, while hosts and relay
//! are killed, frozen, cut off and restarted. At the end it is counted who was served, and whether every other end has a fault that
//! explains it.
//!
//! `RELAYSERVER_CHAOS_SECONDS` says for how long (60), `RELAYSERVER_CHAOS_SEED` which faults; `scripts/soak` sets both.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod clients;
mod judge;
mod machines;
mod plan;
mod report;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clients::Crowd;
use machines::{Holdings, Machines};
use plan::HOMES;
use report::{Report, say};
use support::checked::{Ledger, serve};
use support::program::have;

const MINUTE: Duration = Duration::from_secs(60);

/// How long it takes at most until nothing goes on any more once the last session has ended.
const QUIET_DEADLINE: Duration = Duration::from_secs(60);

/// How long the relay is looked at before there is anything to compare it with.
const SETTLING: Duration = Duration::from_secs(1);

/// How often a process is asked that can only be asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[test]
fn no_byte_is_wrong_and_no_end_unexplained_whatever_happens_to_hosts_and_relay() {
    if !have(&["ip"]) {
        return;
    }
    support::net::raise_descriptor_limit();
    let length = Duration::from_secs(from_environment("RELAYSERVER_CHAOS_SECONDS").unwrap_or(60));
    let seed = from_environment("RELAYSERVER_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    say(&format!("chaos for {length:?}; RELAYSERVER_CHAOS_SEED={seed} does the same again"));
    let Some(machines) = Machines::start() else { return };
    let (machines, ledger) = (Arc::new(machines), Arc::new(Ledger::default()));
    let runtime = machines.world().client().runtime();
    for home in 0..HOMES {
        let listener = machines.world().listen(usize::from(home));
        runtime.spawn(serve(listener, home, Arc::clone(&ledger)));
    }
    let at_first = at_rest(&machines, SETTLING, |_| false);
    let crowd = Arc::new(Crowd::new(Arc::clone(&machines), ledger, length));
    let clients = runtime.spawn(Arc::clone(&crowd).run(seed));
    play(&crowd, seed, length);
    crowd.end();
    runtime.block_on(clients).unwrap();
    // What leaks is still held when everything else has been closed.
    let is_settled = |held: &Holdings| held.descriptors <= at_first.descriptors;
    let at_last = at_rest(&machines, QUIET_DEADLINE, is_settled);
    let report = Report::of(&crowd, at_first, at_last);
    say(&report.to_string());
    drop(runtime);
    // Once more, with the failure: what is said along the way is shown elsewhere, or not at all.
    assert!(
        report.is_good(),
        "{}\nRELAYSERVER_CHAOS_SEED={seed}: these counts are not as they should be\n{report}",
        machines.last_words()
    );
}

/// Does to the processes what was planned, each thing at its time, and tells each minute how it goes.
fn play(crowd: &Crowd, seed: u64, length: Duration) {
    thread::scope(|scope| {
        // On a thread of its own: a relay that stands still makes it wait, and nothing is to come later for that.
        scope.spawn(|| {
            for minute in 1..=u32::try_from(length.as_secs() / 60).unwrap() {
                sleep_until(crowd.began + MINUTE * minute);
                say(&report::so_far(crowd));
            }
        });
        for (at, fault) in plan::plan(seed, length) {
            sleep_until(crowd.began + at);
            say(&format!("{:7.1} s: {fault}", at.as_secs_f64()));
            let machines = &crowd.machines;
            scope.spawn(move || machines.perform(fault));
        }
        sleep_until(crowd.began + length);
    });
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// What the relay holds when nothing goes on: the least of several looks, within so long, or until one is settled. Each of them also sees
/// what is held for a moment: the connection of the one before it, or a channel that is being set up.
fn at_rest(
    machines: &Machines,
    within: Duration,
    is_settled: impl Fn(&Holdings) -> bool,
) -> Holdings {
    wait_for_quiet(machines);
    let until = Instant::now() + within;
    let mut least = machines.holdings().unwrap();
    while !is_settled(&least) && Instant::now() < until {
        thread::sleep(LOOK_INTERVAL);
        let held = machines.holdings().unwrap();
        if held.descriptors <= least.descriptors {
            least = held;
        }
    }
    least
}

/// Waits until all hosts are back and no session runs. Only a process can be asked, again and again.
fn wait_for_quiet(machines: &Machines) {
    let until = Instant::now() + QUIET_DEADLINE;
    while !machines.are_quiet() {
        let status = machines.status();
        assert!(Instant::now() < until, "not quiet: {status:?}\n{}", machines.last_words());
        thread::sleep(LOOK_INTERVAL);
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}: expected a number, got {value}")))
}
