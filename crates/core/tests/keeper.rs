//! The rules of the host's keeper, each by itself, and in generated histories.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use relayserver_core::Time;
use relayserver_core::keeper::{
    ANNOUNCEMENT_GRACE, BACKLOG_MAX, DIALLING_MAX, Dice, EARLY_MAX, Failure, Keeper, Output,
    PoolIndex, Slot,
};

/// A host process without sockets: performs what the keeper says, as far as a test lets it.
struct Host {
    keeper: Keeper,
    now: Time,
    pool_sizes: Vec<usize>,
    command_dials: usize,
    command_dialling: bool,
    command_up: bool,
    /// Data channels under way, in the order of their dials.
    dialling: Vec<Slot>,
    idle: Vec<Slot>,
    opened: Vec<Slot>,
    closed: Vec<Slot>,
    dials: usize,
    seen: BTreeSet<Slot>,
    pool_of: BTreeMap<Slot, PoolIndex>,
    leaving: bool,
    /// The command channel was answered last, and not merely connected.
    is_version_2: bool,
    /// Before when the relay wants no dial.
    paused_until: Time,
}

impl Host {
    /// Waits as long as it may: delays are their ceilings.
    fn new(pool_size: usize) -> Host {
        Host::with_dice(pool_size, Box::new(|| u64::MAX))
    }

    fn with_dice(pool_size: usize, dice: Dice) -> Host {
        Host::with_pools(&[pool_size], dice)
    }

    fn with_pools(pool_sizes: &[usize], dice: Dice) -> Host {
        let mut host = Host {
            keeper: Keeper::new(pool_sizes, dice),
            now: Time::ZERO,
            pool_sizes: pool_sizes.to_vec(),
            command_dials: 0,
            command_dialling: false,
            command_up: false,
            dialling: Vec::new(),
            idle: Vec::new(),
            opened: Vec::new(),
            closed: Vec::new(),
            dials: 0,
            seen: BTreeSet::new(),
            pool_of: BTreeMap::new(),
            leaving: false,
            is_version_2: false,
            paused_until: Time::ZERO,
        };
        host.tell(|keeper, now| keeper.handle_timeout(now));
        host
    }

    /// A host whose relay has answered: the pool is full.
    fn ready(pool_size: usize) -> Host {
        let mut host = Host::new(pool_size);
        host.command_comes_up();
        while let Some(&slot) = host.dialling.first() {
            host.answered(slot);
        }
        assert_eq!(host.idle.len(), pool_size);
        host
    }

