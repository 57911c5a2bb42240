//! What a run came to, in counts, and whether that is good.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use crate::clients::{Counts, Crowd};
use crate::judge::{explains_second_run, seconds};
use crate::machines::{Holdings, lock};

/// How much memory the relay may hold at the end beyond what it held at first, before any client had come: what the allocator keeps
/// of its busiest moment, and the bookkeeping of a pool that has grown. A hundred bytes lost with each session of half an hour's run
/// are more.
const RSS_TOLERANCE_KIB: i64 = 12 * 1024;

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
            at_first,
            at_last,
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        let Counts { sessions, served, refused, unexplained, wrong_bytes, .. } = &self.counts;
        // Most of a run nothing is wrong with most of the hosts.
        let is_served = *served * 2 > *sessions;
        is_served
            && refused + unexplained + wrong_bytes + self.wrong_at_servers == 0
            && self.ran_twice.is_empty()
            && self.at_last.descriptors - self.at_first.descriptors <= DESCRIPTOR_TOLERANCE
            && self.at_last.rss_kib - self.at_first.rss_kib <= RSS_TOLERANCE_KIB
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
        writeln!(f, "{:8} ended without a fault that explains it", counts.unexplained)?;
        writeln!(f, "{:8} not served although a host could have", counts.refused)?;
        let wrong = counts.wrong_bytes + self.wrong_at_servers;
        writeln!(f, "{wrong:8} bytes wrong")?;
        let (twice, lost) = (self.ran_twice.len(), self.ran_twice_explained);
        writeln!(f, "{twice:8} questions that ran twice, {lost} whose host's word was lost")?;
        writeln!(f, "         the relay's reasons: {:?}", self.reasons)?;
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
        let (first, last) = (at_first.rss_kib, at_last.rss_kib);
        write!(f, "         the relay's memory: {first} KiB at first, {last} KiB at last")?;
        for told in counts.told.iter().chain(&self.ran_twice) {
            write!(f, "\n{told}")?;
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
