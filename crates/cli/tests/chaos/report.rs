//! What a run came to, in counts, and whether that is good.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use crate::clients::{Counts, Crowd};
use crate::judge::{Return, explains_second_run, returns, seconds};
use crate::machines::{Holdings, lock};
use crate::plan::Fault;

/// How much memory the relay may hold at the end beyond what it held at first, before any client had come, its larger pool aside: what
/// the allocator keeps of the relay's busiest moment.
const RSS_TOLERANCE_KIB: i64 = 8 * 1024;

/// What an idle channel with TLS may take of it, in a build without optimisations: the pool grows with the crowd, and shrinks over minutes.
const RSS_OF_IDLE_CHANNEL_KIB: i64 = 32;

/// How many descriptors it may hold beyond those at first, idle and command channels aside: none.
const DESCRIPTOR_TOLERANCE: i64 = 0;

/// The counts of a run that is over.
pub(crate) struct Report {
    counts: Counts,
    wrong_at_servers: u64,
    faults: usize,
    ran_twice: Vec<String>,
    ran_twice_explained: usize,
    reasons: BTreeMap<String, u64>,
    returns: Vec<Return>,
    at_first: Holdings,
    at_last: Holdings,
}

impl Report {
    pub(crate) fn of(crowd: &Crowd, at_first: Holdings, at_last: Holdings) -> Report {
        let happened = crowd.machines.happened();
        let (explained, not): (Vec<_>, Vec<_>) = crowd
            .ledger
            .repeated()
            .into_iter()
            .partition(|(_, runs)| explains_second_run(runs, &happened));
        let told = |(id, runs): (u64, Vec<crate::support::checked::Run>)| {
            let runs: Vec<_> =
                runs.iter().map(|run| (run.home, seconds(crowd.began, run.at))).collect();
            format!("question {id} ran at {runs:.1?}")
        };
        Report {
            counts: lock(&crowd.counts).clone(),
            wrong_at_servers: crowd.ledger.wrong(),
            faults: happened.len(),
            ran_twice: not.into_iter().map(told).collect(),
            ran_twice_explained: explained.len(),
            reasons: crowd.machines.said.counts(),
            returns: returns(&happened, &lock(&crowd.stays), crowd.until, |home, since| {
                crowd.ledger.first_run(home, since)
            }),
            at_first,
            at_last,
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        let Counts { sessions, served, left, refused, unexplained, wrong_bytes, .. } = &self.counts;
        // Most of a run nothing is wrong with most of the hosts.
        let is_served = *served * 2 > *sessions - *left;
        is_served
            && refused + unexplained + wrong_bytes + self.wrong_at_servers == 0
            && self.ran_twice.is_empty()
            && !self.returns.iter().any(Return::is_late)
            && self.at_last.descriptors - self.at_first.descriptors <= DESCRIPTOR_TOLERANCE
            && self.at_last.rss_kib - self.at_first.rss_kib <= self.rss_tolerance_kib()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { counts, at_first, at_last, .. } = self;
        writeln!(f, "{:8} faults", self.faults)?;
        writeln!(f, "{:8} sessions", counts.sessions)?;
        writeln!(f, "{:8} served whole, {} MiB checked", counts.served, counts.bytes >> 20)?;
        for (what, count) in &counts.explained {
            writeln!(f, "{count:8} ended as a fault makes it: {what}")?;
        }
        writeln!(f, "{:8} left by themselves", counts.left)?;
        writeln!(f, "{:8} ended without a fault that explains it", counts.unexplained)?;
        writeln!(f, "{:8} not served although a host could have", counts.refused)?;
        let wrong = counts.wrong_bytes + self.wrong_at_servers;
        writeln!(f, "{wrong:8} bytes wrong")?;
        let (twice, lost) = (self.ran_twice.len(), self.ran_twice_explained);
        writeln!(f, "{twice:8} questions that ran twice, {lost} whose host's word was lost")?;
        writeln!(f, "         the relay's reasons: {:?}", self.reasons)?;
        self.write_returns(f)?;
        writeln!(
            f,
            "         the longest that a client heard nothing: {:.1?}",
            counts.longest_silence
        )?;
        writeln!(
            f,
            "         the relay's descriptors beside those of waiting hosts: {} at first, {} at last",
            at_first.descriptors, at_last.descriptors
        )?;
        let held = |at: &Holdings| format!("{} KiB with {} idle channels", at.rss_kib, at.idle);
        let (first, last) = (held(at_first), held(at_last));
        write!(f, "         the relay's memory: {first} at first, {last} at last")?;
        for told in counts.told.iter().chain(&self.ran_twice) {
            write!(f, "\n{told}")?;
        }
        Ok(())
    }
}

impl Report {
    fn rss_tolerance_kib(&self) -> i64 {
        let more = (self.at_last.idle - self.at_first.idle).max(0);
        RSS_TOLERANCE_KIB + more * RSS_OF_IDLE_CHANNEL_KIB
    }

    fn write_returns(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_freeze = |it: &&Return| matches!(it.fault, Fault::FreezeHost { .. });
        let (frozen, cut): (Vec<&Return>, Vec<&Return>) = self.returns.iter().partition(is_freeze);
        for (what, returns) in [("thawed", frozen), ("in reach again", cut)] {
            let (count, longest) = (returns.len(), returns.iter().map(|it| it.took).max());
            let longest = longest.unwrap_or_default();
            writeln!(f, "{count:8} hosts {what}, given a client within {longest:.1?}")?;
        }
        for late in self.returns.iter().filter(|it| it.is_late()) {
            writeln!(
                f,
                "         late, {:.1?} instead of {:?}: {}",
                late.took, late.within, late.fault
            )?;
        }
        Ok(())
    }
}

/// How a run goes that is not over, in a line.
pub(crate) fn so_far(crowd: &Crowd) -> String {
    let counts = lock(&crowd.counts).clone();
    let explained: u64 = counts.explained.values().sum();
    let held = crowd.machines.holdings();
    let held = held.map_or_else(String::new, |held| {
        format!(", relay {} descriptors, {} KiB", held.descriptors, held.rss_kib)
    });
    format!(
        "{:7.1} s: {} sessions, {} served, {explained} explained, {} unexplained, {} refused, {} bytes wrong{held}",
        crowd.began.elapsed().as_secs_f64(),
        counts.sessions,
        counts.served,
        counts.unexplained,
        counts.refused,
        counts.wrong_bytes + crowd.ledger.wrong(),
    )
}

/// Says something, also where the test runner swallows what tests print.
pub(crate) fn say(what: &str) {
    let _said = writeln!(io::stderr(), "{what}");
}