    fn tell(&mut self, what: impl FnOnce(&mut Keeper, Time)) {
        what(&mut self.keeper, self.now);
        self.keeper.check_invariants();
        while let Some(output) = self.keeper.poll_output() {
            self.perform(output);
        }
        if !self.leaving {
            assert_eq!(self.keeper.channels_len(), self.dialling.len() + self.idle.len());
        }
        let next = self.keeper.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "{next:?} is not after {}", self.now);
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::DialCommand => {
                assert!(!self.leaving && !self.command_dialling && !self.command_up);
                assert!(self.now >= self.paused_until, "dialled the command channel in a pause");
                self.command_dialling = true;
                self.command_dials += 1;
            }
            Output::AbandonCommand => {
                assert!((self.command_dialling && self.leaving) || self.command_up);
                (self.command_dialling, self.command_up) = (false, false);
            }
            Output::DialChannel(slot, pool) => {
                self.pool_of.insert(slot, pool);
                assert!(!self.leaving, "dialled while leaving");
                assert!(self.now >= self.paused_until, "dialled {slot:?} in a pause");
                let has_key = !self.is_version_2 || self.command_up;
                assert!(has_key, "dialled {slot:?} without a command channel");
                assert!(self.seen.insert(slot), "{slot:?} used twice");
                self.dialling.push(slot);
                self.dials += 1;
            }
            Output::Open(slot) => {
                assert!(remove(&mut self.idle, slot), "{slot:?} opened, and is not idle");
                self.opened.push(slot);
            }
            Output::Close(slot) => {
                assert!(remove(&mut self.idle, slot) || remove(&mut self.dialling, slot));
                self.closed.push(slot);
            }
        }
    }

    fn command_comes_up(&mut self) {
        assert!(std::mem::take(&mut self.command_dialling));
        self.command_up = true;
        self.is_version_2 = false;
        self.tell(Keeper::handle_command_up);
    }

    fn command_answers(&mut self) {
        assert!(std::mem::take(&mut self.command_dialling));
        self.command_up = true;
        self.is_version_2 = true;
        self.tell(Keeper::handle_command_answered);
    }

    fn silence(&mut self) {
        self.tell(Keeper::handle_silence);
    }

    fn pause(&mut self, pause: Duration) {
        self.paused_until = self.now + pause;
        self.tell(|keeper, now| keeper.handle_pause(now, pause));
    }

    /// What asked for the command channel has become an idle channel, where the keeper wants one.
    fn adopts(&mut self) -> Option<Slot> {
        assert!(self.command_dialling);
        let lacking = |pool: PoolIndex| {
            let held = self.idle.iter().chain(&self.dialling);
            self.pool_sizes[pool] - held.filter(|slot| self.pool_of[slot] == pool).count()
        };
        let emptiest = (0..self.pool_sizes.len()).rev().max_by_key(|pool| lacking(*pool)).unwrap();
        let room = lacking(emptiest) > 0;
        // Slots are numbered as they come.
        let id = i32::try_from(self.seen.len()).unwrap();
        let adopted = self.keeper.handle_adopted(self.now, id);
        if let Some(slot) = adopted {
            assert!(room, "adopted {slot:?} into full pools");
            assert!(!self.leaving, "adopted while leaving");
            assert!(self.seen.insert(slot), "{slot:?} used twice");
            self.pool_of.insert(slot, emptiest);
            self.idle.push(slot);
        }
        self.tell(|_, _| {});
        adopted
    }

    /// How many idle channels there are in a pool.
    fn idle_in(&self, pool: PoolIndex) -> usize {
        self.idle.iter().filter(|slot| self.pool_of[slot] == pool).count()
    }

    fn command_fails(&mut self, failure: Failure) {
        assert!(std::mem::take(&mut self.command_dialling));
        self.tell(|keeper, now| keeper.handle_command_failed(now, failure));
    }

    fn command_lost(&mut self) {
        assert!(std::mem::take(&mut self.command_up));
        self.tell(Keeper::handle_command_lost);
    }

    /// The relay calls the channel as many as dials came before it.
    fn answered(&mut self, slot: Slot) {
        assert!(remove(&mut self.dialling, slot));
        self.idle.push(slot);
        self.tell(|keeper, now| keeper.handle_answered(now, slot, id(slot)));
    }

    fn fails(&mut self, slot: Slot, failure: Failure) {
        assert!(remove(&mut self.dialling, slot));
        self.tell(|keeper, now| keeper.handle_failed(now, slot, failure));
    }

    fn lost(&mut self, slot: Slot) {
        assert!(remove(&mut self.idle, slot));
        self.tell(|keeper, now| keeper.handle_lost(now, slot));
    }

    fn first_byte(&mut self, slot: Slot) {
        assert!(remove(&mut self.idle, slot));
        self.opened.push(slot);
        self.tell(|keeper, now| keeper.handle_first_byte(now, slot));
    }

    fn announced(&mut self, slot: Slot) {
        self.tell(|keeper, now| keeper.handle_announced(now, id(slot)));
    }

    fn ended(&mut self, slot: Slot) {
        self.tell(|keeper, now| keeper.handle_ended(now, slot));
    }

    fn backlog(&mut self, backlog: usize) {
        self.tell(|keeper, now| keeper.handle_backlog(now, backlog));
    }

    fn drain(&mut self) {
        self.leaving = true;
        self.tell(|keeper, _| keeper.handle_drain());
    }

    fn passes(&mut self, time: Duration) {
        self.now = self.now + time;
        self.tell(|keeper, now| keeper.handle_timeout(now));
    }

    /// What time it takes to the next dial; the keeper is told that it has passed.
    fn waits(&mut self) -> Duration {
        let before = (self.dials, self.command_dials);
        let start = self.now;
        while (self.dials, self.command_dials) == before {
            let next = self.keeper.poll_timeout().unwrap_or_else(|| panic!("waits for nothing"));
            self.passes(next - self.now);
        }
        self.now - start
    }
}

