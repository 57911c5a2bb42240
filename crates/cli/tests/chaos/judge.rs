//! Whether what clients saw is explained by what was done to the processes, and whether hosts were given clients again in time. Nothing here
//! waits, or does anything.
//!
//! Each rule is what the product promises, to the second; [`SLACK`] is for a machine that is busy with all of this.

use std::time::{Duration, Instant};

use crate::machines::Happened;
use crate::plan::{DRAIN, Fault};
use crate::support::checked::{Asked, Manner, Outcome, Run};
use crate::support::world::Ways;

/// How long a host is silent before the relay gives it no more sessions.
const SUSPECT: Duration = Duration::from_secs(5);

/// How long a host is silent before the relay gives it up.
const GONE: Duration = Duration::from_secs(30);

/// How often the relay asks for a sign of life: silence may have begun by so much before the fault.
const PING_INTERVAL: Duration = Duration::from_millis(1_700);

/// How late a host that was cut off may be heard again once it is reachable.
const RETURN: Duration = Duration::from_secs(5);

/// How late one that stood still may be.
const RETURN_OF_FROZEN: Duration = Duration::from_secs(1);

/// What the connections of a session may hold between them, in bytes. A relay hands over what a host had sent ahead of its reset.
const BUFFERED_MAX: u32 = 10 << 20;

/// How late anything may be on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// By how many sessions what the relay counts of a host may differ from what its clients have: they begin and end a moment apart.
const HELD_SLACK: usize = 3;

/// How far from a fault a run may be whose host's word was lost in it.
const LOST_WORD: Duration = Duration::from_millis(1_500);

/// What is made of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Served,
    /// Not told, as the client left before.
    Left,
    /// Not served, or not to the end, as a fault makes it.
    Explained,
    /// Nobody took it although there was always somebody who could.
    Refused,
    /// An end that no fault explains.
    Unexplained,
    /// Bytes that nobody sent.
    Wrong,
}

/// Judges a session by what happened, and by where its question ran.
pub(crate) fn judge(manner: Manner, asked: &Asked, runs: &[Run], happened: &[Happened]) -> Verdict {
    let explained_by = |explains: &dyn Fn(&Happened) -> bool, otherwise| {
        if happened.iter().any(explains) { Verdict::Explained } else { otherwise }
    };
    let ran_at = runs.last().map(|run| run.home);
    match asked.outcome {
        Outcome::Whole { .. } => Verdict::Served,
        Outcome::Wrong { .. } => Verdict::Wrong,
        Outcome::Left => Verdict::Left,
        Outcome::Still { .. } => Verdict::Unexplained,
        Outcome::NotTaken | Outcome::Refused => {
            explained_by(&|it| relay_was_away(asked, it), Verdict::Refused)
        }
        // The kernel ends the connections of a killed process as if it had meant it.
        Outcome::Short { .. } => {
            explained_by(&|it| relay_was_killed(asked, it), Verdict::Unexplained)
        }
        Outcome::Aborted { home, .. } => {
            // As far as the relay has heard: a host that took it may not have got through with its word.
            let is_accepted =
                home.is_some() || runs.last().is_some_and(|run| !word_may_be_lost(run, happened));
            let home = home.or(ran_at);
            let delay = delay(asked, happened) + backlog(manner);
            let explains = |it: &_| explains_abort(asked, home, is_accepted, delay, it);
            explained_by(&explains, Verdict::Unexplained)
        }
    }
}

/// Whether a question ran a second time because the word that the first host had accepted it was lost with its link, or its process.
pub(crate) fn explains_second_run(runs: &[Run], happened: &[Happened]) -> bool {
    let [first, _second] = runs else { return false };
    word_may_be_lost(first, happened)
}

/// Whether a fault may have kept the host's word from the relay that it had accepted the question of this run.
fn word_may_be_lost(run: &Run, happened: &[Happened]) -> bool {
    happened.iter().any(|it| {
        let loses_words_for = match it.fault {
            // It is given sessions, and begins them, until the relay has not heard it for long enough.
            Fault::CutHome { ways: Ways::ToRelay, .. } => SUSPECT + LOST_WORD,
            Fault::KillHost { .. } | Fault::CutHome { .. } => LOST_WORD,
            _ => return false,
        };
        it.fault.home() == Some(run.home)
            && run.at + LOST_WORD >= it.began
            && run.at <= it.began + loses_words_for
    })
}

