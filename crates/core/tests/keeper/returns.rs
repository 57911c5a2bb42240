//! Channels that carry one session after another: which are held again, and what becomes of a relay that closes them.

use std::time::Duration;

use relayserver_core::Time;
use relayserver_core::keeper::{BACKLOG_MAX, PoolBounds, Slot};

use crate::host::{Host, assert_waits, dice, millis};

/// A host at a relay of version 2, with its pools filled to their lower bounds.
fn ready(bounds: &[(usize, usize)]) -> Host {
    let bounds = bounds.iter().map(|(min, max)| PoolBounds::new(*min, *max)).collect();
    let mut host = Host::with_bounds(bounds, Box::new(|| u64::MAX));
    host.command_answers();
    fill(&mut host);
    host
}

fn fill(host: &mut Host) {
    while let Some(&slot) = host.dialling.first() {
        host.answered(slot);
    }
}

/// A session opens on the channel that came last, and the application accepts it.
fn serves(host: &mut Host) -> Slot {
    let slot = *host.idle.last().unwrap();
    serves_on(host, slot)
}

fn serves_on(host: &mut Host, slot: Slot) -> Slot {
    host.first_byte(slot);
    host.backlog(0);
    slot
}

/// So many sessions at once, whose channels were all replaced.
fn served(host: &mut Host, sessions: usize) -> Vec<Slot> {
    let serving = (0..sessions).map(|_| {
        let slot = serves(host);
        fill(host);
        slot
    });
    serving.collect()
}

#[test]
fn a_returned_channel_is_idle_again_and_announced_by_its_id() {
    let mut host = ready(&[(2, 9)]);
    let first = serves(&mut host);
    fill(&mut host);
    let again = host.returns(first).unwrap();
    assert_ne!(again, first, "the keeper was done with that");
    assert_eq!((host.idle.len(), host.dialling.len()), (3, 0));
    host.announced(again);
    assert_eq!(host.opened, [first, again]);
}

#[test]
fn what_is_returned_in_time_needs_no_dial() {
    let mut host = ready(&[(2, 9)]);
    let sessions = served(&mut host, 1);
    host.returns(sessions[0]).unwrap();
    let dials = host.dials;
    for _ in 0..100 {
        let slot = serves(&mut host);
        host.returns(slot).unwrap();
    }
    assert_eq!(host.dials, dials);
}

#[test]
fn no_more_come_back_than_twice_what_may_be_dialled() {
    let mut host = ready(&[(2, 5)]);
    let sessions = served(&mut host, 20);
    let returned = sessions.into_iter().filter_map(|slot| host.returns(slot)).count();
    assert_eq!((returned, host.idle.len()), (8, 10));
}

#[test]
fn those_under_way_take_places_too() {
    let mut host = ready(&[(1, 2)]);
    let sessions = served(&mut host, 4);
    host.relay_wants(0, 2);
    assert_eq!((host.idle.len(), host.dialling.len()), (1, 1));
    assert!(host.returns(sessions[0]).is_some());
    assert!(host.returns(sessions[1]).is_some());
    assert_eq!(host.returns(sessions[2]), None);
    fill(&mut host);
    assert_eq!(host.idle.len(), 4);
}

#[test]
fn what_was_wanted_when_its_session_ended_is_taken_though_there_is_no_place_any_more() {
    let mut host = ready(&[(1, 2)]);
    let sessions = served(&mut host, 5);
    for slot in &sessions[..3] {
        assert!(host.returns(*slot).is_some());
    }
    assert!(!host.keeper.wants_back(0));
    // The relay may have given it to a client already.
    assert!(host.is_back(sessions[3]).is_some());
    host.backlog(BACKLOG_MAX);
    assert!(host.is_back(sessions[4]).is_some());
}