fn remove(slots: &mut Vec<Slot>, slot: Slot) -> bool {
    let at = slots.iter().position(|it| *it == slot);
    at.map(|at| slots.remove(at)).is_some()
}

fn id(slot: Slot) -> i32 {
    let text = format!("{slot:?}");
    text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The delays are just below their ceilings.
fn assert_waits(host: &mut Host, ceiling: Duration) {
    let waited = host.waits();
    assert!(waited <= ceiling && waited + millis(1) > ceiling, "{waited:?}, expected {ceiling:?}");
}

#[test]
fn the_command_channel_is_first_then_one_data_channel_then_all() {
    let mut host = Host::new(10);
    assert_eq!((host.command_dials, host.dials), (1, 0));
    host.command_comes_up();
    assert_eq!(host.dials, 1, "one at a time before the relay has answered");
    assert!(!host.keeper.is_ready(), "a mere connect is no answer");
    host.answered(host.dialling[0]);
    assert!(host.keeper.is_ready());
    assert_eq!((host.idle.len(), host.dialling.len()), (1, 9));
}

#[test]
fn each_pool_is_kept_full() {
    let mut host = Host::with_pools(&[2, 3], Box::new(|| u64::MAX));
    host.command_answers();
    while let Some(&slot) = host.dialling.first() {
        host.answered(slot);
    }
    assert_eq!((host.idle_in(0), host.idle_in(1)), (2, 3));
    let of_first = *host.idle.iter().find(|slot| host.pool_of[slot] == 0).unwrap();
    host.first_byte(of_first);
    let [replacement] = host.dialling[..] else { panic!("{:?}", host.dialling) };
    assert_eq!(host.pool_of[&replacement], 0);
}

#[test]
fn an_answered_command_channel_proves_the_relay() {
    let mut host = Host::new(10);
    host.command_answers();
    assert_eq!(host.dialling.len(), 10, "all at once");
}

#[test]
fn after_silence_nothing_idle_is_left_and_the_command_channel_is_dialled_anew() {
    let mut host = Host::ready(4);
    let opened = host.idle[0];
    host.first_byte(opened);
    let under_way = host.dialling.clone();
    host.silence();
    assert_eq!(host.closed.len(), 3, "all that was idle");
    assert!(!host.closed.contains(&opened), "a session is no idle channel");
    assert!(host.command_dialling && !host.command_up);
    assert!(under_way.iter().all(|slot| host.dialling.contains(slot)));
}

#[test]
fn in_a_pause_nothing_is_dialled_and_afterwards_it_goes_on_by_itself() {
    let mut host = Host::with_pools(&[2], Box::new(|| u64::MAX));
    host.command_answers();
    while let Some(&slot) = host.dialling.first() {
        host.answered(slot);
    }
    let pause = Duration::from_secs(10);
    host.pause(pause);
    // Each would be dialled again at once, or a little later.
    host.first_byte(host.idle[0]);
    host.lost(host.idle[0]);
    host.command_lost();
    assert_eq!((host.dialling.len(), host.command_dialling), (0, false));
    let next_try = host.keeper.next_try().unwrap();
    assert!(next_try >= Time::ZERO + pause, "what people are told: {next_try}");
    let waited = host.waits();
    assert!(waited >= pause && waited <= 2 * pause, "{waited:?}");
    assert!(host.command_dialling);
    host.command_answers();
    assert_eq!(host.dialling.len(), 2);
}

#[test]
fn after_silence_in_a_pause_the_command_channel_waits_for_its_end() {
    let mut host = Host::new(2);
    host.command_answers();
    host.pause(Duration::from_secs(10));
    host.silence();
    assert!(!host.command_dialling && !host.command_up);
    let waited = host.waits();
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
    assert!(host.command_dialling);
}

#[test]
fn a_shorter_pause_than_is_worth_it_is_still_smeared() {
    let mut host = Host::new(2);
    host.command_answers();
    host.pause(Duration::ZERO);
    host.silence();
    assert_waits(&mut host, millis(500));
}

#[test]
fn without_a_command_channel_of_version_2_no_channel_is_dialled() {
    let mut host = Host::new(3);
    host.command_answers();
    while let Some(&slot) = host.dialling.first() {
        host.answered(slot);
    }
    host.command_lost();
    host.first_byte(host.idle[0]);
    assert!(host.dialling.is_empty(), "its key has died");
    assert_eq!(host.idle.len(), 2, "what was idle stays");
    while !host.command_dialling {
        host.waits();
    }
    assert!(host.dialling.is_empty());
    host.command_answers();
    assert_eq!(host.dialling.len(), 1);
}

#[test]
fn an_adopted_channel_counts_in_its_pool_and_is_announced_by_its_id() {
    let mut host = Host::with_pools(&[1, 2], Box::new(|| u64::MAX));
    let adopted = host.adopts().unwrap();
    assert_eq!(host.pool_of[&adopted], 1, "the emptiest");
    host.command_comes_up();
    while let Some(&slot) = host.dialling.first() {
        host.answered(slot);
    }
    assert_eq!((host.idle_in(0), host.idle_in(1)), (1, 2));
    host.announced(adopted);
    assert_eq!(host.opened, [adopted]);
    host.command_lost();
    while let Some(&slot) = host.dialling.first() {
        host.answered(slot);
    }
    host.waits();
    assert_eq!(host.adopts(), None, "the pools are full");
}

#[test]
fn no_more_than_a_bound_are_dialled_at_once() {
    let mut host = Host::new(1000);
    host.command_comes_up();
    host.answered(host.dialling[0]);
    for idle in 2..=968 {
        assert_eq!(host.dialling.len(), DIALLING_MAX);
        host.answered(host.dialling[0]);
        assert_eq!(host.idle.len(), idle);
    }
    while let Some(&slot) = host.dialling.first() {
        host.answered(slot);
    }
    assert_eq!((host.idle.len(), host.dials), (1000, 1000));
}

#[test]
fn a_used_channel_is_replaced_at_once() {
    let mut host = Host::ready(10);
    let slot = host.idle[3];
    host.announced(slot);
    assert_eq!((host.opened.as_slice(), host.dialling.len()), ([slot].as_slice(), 1));
    let spoken_to = host.idle[0];
    host.first_byte(spoken_to);
    assert_eq!(host.dialling.len(), 2);
}

#[test]
fn a_session_opens_once_whatever_says_so_first() {
    let mut host = Host::ready(2);
    let (one, other) = (host.idle[0], host.idle[1]);
    host.first_byte(one);
    host.announced(one);
    host.announced(other);
    host.announced(other);
    assert_eq!(host.opened, [one, other]);
    assert_eq!(host.dials, 4);
}

#[test]
fn an_announcement_ahead_of_the_answer_is_remembered() {
    let mut host = Host::ready(1);
    host.first_byte(host.idle[0]);
    let slot = host.dialling[0];
    host.announced(slot);
    assert_eq!(host.opened.len(), 1);
    host.answered(slot);
    assert_eq!(host.opened[1], slot);
    assert_eq!(host.dialling.len(), 1, "it is replaced");
}

#[test]
fn of_early_announcements_a_bounded_number_the_newest_is_remembered() {
    let mut host = Host::ready(1);
    host.first_byte(host.idle[0]);
    let slot = host.dialling[0];
    host.announced(slot);
    for stranger in 0..i32::try_from(EARLY_MAX).unwrap() {
        host.tell(|keeper, now| keeper.handle_announced(now, -1 - stranger));
    }
    host.answered(slot);
    assert_eq!(host.opened.len(), 1, "pushed out by newer ones");
    // With no answer outstanding they mean nothing any more.
    let next = host.idle[0];
    assert!(host.dialling.is_empty());
    host.tell(|keeper, now| keeper.handle_announced(now, id(next) + 1));
    host.announced(next);
    host.answered(host.dialling[0]);
    assert_eq!(host.opened.len(), 2);
}

#[test]
fn strangers_announcements_are_ignored() {
    let mut host = Host::ready(3);
    for stranger in [i32::MIN, -1, 77, i32::MAX] {
        host.tell(|keeper, now| keeper.handle_announced(now, stranger));
    }
    assert_eq!((host.idle.len(), host.dials, host.opened.len()), (3, 3, 0));
}

#[test]
fn delays_double_to_thirty_seconds_where_the_relay_refuses() {
    let mut host = Host::new(10);
    for ceiling in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        host.command_fails(Failure::Rejected);
        assert!(!host.command_dialling);
        assert_waits(&mut host, millis(ceiling));
    }
}