fn relay_was_away(asked: &Asked, it: &Happened) -> bool {
    let is_relay = matches!(it.fault, Fault::KillRelay { .. } | Fault::RestartRelay { .. });
    is_relay && it.began <= asked.ended && it.over.is_none_or(|over| asked.began <= over)
}

fn relay_was_killed(asked: &Asked, it: &Happened) -> bool {
    matches!(it.fault, Fault::KillRelay { .. }) && relay_was_away(asked, it)
}

/// How late the relay may have noticed something because it stood still itself.
fn delay(asked: &Asked, happened: &[Happened]) -> Duration {
    let delays = happened.iter().filter_map(|it| match it.fault {
        Fault::FreezeRelay { lasts } => {
            let overlaps = asked.began <= it.began + lasts && it.began <= asked.ended;
            overlaps.then_some(lasts)
        }
        _ => None,
    });
    delays.sum()
}

/// How long a client may read on what was under way to it when its session was aborted.
fn backlog(manner: Manner) -> Duration {
    match manner {
        Manner::Slow { bytes_per_second } => {
            Duration::from_secs_f64(f64::from(BUFFERED_MAX) / f64::from(bytes_per_second))
        }
        Manner::Prompt | Manner::Leaves { .. } => Duration::ZERO,
    }
}

fn explains_abort(
    asked: &Asked,
    home: Option<u8>,
    is_accepted: bool,
    delay: Duration,
    it: &Happened,
) -> bool {
    let ended_within = |from: Duration, to: Duration| {
        let to = to + delay;
        asked.began <= it.began + to
            && it.began + from.saturating_sub(SLACK / 10) <= asked.ended
            && asked.ended <= it.began + to + SLACK
    };
    if home.is_some() && it.fault.home().is_some() && it.fault.home() != home {
        return false;
    }
    let is_given_up = |shortest: Duration, lasts: Duration| {
        lasts >= shortest && ended_within(GONE - PING_INTERVAL, GONE)
    };
    match it.fault {
        Fault::KillRelay { .. } => relay_was_killed(asked, it),
        // One that no host has accepted is not given to another by a relay that leaves: it is reset as soon as its host is suspect.
        Fault::RestartRelay { .. } => {
            ended_within(DRAIN, DRAIN) || !is_accepted && relay_was_away(asked, it)
        }
        Fault::FreezeRelay { .. } => false,
        Fault::RestartHost { .. } => ended_within(DRAIN, DRAIN),
        Fault::KillHost { .. } => ended_within(Duration::ZERO, Duration::ZERO),
        Fault::FreezeHost { lasts, .. } => is_given_up(GONE - PING_INTERVAL, lasts),
        Fault::CutHome { lasts, .. } => is_given_up(GONE - PING_INTERVAL - RETURN, lasts),
    }
}

/// A session that ran at a home: from its run there until its client saw the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stay {
    pub(crate) home: u8,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// How long a host took to be given a client again, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    pub(crate) fault: Fault,
    pub(crate) took: Duration,
    pub(crate) within: Duration,
    /// Whether a client that it should have had went to a host with more sessions.
    pub(crate) was_passed_over: bool,
}

impl Return {
    /// One whose sessions outlived the fault is given no client while others have fewer: that is not late.
    pub(crate) fn is_late(&self) -> bool {
        self.took > self.within + SLACK && self.was_passed_over
    }
}

/// The returns of all hosts that stood still or were cut off while the relay was left alone. `next_client` gives when a home ran its
/// first question from a moment on; one that got none until `until` is taken to be back then.
pub(crate) fn returns(
    happened: &[Happened],
    stays: &[Stay],
    until: Instant,
    next_client: impl Fn(u8, Instant) -> Option<Instant>,
) -> Vec<Return> {
    let returned = |it: &Happened| {
        let within = match it.fault {
            Fault::FreezeHost { .. } => RETURN_OF_FROZEN,
            Fault::CutHome { .. } => RETURN,
            _ => return None,
        };
        let (home, over) = (it.fault.home()?, it.over?);
        let settles = RETURN + SLACK;
        let is_disturbed = happened.iter().any(|other| {
            let other_over = other.over.unwrap_or(until);
            other.fault.home().is_none()
                && other.began <= over + settles
                && it.began <= other_over + settles
        });
        if is_disturbed || over + settles > until {
            return None;
        }
        let back = next_client(home, over).unwrap_or(until);
        let was_passed_over = was_passed_over(stays, home, over + within + SLACK, back);
        Some(Return { fault: it.fault, took: back - over, within, was_passed_over })
    };
    happened.iter().filter_map(returned).collect()
}

