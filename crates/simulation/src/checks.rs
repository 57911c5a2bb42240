//! What must hold after a history, whatever happened in it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use relayserver_relay::Snapshot;

use crate::ledger::{How, Outcome, Pages, Run};
use crate::world::{LATENCY, RELAY, TICK};

/// What happened, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) served: usize,
    pub(crate) refused: usize,
    pub(crate) reset: usize,
    pub(crate) gave_up: usize,
    /// Requests that ran twice since their host's word was lost with its link.
    pub(crate) twice: usize,
    pub(crate) trace: u64,
}

/// A time in which something was wrong with a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) machine: IpAddr,
    pub(crate) kind: Kind,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It stands still.
    Frozen,
    /// Nothing comes from it or to it.
    Cut,
    /// Its program was ended, with its sessions.
    Down,
    /// It has no power.
    Off,
}

impl Fault {
    fn overlaps(&self, from: Duration, to: Duration) -> bool {
        self.from <= to && self.to >= from
    }
}

/// A host that has not heard its relay for so long accepts nothing any more.
const SUSPECT_AFTER: Duration = Duration::from_secs(5);

/// How long a client may be in the hands of a host that is lost before it is told.
const TOLD_WITHIN: Duration = Duration::from_secs(31);

/// Holds what was written down against the rules.
pub(crate) fn check(pages: &Pages, faults: &[Fault], trace: u64) -> Result<Summary, String> {
    let mut summary = Summary { trace, ..Summary::default() };
    let mut runs: BTreeMap<u64, Vec<Run>> = BTreeMap::new();
    for run in &pages.runs {
        runs.entry(run.request).or_default().push(*run);
    }
    for outcome in &pages.outcomes {
        let runs = runs.get(&outcome.request).map(Vec::as_slice).unwrap_or_default();
        check_outcome(outcome, runs, faults)?;
        let count = match outcome.how {
            How::Served => &mut summary.served,
            How::Refused => &mut summary.refused,
            How::Reset => &mut summary.reset,
            How::GaveUp | How::Wrong(_) => &mut summary.gave_up,
        };
        *count += 1;
    }
    for (request, mut runs) in runs {
        runs.sort_by_key(|run| run.accepted);
        // The last one is the one that counts; each before it must have been lost with its host's link.
        let lost = runs.split_last().map_or(&[][..], |(_last, before)| before);
        for run in lost {
            if !was_lost(run, faults) {
                return Err(format!("request {request} ran twice: {runs:?}"));
            }
            summary.twice += 1;
        }
    }
    Ok(summary)
}

/// A client that was not served has a fault to thank for it: of the relay, or of a host that had it; where none did, of any host.
fn check_outcome(outcome: &Outcome, runs: &[Run], faults: &[Fault]) -> Result<(), String> {
    let Outcome { request, began, ended, how } = outcome;
    let suffered = |fault: &Fault| {
        fault.overlaps(began.saturating_sub(TOLD_WITHIN), *ended)
            && (fault.machine == RELAY
                || runs.is_empty()
                || runs.iter().any(|run| run.host == fault.machine))
    };
    match how {
        How::Wrong(what) => Err(format!("request {request} got {what}: {outcome:?}")),
        How::Served if runs.is_empty() => {
            Err(format!("request {request} was answered and never ran"))
        }
        How::Served => Ok(()),
        // However its host was lost, a relay that is there tells its client.
        How::GaveUp => {
            let of_relay = |fault: &Fault| fault.machine == RELAY && fault.overlaps(*began, *ended);
            let told =
                format!("nobody told this client that it is not served: {outcome:?}, {runs:?}");
            faults.iter().any(of_relay).then_some(()).ok_or(told)
        }
        How::Refused | How::Reset => {
            let told =
                format!("nothing was wrong, and this client was not served: {outcome:?}, {runs:?}");
            faults.iter().any(suffered).then_some(()).ok_or(told)
        }
    }
}

/// Whether the host's word that it serves the session could not reach the relay, and the host could not know: a link was cut, or a
/// machine off, in the moment when it was on its way, and no longer before than a host may be without news.
fn was_lost(run: &Run, faults: &[Fault]) -> bool {
    let (sent, there) = (run.accepted.saturating_sub(TICK), run.accepted + LATENCY + 2 * TICK);
    faults.iter().any(|fault| {
        let could_not_know = fault.from + SUSPECT_AFTER + LATENCY + 2 * TICK >= run.accepted;
        let is_its_own = fault.machine == run.host && matches!(fault.kind, Kind::Cut | Kind::Off);
        is_its_own && fault.overlaps(sent, there) && could_not_know
    })
}

/// What must be so when all has been well for long: nothing is left, and every host waits for clients.
pub(crate) fn check_relay(snapshot: &Snapshot, hosts: usize) -> Result<(), String> {
    let ready = snapshot.book.hosts.values().filter(|host| {
        let idle: usize = host.idle.values().sum();
        host.has_command && idle >= 3 && host.sessions == 0
    });
    let ready = ready.count();
    if ready != hosts || snapshot.book.hosts.len() != hosts {
        let all: Vec<String> =
            snapshot.book.hosts.iter().map(|(id, host)| format!("{id}: {host:?}")).collect();
        return Err(format!("{ready} of {hosts} hosts are ready:\n{}", all.join("\n")));
    }
    for (name, service) in &snapshot.book.services {
        if service.sessions + service.waiting > 0 {
            return Err(format!("service {name} has something left: {service:?}"));
        }
    }
    Ok(())
}

impl Summary {
    pub(crate) fn add(&mut self, more: &Summary) {
        self.served += more.served;
        self.refused += more.refused;
        self.reset += more.reset;
        self.gave_up += more.gave_up;
        self.twice += more.twice;
        self.trace = more.trace;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { served, refused, reset, gave_up, twice, .. } = self;
        write!(
            f,
            "{served} clients served, {refused} refused, {reset} reset, {gave_up} gave up; {twice} requests ran twice, \
             each with its host cut off as it accepted"
        )
    }
}