#[test]
fn delays_stay_within_five_seconds_while_nobody_answers() {
    let mut host = Host::new(10);
    for ceiling in [250, 500, 1000, 2000, 4000, 5000, 5000, 5000] {
        host.command_fails(Failure::Unanswered);
        assert_waits(&mut host, millis(ceiling));
    }
    // Somebody is there again, and does not want us: the delays go on where they would be.
    host.command_fails(Failure::Rejected);
    assert_waits(&mut host, millis(30_000));
}

#[test]
fn delays_start_anew_once_the_relay_has_answered_and_not_when_it_is_merely_connected() {
    let mut host = Host::new(10);
    host.command_fails(Failure::Rejected);
    host.waits();
    host.command_comes_up();
    host.fails(host.dialling[0], Failure::Rejected);
    assert_waits(&mut host, millis(500));
    host.fails(host.dialling[0], Failure::Rejected);
    assert_waits(&mut host, millis(1000));
    host.answered(host.dialling[0]);
    assert_eq!(host.dialling.len(), 9);
    host.fails(host.dialling[0], Failure::Rejected);
    while let Some(&slot) = host.dialling.first() {
        host.fails(slot, Failure::Rejected);
    }
    assert_waits(&mut host, millis(250));
}

#[test]
fn dials_that_fail_together_are_one_setback() {
    let mut host = Host::ready(10);
    host.passes(Duration::from_secs(60));
    while let Some(&slot) = host.idle.first() {
        host.lost(slot);
    }
    assert_waits(&mut host, millis(250));
    assert_eq!(host.dialling.len(), 1, "one at a time until the relay has answered again");
    host.fails(host.dialling[0], Failure::Rejected);
    assert_waits(&mut host, millis(250));
}

