//! The clients: some ask short questions all the time, some have long sessions with traffic both ways, some read slowly, and some
//! leave before the end. Each of them checks every byte that it gets and has every session judged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::judge::{Stay, Verdict, judge, seconds};
use crate::machines::{Machines, lock};
use crate::report::say;
use crate::support::checked::{Asked, Ledger, Manner, Outcome, Question, ask};

/// What clients do, each of them all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ask short questions.
    Asking,
    /// Have long sessions with traffic both ways.
    Bulk,
    /// Send as fast as they can, and read slowly.
    Slow,
    /// Leave at some moment.
    Leaving,
}

/// How many clients there are of each kind.
const CROWD: [(Kind, usize); 4] =
    [(Kind::Asking, 12), (Kind::Bulk, 24), (Kind::Slow, 6), (Kind::Leaving, 6)];

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
    pub(crate) until: Instant,
    over: AtomicBool,
    last_id: AtomicU64,
    pub(crate) counts: Mutex<Counts>,
    /// The sessions that ran, once they are over.
    pub(crate) stays: Mutex<Vec<Stay>>,
}

/// What came of the sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sessions: u64,
    pub(crate) served: u64,
    /// By what the client saw and why the relay says it ended.
    pub(crate) explained: BTreeMap<String, u64>,
    /// Clients that left by themselves.
    pub(crate) left: u64,
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
            stays: Mutex::default(),
        }
    }

    /// Begins no more sessions.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Has all clients at it until [`end`](Crowd::end), and resolves when their last sessions have ended.
    pub(crate) async fn run(self: Arc<Crowd>, seed: u64) {
        let mut clients = tokio::task::JoinSet::new();
        let kinds = CROWD.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count));
        for (kind, number) in kinds.zip(1..) {
            let crowd = Arc::clone(&self);
            let random = fastrand::Rng::with_seed(seed.wrapping_add(number));
            clients.spawn(async move { crowd.client(random, kind).await });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    }

    async fn client(&self, mut random: fastrand::Rng, kind: Kind) {
        let relay = self.machines.world().clients();
        while !self.over.load(Ordering::Relaxed) {
            let question = self.question(&mut random, kind);
            let asked = ask(relay, question).await;
            self.take(question, asked).await;
            let is_away = asked.outcome == Outcome::NotTaken;
            let pause = if is_away { random.u64(300..1_000) } else { random.u64(20..300) };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    fn question(&self, random: &mut fastrand::Rng, kind: Kind) -> Question {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let left = self.until.saturating_duration_since(Instant::now()).as_millis();
        let longest = u64::try_from(left).unwrap_or(u64::MAX).clamp(1_000, 45_000);
        let millis = random.u64(500..=longest);
        let lasts = Duration::from_millis(millis);
        let most = *random.choice(&[0, 100, 5_000, 100_000]).unwrap();
        let asking = (random.u64(0..=most), Duration::ZERO, Manner::Prompt);
        // From 4 KiB a second, a chunk every four seconds, to 400.
        let bulk = (millis * 4 * random.u64(1..=100), lasts, Manner::Prompt);
        // The slowest reads what it has room for within half a second.
        let bytes_per_second = random.u32(100_000..=300_000);
        let (len, lasts, manner) = match kind {
            Kind::Asking => asking,
            Kind::Bulk => bulk,
            Kind::Slow => {
                let len = millis * u64::from(bytes_per_second) / 1_000;
                (len, Duration::ZERO, Manner::Slow { bytes_per_second })
            }
            Kind::Leaving => {
                let (len, lasts, _) = if random.bool() { asking } else { bulk };
                let latest = *random.choice(&[20, 500, 8_000]).unwrap();
                let after = Duration::from_millis(random.u64(0..=latest));
                (len, lasts, Manner::Leaves { after })
            }
        };
        Question { id, len, lasts, half_closes: random.bool(), patience: PATIENCE, manner }
    }

    async fn take(&self, question: Question, asked: Asked) {
        let runs = self.ledger.runs_of(question.id);
        lock(&self.stays).extend(runs.last().map(|run| Stay {
            home: run.home,
            from: run.at,
            to: asked.ended,
        }));
        let verdict = judge(question.manner, &asked, &runs, &self.machines.happened());
        let reason = match asked.client {
            // Of one that was cut short by a relay that was killed nothing is said: what is found is another's, from the same port.
            Some(_) if verdict == Verdict::Explained && is_short(asked.outcome) => None,
            Some(client) if !matches!(verdict, Verdict::Served | Verdict::Left) => {
                self.reason(client, asked.began).await
            }
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
            Verdict::Left => {
                counts.left += 1;
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
        Outcome::Left => "left",
    }
}

fn wrong_bytes(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Wrong { bytes, .. } => bytes,
        _ => 0,
    }
}