/// Whether another home was given a client in this time although it clearly had more sessions.
fn was_passed_over(stays: &[Stay], home: u8, from: Instant, to: Instant) -> bool {
    let held = |home: u8, at: Instant| {
        stays.iter().filter(|it| it.home == home && it.from < at && at < it.to).count()
    };
    let mut begun = stays.iter().filter(|it| it.home != home && it.from > from && it.from < to);
    begun.any(|it| held(it.home, it.from) > held(home, it.from) + HELD_SLACK)
}

/// How long after `since` something was, for a message.
pub(crate) fn seconds(since: Instant, at: Instant) -> f64 {
    at.saturating_duration_since(since).as_secs_f64()
}

#[test]
fn a_host_is_late_where_one_that_had_more_sessions_was_given_its_clients() {
    let began = Instant::now();
    let second = |second: u64| began + Duration::from_secs(second);
    let stay = |home: u8, from: u64, to: u64| Stay { home, from: second(from), to: second(to) };
    let fault = Fault::CutHome { home: 0, ways: Ways::Both, lasts: Duration::from_secs(10) };
    let happened = [Happened { fault, began: second(10), over: Some(second(20)) }];
    let is_late = |stays: &[Stay], back: u64| {
        let next_client = |_home, _since| Some(second(back));
        let returns = returns(&happened, stays, second(60), next_client);
        assert_eq!(returns.len(), 1);
        returns[0].is_late()
    };
    let held = |home: u8, count: usize| vec![stay(home, 1, 60); count];
    let to_another = [held(1, 9), vec![stay(1, 30, 31)]].concat();

    assert!(is_late(&to_another, 40), "it had none, and was not given the client at 30 s");
    assert!(!is_late(&to_another, 28), "it was in time");
    assert!(!is_late(&[held(0, 9), to_another.clone()].concat(), 40), "it had as many");
    assert!(!is_late(&held(1, 9), 40), "there was no client to be given");
    assert!(is_late(&[held(0, 5), to_another].concat(), 40), "it had fewer");
}

#[test]
fn a_relay_that_leaves_explains_the_reset_of_what_it_has_not_heard_to_be_accepted() {
    let start = Instant::now();
    let millis = |millis: u64| start + Duration::from_millis(millis);
    let unheard = Fault::CutHome { home: 1, ways: Ways::ToRelay, lasts: Duration::from_secs(30) };
    let restart = Fault::RestartRelay { away: Duration::from_secs(1) };
    let unheard = Happened { fault: unheard, began: millis(22_900), over: None };
    let restart = Happened { fault: restart, began: millis(26_400), over: Some(millis(30_000)) };
    let verdict = |home: Option<u8>, run: Option<Run>, happened: &[Happened]| {
        let asked = Asked {
            outcome: Outcome::Aborted { home, received: 0 },
            client: None,
            began: millis(24_900),
            ended: millis(26_600),
            longest_silence: Duration::ZERO,
        };
        judge(Manner::Prompt, &asked, run.as_slice(), happened)
    };
    let run = |home: u8| Some(Run { home, at: millis(24_925) });

    let both = [unheard, restart];
    assert_eq!(verdict(None, run(1), &both), Verdict::Explained, "its host's word was lost");
    assert_eq!(verdict(None, None, &both), Verdict::Explained, "nobody had accepted it");
    assert_eq!(verdict(None, run(0), &both), Verdict::Unexplained, "its host was heard");
    assert_eq!(verdict(Some(1), run(1), &both), Verdict::Unexplained, "bytes of it had come");
    assert_eq!(verdict(None, run(1), &[restart]), Verdict::Unexplained, "no word was lost");
    assert_eq!(verdict(None, run(1), &[unheard]), Verdict::Unexplained, "no relay was leaving");
}