#[test]
fn after_a_failure_one_is_dialled_until_the_relay_answers() {
    let mut host = Host::ready(10);
    for _ in 0..5 {
        host.first_byte(host.idle[0]);
    }
    assert_eq!(host.dialling.len(), 5);
    while let Some(&slot) = host.dialling.first() {
        host.fails(slot, Failure::Unanswered);
    }
    host.waits();
    assert_eq!(host.dialling.len(), 1);
    host.answered(host.dialling[0]);
    assert_eq!((host.idle.len(), host.dialling.len()), (6, 4));
}

#[test]
fn a_late_answer_does_not_hide_a_failure() {
    let mut host = Host::ready(10);
    for _ in 0..3 {
        host.first_byte(host.idle[0]);
    }
    host.fails(host.dialling[0], Failure::Rejected);
    host.answered(host.dialling[0]);
    assert_eq!(host.dialling.len(), 1, "nothing new before the delay is over");
    host.answered(host.dialling[0]);
    assert_waits(&mut host, millis(250));
    assert_eq!(host.dialling.len(), 1);
}

#[test]
fn a_relay_that_answers_and_closes_is_left_alone_for_longer_and_longer() {
    let mut host = Host::ready(10);
    while let Some(&slot) = host.idle.first() {
        host.lost(slot);
    }
    for ceiling in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        assert_waits(&mut host, millis(ceiling));
        assert_eq!(host.dialling.len(), 1);
        host.answered(host.dialling[0]);
        assert!(host.dialling.is_empty(), "one at a time until one has settled");
        host.lost(host.idle[0]);
    }
}

