//! The clients: some ask short questions all the time, some have long sessions with traffic both ways. Each of them checks every byte
//! and has every session judged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::judge::{Verdict, judge, seconds};
use crate::machines::{Machines, lock};
use crate::report::say;
use crate::support::checked::{Asked, Ledger, Outcome, Question, ask};

/// How many clients there are of each kind.
const ASKING: u64 = 12;
const BULK: u64 = 24;

/// Longer than any session stands still that goes on: after 30 s without an answer, TCP tries again after as long.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long the relay may take to say why a session ended.
const WORD_TIMEOUT: Duration = Duration::from_secs(2);

/// How many sessions that went wrong are told one by one.
const TOLD_MAX: usize = 30;

/// What all clients share.
pub(crate) struct Crowd {
    pub(crate) machines: Arc<Machines>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) began: Instant,
    /// Until when sessions are begun.
    until: Instant,
    over: AtomicBool,
    last_id: AtomicU64,
    pub(crate) counts: Mutex<Counts>,
}

/// What came of the sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sessions: u64,
    pub(crate) served: u64,
    /// By what the client saw and why the relay says it ended.
    pub(crate) explained: BTreeMap<String, u64>,
    pub(crate) refused: u64,
    pub(crate) unexplained: u64,
    pub(crate) wrong_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) longest_silence: Duration,
    /// Each session that should have gone otherwise.
    pub(crate) told: Vec<String>,
}

impl Crowd {
    pub(crate) fn new(machines: Arc<Machines>, ledger: Arc<Ledger>, length: Duration) -> Crowd {
        let began = Instant::now();
        Crowd {
            machines,
            ledger,
            began,
            until: began + length,
            over: AtomicBool::new(false),
            last_id: AtomicU64::new(0),
            counts: Mutex::default(),
        }
    }

    /// Begins no more sessions.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Has all clients at it until [`end`](Crowd::end), and resolves when their last sessions have ended.
    pub(crate) async fn run(self: Arc<Crowd>, seed: u64) {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..ASKING + BULK {
            let crowd = Arc::clone(&self);
            let random = fastrand::Rng::with_seed(seed.wrapping_add(client + 1));
            clients.spawn(async move { crowd.client(random, client < ASKING).await });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    }

    async fn client(&self, mut random: fastrand::Rng, is_short: bool) {
        let relay = self.machines.world().clients();
        while !self.over.load(Ordering::Relaxed) {
            let question = self.question(&mut random, is_short);
            let asked = ask(relay, question).await;
            self.take(question, asked).await;
            let is_away = asked.outcome == Outcome::NotTaken;
            let pause = if is_away { random.u64(300..1_000) } else { random.u64(20..300) };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    fn question(&self, random: &mut fastrand::Rng, is_short: bool) -> Question {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (len, lasts) = if is_short {
            let most = *random.choice(&[0, 100, 5_000, 100_000]).unwrap();
            (random.u64(0..=most), Duration::ZERO)
        } else {
            let left = self.until.saturating_duration_since(Instant::now()).as_millis();
            let longest = u64::try_from(left).unwrap_or(u64::MAX).clamp(1_000, 45_000);
            let lasts = random.u64(500..=longest);
            // From 4 KiB a second, a chunk every four seconds, to 400.
            (lasts * 4 * random.u64(1..=100), Duration::from_millis(lasts))
        };
        Question { id, len, lasts, half_closes: random.bool(), patience: PATIENCE }
    }

    async fn take(&self, question: Question, asked: Asked) {
        let runs = self.ledger.runs_of(question.id);
        let verdict = judge(&asked, &runs, &self.machines.happened());
        let reason = match asked.client {
            // Of one that was cut short by a relay that was killed nothing is said: what is found is another's, from the same port.
            Some(_) if verdict == Verdict::Explained && is_short(asked.outcome) => None,
            Some(client) if verdict != Verdict::Served => self.reason(client, asked.began).await,
            _ => None,
        };
        let mut counts = lock(&self.counts);
        counts.sessions += 1;
        counts.longest_silence = counts.longest_silence.max(asked.longest_silence);
        match verdict {
            Verdict::Served => {
                counts.served += 1;
                counts.bytes += question.len * 2;
                return;
            }
            Verdict::Explained => {
                let reason = reason.as_deref().unwrap_or("of which the relay said nothing");
                let what = format!("{}, {reason}", name(asked.outcome));
                *counts.explained.entry(what).or_default() += 1;
                return;
            }
            Verdict::Refused => counts.refused += 1,
            Verdict::Unexplained => counts.unexplained += 1,
            Verdict::Wrong => counts.wrong_bytes += wrong_bytes(asked.outcome),
        }
        let (began, ended) = (seconds(self.began, asked.began), seconds(self.began, asked.ended));
        let told = format!(
            "{verdict:?}: {question:?} from {began:.1} s to {ended:.1} s: {:?}; the relay says {reason:?}; client {:?}, ran at {:?}",
            asked.outcome,
            asked.client,
            runs.iter().map(|run| (run.home, seconds(self.began, run.at))).collect::<Vec<_>>()
        );
        if counts.told.len() < TOLD_MAX {
            say(&told);
            counts.told.push(told);
        }
    }

    /// Why the relay says that a session ended: it may say so a moment after its client knows.
    async fn reason(&self, client: SocketAddr, since: Instant) -> Option<String> {
        let until = Instant::now() + WORD_TIMEOUT;
        loop {
            let reason = self.machines.said.reason(client, since);
            if reason.is_some() || Instant::now() > until {
                return reason;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn is_short(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Short { .. })
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Whole { .. } => "whole",
        Outcome::NotTaken => "not connected",
        Outcome::Refused => "refused",
        Outcome::Short { .. } => "cut short",
        Outcome::Aborted { .. } => "aborted",
        Outcome::Still { .. } => "still",
        Outcome::Wrong { .. } => "wrong",
    }
}

fn wrong_bytes(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Wrong { bytes, .. } => bytes,
        _ => 0,
    }
}