#[test]
fn what_came_back_beyond_what_is_wanted_goes_little_by_little() {
    let mut host = ready(&[(10, 256)]);
    for slot in served(&mut host, 160) {
        host.returns(slot).unwrap();
    }
    assert_eq!(host.idle.len(), 170);
    host.passes(Duration::from_secs(2));
    assert_eq!(host.closed.len(), 1, "no more were there all the while");
    host.passes(Duration::from_secs(2));
    assert_eq!(host.closed.len(), 81, "half of what is too many");
    host.lives_for(Duration::from_secs(3600));
    assert_eq!(host.idle.len(), 10);
    assert_eq!(host.keeper.poll_timeout(), None, "nothing is left to do");
}

#[test]
fn what_is_used_again_and_again_is_not_too_many() {
    let mut host = ready(&[(10, 256)]);
    for slot in served(&mut host, 5) {
        host.returns(slot).unwrap();
    }
    let dials = host.dials;
    // Five at a time, and all of them idle in between, whenever it is looked.
    for _ in 0..100 {
        let sessions: Vec<Slot> = (0..5).map(|_| serves(&mut host)).collect();
        host.lives_for(millis(100));
        for slot in sessions {
            host.returns(slot).unwrap();
        }
        host.lives_for(millis(600));
    }
    assert_eq!((host.dials, host.closed.len()), (dials, 0));
    host.lives_for(Duration::from_secs(60));
    assert_eq!(host.idle.len(), 10, "until they are not");
}

#[test]
fn without_a_command_channel_of_version_2_none_comes_back() {
    let mut host = Host::with_bounds(vec![PoolBounds::new(2, 9)], Box::new(|| u64::MAX));
    host.command_comes_up();
    fill(&mut host);
    let slot = serves(&mut host);
    assert_eq!(host.returns(slot), None, "version 1 has no such thing");

    let mut host = ready(&[(2, 9)]);
    let sessions = served(&mut host, 3);
    host.command_lost();
    assert_eq!(host.returns(sessions[0]), None, "its key has died");
    host.waits();
    assert_eq!(host.returns(sessions[1]), None, "nor while another is under way");
    host.command_answers();
    host.silence();
    assert_eq!(host.returns(sessions[2]), None);
}

#[test]
fn who_leaves_takes_none_back() {
    let mut host = ready(&[(2, 9)]);
    let slot = serves(&mut host);
    host.drain();
    assert_eq!(host.returns(slot), None);
    assert_eq!(host.keeper.channels_len(), 0);
}

#[test]
fn none_comes_back_to_a_paused_pool() {
    let mut host = ready(&[(2, 9), (1, 9)]);
    let slot = serves(&mut host);
    let pool = host.pool_of[&slot];
    host.pool_paused(pool, true);
    assert_eq!(host.returns(slot), None);
    assert_eq!(host.held_in(pool), 0);
}

#[test]
fn none_comes_back_to_a_pool_that_there_is_not() {
    let mut host = ready(&[(2, 9)]);
    assert!(!host.keeper.wants_back(1));
    host.tell(|keeper, now| assert_eq!(keeper.handle_returned(now, 1, 77), None));
    assert_eq!(host.idle.len(), 2);
}

#[test]
fn none_comes_back_while_the_application_does_not_keep_up() {
    let mut host = ready(&[(2, 256)]);
    let sessions = served(&mut host, 2);
    host.backlog(BACKLOG_MAX);
    assert_eq!(host.returns(sessions[0]), None, "clients wait at the relay");
    host.backlog(BACKLOG_MAX - 1);
    assert!(host.returns(sessions[1]).is_some());
}

#[test]
fn what_one_pool_has_too_many_takes_no_place_of_another() {
    let mut host = ready(&[(1, 300), (1, 300)]);
    let serving = (0..BACKLOG_MAX).map(|_| {
        let of_first = *host.idle.iter().rfind(|slot| host.pool_of[*slot] == 0).unwrap();
        let slot = serves_on(&mut host, of_first);
        fill(&mut host);
        slot
    });
    for slot in serving.collect::<Vec<_>>() {
        host.returns(slot).unwrap();
    }
    host.relay_wants(1, 100);
    fill(&mut host);
    assert_eq!(host.idle_in(1), 100);
}