#[test]
fn a_relay_that_closed_channels_is_proven_by_one_that_settles() {
    let mut host = Host::ready(10);
    for _ in 0..3 {
        host.lost(host.idle[0]);
    }
    host.waits();
    host.answered(host.dialling[0]);
    assert!(host.dialling.is_empty());
    assert_eq!(host.waits(), Duration::from_secs(5));
    assert_eq!(host.dialling.len(), 2, "its channel has lived for long");
}

#[test]
fn a_relay_that_closed_channels_is_proven_by_a_session() {
    let mut host = Host::ready(10);
    host.lost(host.idle[0]);
    host.lost(host.idle[0]);
    host.waits();
    let slot = host.dialling[0];
    host.answered(slot);
    assert!(host.dialling.is_empty());
    host.announced(slot);
    assert_eq!(host.dialling.len(), 2);
}

#[test]
fn a_channel_that_ended_waits_for_its_announcement_and_no_longer() {
    let mut host = Host::ready(2);
    let (one, other) = (host.idle[0], host.idle[1]);
    host.ended(one);
    host.ended(other);
    assert_eq!(host.dialling.len(), 0, "not lost yet");
    host.announced(one);
    assert_eq!(host.opened, [one], "a client that sent its end at once");
    host.passes(ANNOUNCEMENT_GRACE);
    assert_eq!(host.closed, [other]);
    host.announced(other);
    assert_eq!(host.opened, [one]);
}

#[test]
fn a_channel_that_ended_is_lost_at_once_where_no_announcement_can_come() {
    let mut host = Host::ready(2);
    let (one, other) = (host.idle[0], host.idle[1]);
    host.ended(one);
    host.command_lost();
    assert_eq!(host.closed, [one]);
    host.ended(other);
    assert_eq!(host.closed, [one, other]);
}

#[test]
fn a_lost_command_channel_is_dialled_again_and_idle_channels_stay() {
    let mut host = Host::ready(10);
    host.passes(Duration::from_secs(60));
    host.command_lost();
    assert_eq!(host.idle.len(), 10);
    assert!(!host.keeper.is_ready());
    assert_waits(&mut host, millis(250));
    host.command_comes_up();
    assert!(host.keeper.is_ready());
    assert_eq!((host.idle.len(), host.dials), (10, 10));
}

#[test]
fn sessions_are_replaced_while_the_command_channel_is_away() {
    let mut host = Host::ready(10);
    host.command_lost();
    host.first_byte(host.idle[0]);
    assert_eq!(host.dialling.len(), 1);
}

#[test]
fn a_command_channel_that_is_closed_again_and_again_is_left_alone_for_longer_and_longer() {
    let mut host = Host::ready(10);
    host.passes(Duration::from_secs(60));
    for ceiling in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        host.command_lost();
        assert_waits(&mut host, millis(ceiling));
        host.command_comes_up();
        // Sessions come and go meanwhile, which says nothing about the command channel.
        host.announced(host.idle[0]);
        host.answered(host.dialling[0]);
    }
    host.passes(Duration::from_secs(60));
    host.command_lost();
    assert_waits(&mut host, millis(250));
}

#[test]
fn sessions_that_nobody_accepts_bound_the_pool() {
    let mut host = Host::ready(10);
    for backlog in 1.. {
        let Some(&slot) = host.idle.first() else {
            assert_eq!(backlog, BACKLOG_MAX + 1);
            break;
        };
        host.first_byte(slot);
        host.backlog(backlog);
        while let Some(&slot) = host.dialling.first() {
            host.answered(slot);
        }
        assert!(host.idle.len() + backlog <= BACKLOG_MAX + 1);
    }
    assert!(host.dialling.is_empty(), "clients wait at the relay");
    host.backlog(BACKLOG_MAX - 1);
    assert_eq!(host.dialling.len(), 1, "one accepted, one dialled");
}

