//! What must hold after a history, whatever happened in it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use relayserver_relay::Snapshot;

use crate::ledger::{How, Outcome, Pages, Run};
use crate::world::{LATENCY, TICK};

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

/// A time in which a machine could not be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absence {
    pub(crate) machine: IpAddr,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

/// Holds what was written down against the rules. Who came after `calm` had nothing to suffer from.
pub(crate) fn check(
    pages: &Pages,
    absences: &[Absence],
    calm: Duration,
    trace: u64,
) -> Result<Summary, String> {
    let mut summary = Summary { trace, ..Summary::default() };
    for outcome in &pages.outcomes {
        check_outcome(outcome, calm)?;
        let count = match outcome.how {
            How::Served => &mut summary.served,
            How::Refused => &mut summary.refused,
            How::Reset => &mut summary.reset,
            How::GaveUp | How::Wrong(_) => &mut summary.gave_up,
        };
        *count += 1;
    }
    let mut runs: BTreeMap<u64, Vec<Run>> = BTreeMap::new();
    for run in &pages.runs {
        runs.entry(run.request).or_default().push(*run);
    }
    for (request, runs) in runs {
        // The last one is the one that counts; each before it must have been lost with its host's link.
        let lost = runs.split_last().map_or(&[][..], |(_last, before)| before);
        for run in lost {
            if !was_lost(run, absences) {
                return Err(format!("request {request} ran twice: {runs:?}"));
            }
            summary.twice += 1;
        }
    }
    for outcome in pages.outcomes.iter().filter(|outcome| outcome.how == How::Served) {
        if !pages.runs.iter().any(|run| run.request == outcome.request) {
            return Err(format!("request {} was answered and never ran", outcome.request));
        }
    }
    Ok(summary)
}

fn check_outcome(outcome: &Outcome, calm: Duration) -> Result<(), String> {
    match &outcome.how {
        How::Wrong(what) => Err(format!("request {} got {what}: {outcome:?}", outcome.request)),
        How::Served => Ok(()),
        _ if outcome.began >= calm => {
            Err(format!("nothing was wrong, and a client was not served: {outcome:?}"))
        }
        _ => Ok(()),
    }
}

/// Whether the host's word that it serves the session could not reach the relay: a link was cut, or a machine off, in the moment
/// when it was on its way.
fn was_lost(run: &Run, absences: &[Absence]) -> bool {
    let (sent, there) = (run.accepted.saturating_sub(TICK), run.accepted + LATENCY + 2 * TICK);
    absences.iter().any(|it| it.machine == run.host && it.from <= there && it.to >= sent)
}

/// What must be so when all has been well for long: nothing is left, and every host waits for clients.
pub(crate) fn check_relay(snapshot: &Snapshot, hosts: usize) -> Result<(), String> {
    let ready = snapshot.book.hosts.values().filter(|host| {
        let idle: usize = host.idle.values().sum();
        host.has_command && idle >= 3 && host.sessions == 0
    });
    let ready = ready.count();
    if ready != hosts || snapshot.book.hosts.len() != hosts {
        return Err(format!("{ready} of {hosts} hosts are ready: {:#?}", snapshot.book.hosts));
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