#[test]
fn a_relay_that_refuses_a_return_is_not_a_failing_one() {
    let mut host = ready(&[(3, 9)]);
    for _ in 0..20 {
        let slot = serves(&mut host);
        let [replacement] = host.dialling[..] else { panic!("{:?}", host.dialling) };
        let again = host.returns(slot).unwrap();
        host.answered(replacement);
        host.lost(again);
        assert!(host.keeper.next_try().is_none(), "nothing is put off");
    }
    host.relay_wants(0, 9);
    assert_eq!(host.dialling.len(), 6, "and it is dialled many times at once");
}

#[test]
fn a_relay_that_closes_all_that_it_has_is_left_alone_for_longer_and_longer() {
    let mut host = ready(&[(1, 9)]);
    let mut sessions = served(&mut host, 20);
    host.lost(host.idle[0]);
    for ceiling in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        // What comes back is closed as well, idle or after another session.
        for used in [false, true] {
            let mut again = host.returns(sessions.pop().unwrap()).unwrap();
            if used {
                host.first_byte(again);
                host.backlog(0);
                again = host.returns(again).unwrap();
            }
            host.lost(again);
        }
        assert!(host.dialling.is_empty(), "no sooner for that");
        assert_waits(&mut host, millis(ceiling));
        host.answered(host.dialling[0]);
        host.lost(host.idle[0]);
    }
}

#[test]
fn a_returned_channel_that_stays_idle_proves_nothing() {
    let mut host = ready(&[(3, 9)]);
    let sessions = served(&mut host, 1);
    host.lost(host.idle[0]);
    host.lost(host.idle[0]);
    host.waits();
    host.returns(sessions[0]).unwrap();
    host.passes(Duration::from_secs(4));
    host.answered(host.dialling[0]);
    host.relay_wants(0, 9);
    assert!(host.dialling.is_empty());
    assert_eq!(host.waits(), Duration::from_secs(5), "as long as the new one has to live");
    assert_eq!(host.dialling.len(), 6);
}

/// So many clients a second come by chance for two minutes, for sessions that last so long on average; the relay gives each the channel that
/// came last. Gives the dials after the first five seconds, and the sessions.
fn dials_for(rate: u64, lasting: Duration) -> (usize, usize) {
    let mut host = ready(&[(10, 256)]);
    let mut chance = dice(rate);
    let mut running: Vec<(Time, Slot)> = Vec::new();
    let (mut sessions, mut first_dials) = (0, 0);
    for milli in 0..120_000_u64 {
        let now = host.now;
        let (over, still): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|(until, _)| *until <= now);
        running = still;
        for (_, slot) in over {
            host.returns(slot);
        }
        // The round trips that a dial takes.
        if milli.is_multiple_of(20) {
            fill(&mut host);
        }
        if chance() % 1000 < rate && !host.idle.is_empty() {
            let lasts = lasting * u32::try_from(chance() % 200).unwrap() / 100;
            running.push((now + lasts, serves(&mut host)));
            sessions += 1;
        }
        host.lives_for(millis(1));
        if milli == 5_000 {
            first_dials = host.dials;
        }
    }
    (host.dials - first_dials, sessions)
}

#[test]
fn a_steady_stream_of_short_sessions_needs_hardly_a_dial() {
    for (rate, lasting) in [(500, 100), (100, 100), (100, 10), (20, 100)] {
        let (dials, sessions) = dials_for(rate, millis(lasting));
        let came = usize::try_from(rate).unwrap() * 120;
        assert!(sessions > came - came / 10, "{sessions} of {came} were served");
        assert!(dials < 100, "{dials} dials in two minutes, for {sessions} sessions");
    }
}