#[test]
fn who_leaves_closes_what_is_idle_and_dials_nothing() {
    let mut host = Host::ready(10);
    host.first_byte(host.idle[0]);
    host.drain();
    assert_eq!(host.closed.len(), 10, "9 idle ones and one under way");
    assert!(host.command_up, "it stays for the sessions that run");
    host.command_lost();
    host.passes(Duration::from_secs(3600));
    assert_eq!((host.dials, host.command_dials), (11, 1));
    assert_eq!(host.keeper.poll_timeout(), None);

    let mut host = Host::new(10);
    host.drain();
    assert!(!host.command_dialling, "abandoned");
}

/// What may happen to a host; the numbers choose among what there is.
#[derive(Clone, Debug)]
enum Happening {
    CommandUp,
    CommandAnswered,
    Silence,
    Pause(u64),
    Adopted,
    CommandFails(bool),
    CommandLost,
    Answered(usize),
    Fails(usize, bool),
    Announced(usize),
    AnnouncedEarly(usize),
    Stranger(i32),
    FirstByte(usize),
    Ended(usize),
    Lost(usize),
    Accept(usize),
    Passes(u64),
    Drain,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    prop_oneof![
        3 => Just(CommandUp),
        2 => Just(CommandAnswered),
        1 => Just(Silence),
        1 => (0..60_000_u64).prop_map(Pause),
        2 => Just(Adopted),
        1 => any::<bool>().prop_map(CommandFails),
        1 => Just(CommandLost),
        12 => any::<usize>().prop_map(Answered),
        2 => any::<(usize, bool)>().prop_map(|(which, away)| Fails(which, away)),
        6 => any::<usize>().prop_map(Announced),
        1 => any::<usize>().prop_map(AnnouncedEarly),
        1 => any::<i32>().prop_map(Stranger),
        4 => any::<usize>().prop_map(FirstByte),
        2 => any::<usize>().prop_map(Ended),
        2 => any::<usize>().prop_map(Lost),
        4 => (0..20_usize).prop_map(Accept),
        6 => (0..40_000_u64).prop_map(Passes),
    ]
}

fn failure(away: bool) -> Failure {
    if away { Failure::Unanswered } else { Failure::Rejected }
}

fn pick(slots: &[Slot], which: usize) -> Option<Slot> {
    slots.get(which.checked_rem(slots.len())?).copied()
}

impl Host {
    fn live(&mut self, happening: Happening, backlog: &mut usize) {
        let opened = self.opened.len();
        match happening {
            Happening::CommandUp if self.command_dialling => self.command_comes_up(),
            Happening::CommandAnswered if self.command_dialling => self.command_answers(),
            Happening::Silence => self.silence(),
            Happening::Pause(pause) => self.pause(millis(pause)),
            Happening::Adopted if self.command_dialling => drop(self.adopts()),
            Happening::CommandFails(away) if self.command_dialling => {
                self.command_fails(failure(away));
            }
            Happening::CommandLost if self.command_up => self.command_lost(),
            Happening::Answered(which) => {
                pick(&self.dialling, which).into_iter().for_each(|slot| self.answered(slot));
            }
            Happening::Fails(which, away) => {
                let slot = pick(&self.dialling, which);
                slot.into_iter().for_each(|slot| self.fails(slot, failure(away)));
            }
            Happening::Announced(which) if self.command_up => {
                pick(&self.idle, which).into_iter().for_each(|slot| self.announced(slot));
            }
            Happening::AnnouncedEarly(which) if self.command_up => {
                pick(&self.dialling, which).into_iter().for_each(|slot| self.announced(slot));
            }
            Happening::Stranger(id) => {
                self.tell(|keeper, now| keeper.handle_announced(now, id | i32::MIN));
            }
            Happening::FirstByte(which) => {
                pick(&self.idle, which).into_iter().for_each(|slot| self.first_byte(slot));
            }
            Happening::Ended(which) => {
                pick(&self.idle, which).into_iter().for_each(|slot| self.ended(slot));
            }
            Happening::Lost(which) => {
                pick(&self.idle, which).into_iter().for_each(|slot| self.lost(slot));
            }
            Happening::Accept(count) => {
                *backlog = backlog.saturating_sub(count);
                self.backlog(*backlog);
            }
            Happening::Passes(time) => self.passes(millis(time)),
            Happening::Drain if !self.leaving => self.drain(),
            _ => {}
        }
        let opened = self.opened.len() - opened;
        if opened > 0 {
            *backlog += opened;
            self.backlog(*backlog);
        }
        let wanted: usize = self.pool_sizes.iter().sum();
        assert!(self.idle.len() + self.dialling.len() <= wanted);
    }

    /// From now on the relay, which speaks version 2 or not, takes everything, and sessions are accepted.
    fn all_is_well(&mut self, is_version_2: bool) {
        self.backlog(0);
        for _ in 0..10_000 {
            if self.command_dialling && is_version_2 {
                self.command_answers();
            } else if self.command_dialling {
                self.command_comes_up();
            } else if let Some(&slot) = self.dialling.first() {
                self.answered(slot);
            } else if let Some(next) = self.keeper.poll_timeout() {
                self.passes(next - self.now);
            } else {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_the_pool_is_full_again_when_all_is_well(
        pool_size in 1..50_usize,
        seed in any::<u64>(),
        is_version_2 in any::<bool>(),
        happenings in prop::collection::vec(happening(), 0..200),
    ) {
        let mut host = Host::with_pools(&[pool_size, 3], dice(seed));
        let mut backlog = 0;
        for happening in happenings {
            host.live(happening, &mut backlog);
        }
        host.all_is_well(is_version_2);
        let early = host.opened.len();
        prop_assert!(host.command_up && host.keeper.is_ready());
        let idle = (host.idle_in(0), host.idle_in(1));
        prop_assert_eq!(idle, (pool_size, 3), "{} opened", early);
    }

    #[test]
    fn who_leaves_dials_nothing_whatever_happens(
        seed in any::<u64>(),
        before in prop::collection::vec(happening(), 0..100),
        after in prop::collection::vec(happening(), 0..50),
    ) {
        let mut host = Host::with_dice(10, dice(seed));
        let mut backlog = 0;
        for happening in before.into_iter().chain([Happening::Drain]).chain(after) {
            // `perform` refuses every dial after the drain.
            host.live(happening, &mut backlog);
        }
        prop_assert!(host.idle.is_empty() && host.dialling.is_empty());
    }

    #[test]
    fn a_hostile_relay_is_never_dialled_in_a_hot_loop(
        pool_size in 1..50_usize,
        seed in any::<u64>(),
        tricks in prop::collection::vec(0..9_u8, 1..20),
    ) {
        let mut host = Host::with_dice(pool_size, dice(seed));
        let (mut trick, minute) = (tricks.iter().cycle(), Time::ZERO + Duration::from_secs(60));
        while host.now < minute {
            if host.command_dialling {
                match trick.next() {
                    Some(0) => host.command_fails(Failure::Rejected),
                    Some(1) => { host.command_comes_up(); host.command_lost(); }
                    Some(6) => { host.command_answers(); host.command_lost(); }
                    Some(7) => { host.command_answers(); host.silence(); }
                    Some(8) => { host.command_answers(); host.pause(millis(1)); host.silence(); }
                    _ => host.command_comes_up(),
                }
            } else if let Some(&slot) = host.dialling.first() {
                match trick.next() {
                    Some(0..=1) => host.fails(slot, Failure::Rejected),
                    Some(2) => { host.answered(slot); host.ended(slot); }
                    _ => { host.answered(slot); host.lost(slot); }
                }
            } else if let Some(next) = host.keeper.poll_timeout() {
                host.passes(next - host.now);
            } else {
                break;
            }
        }
        // A burst while the relay is new and trusted, and then one dial a delay. The worst are relays that answer every
        // second time: that resets the delay.
        let dials = host.dials + host.command_dials;
        prop_assert!(dials <= 2 * pool_size + 600, "{dials} dials in a minute");
    }
}

/// Random numbers that a failing case repeats.
fn dice(seed: u64) -> Dice {
    let mut state = seed;
    Box::new(move || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}
