//! How many idle channels are held: as many as the relay wants, within the host's bounds.

use std::time::Duration;

use relayserver_core::keeper::{DIALLING_V2_MAX, PoolBounds};

use crate::host::{Host, millis};

/// A host at a relay of version 2, with its pool filled to its lower bound.
fn ready(min: usize, max: usize) -> Host {
    let mut host = Host::with_bounds(vec![PoolBounds::new(min, max)], Box::new(|| u64::MAX));
    host.command_answers();
    fill(&mut host);
    assert_eq!(host.idle.len(), min);
    host
}

fn fill(host: &mut Host) {
    while let Some(&slot) = host.dialling.first() {
        host.answered(slot);
    }
}

#[test]
fn what_the_relay_wants_is_dialled_at_once_within_the_bounds() {
    let mut host = ready(10, 200);
    host.relay_wants(0, 625);
    assert_eq!(host.dialling.len(), 190, "all of it at once, up to the upper bound");
    fill(&mut host);
    assert_eq!(host.idle.len(), 200);
    host.relay_wants(0, 0);
    host.lives_for(Duration::from_secs(3600));
    assert_eq!(host.idle.len(), 10, "not below the lower bound");
}

#[test]
fn no_more_are_under_way_than_a_relay_of_version_2_bears() {
    let mut host = ready(1, 1000);
    host.relay_wants(0, 1000);
    assert_eq!(host.dialling.len(), DIALLING_V2_MAX);
    host.answered(host.dialling[0]);
    assert_eq!(host.dialling.len(), DIALLING_V2_MAX);
}

#[test]
fn what_is_used_of_a_large_pool_is_replaced() {
    let mut host = ready(2, 50);
    host.relay_wants(0, 20);
    fill(&mut host);
    for _ in 0..20 {
        host.first_byte(host.idle[0]);
        host.backlog(0);
    }
    assert_eq!(host.dialling.len(), 20);
}

#[test]
fn what_is_too_many_goes_little_by_little() {
    let mut host = ready(10, 400);
    host.relay_wants(0, 330);
    fill(&mut host);
    host.relay_wants(0, 10);
    assert_eq!(host.closed.len(), 0, "none at once");
    host.passes(millis(1_999));
    assert_eq!(host.closed.len(), 0);
    host.passes(millis(1));
    let mut left = Vec::new();
    while host.idle.len() > 10 {
        left.push(host.idle.len());
        host.passes(Duration::from_secs(2));
    }
    assert_eq!(left, [170, 90, 50, 30, 20, 15, 12, 11], "half of it every two seconds");
    host.lives_for(Duration::from_secs(3600));
    assert_eq!(host.idle.len(), 10);
    assert_eq!(host.keeper.poll_timeout(), None, "nothing is left to do");
}

/// A host that has told its relay to close one idle channel of five.
fn with_one_told() -> Host {
    let mut host = ready(3, 9);
    host.relay_wants(0, 5);
    fill(&mut host);
    host.relay_is_prompt = false;
    host.relay_wants(0, 3);
    host.passes(Duration::from_secs(2));
    assert_eq!(host.surplus, [(0, 1)]);
    host
}

#[test]
fn that_the_relay_closes_what_it_was_told_to_is_no_failure() {
    let mut host = with_one_told();
    // Within two spans.
    host.passes(millis(3_900));
    host.lost(host.idle[0]);
    assert_eq!(host.keeper.next_try(), None);
}

#[test]
fn a_loss_beyond_that_is_a_failure() {
    let mut host = with_one_told();
    host.lost(host.idle[0]);
    host.lost(host.idle[0]);
    assert!(host.keeper.next_try().is_some(), "it was told to close one");
}

#[test]
fn what_the_relay_has_given_to_clients_instead_is_not_forgiven_later() {
    let mut host = with_one_told();
    host.first_byte(host.idle[0]);
    host.first_byte(host.idle[0]);
    host.lives_for(Duration::from_secs(4));
    assert_eq!(host.surplus.len(), 1, "no more is too many");
    assert_eq!(host.keeper.poll_timeout(), None, "nothing is left to do");
    host.lost(host.idle[0]);
    assert!(host.keeper.next_try().is_some());
}

#[test]
fn another_relay_was_told_nothing() {
    let mut host = with_one_told();
    host.command_lost();
    host.waits();
    host.command_answers();
    host.lost(host.idle[0]);
    assert!(host.keeper.next_try().is_some());
}

#[test]
fn each_pool_has_its_own_surplus() {
    let bounds = vec![PoolBounds::new(1, 9), PoolBounds::new(1, 9)];
    let mut host = Host::with_bounds(bounds, Box::new(|| u64::MAX));
    host.command_answers();
    for (pool, wanted) in [(0, 3), (1, 9)] {
        host.relay_wants(pool, wanted);
    }
    fill(&mut host);
    host.relay_is_prompt = false;
    host.relay_wants(0, 1);
    host.relay_wants(1, 1);
    host.lives_for(Duration::from_secs(4));
    assert_eq!(host.surplus, [(0, 1), (0, 1), (1, 4)], "what was too many for a span");
}

#[test]
fn a_relay_that_is_slow_to_close_is_not_told_twice_of_the_same() {
    let mut host = ready(1, 99);
    host.relay_wants(0, 33);
    fill(&mut host);
    host.relay_is_prompt = false;
    host.relay_wants(0, 1);
    host.lives_for(Duration::from_secs(4));
    assert_eq!(host.surplus, [(0, 16), (0, 8)]);
    host.relay_closes_surplus();
    assert_eq!((host.idle.len(), host.keeper.next_try()), (9, None));
}

#[test]
fn what_the_relay_does_not_close_it_is_told_of_again() {
    let mut host = ready(1, 9);
    host.relay_wants(0, 2);
    fill(&mut host);
    host.relay_is_prompt = false;
    host.relay_wants(0, 1);
    host.lives_for(Duration::from_secs(4));
    assert_eq!(host.surplus, [(0, 1)], "it may be on its way");
    host.lives_for(Duration::from_secs(4));
    assert_eq!(host.surplus, [(0, 1), (0, 1)]);
}

#[test]
fn a_relay_of_version_1_is_told_of_nothing() {
    let mut host = ready(1, 9);
    host.relay_wants(0, 9);
    fill(&mut host);
    host.relay_wants(0, 1);
    host.command_lost();
    host.lives_for(Duration::from_secs(1));
    host.command_comes_up();
    host.lives_for(Duration::from_secs(60));
    assert_eq!((host.idle.len(), host.closed.len()), (9, 0));
    assert_eq!(host.keeper.poll_timeout(), None);
}

#[test]
fn a_new_command_channel_begins_with_the_lower_bound() {
    let mut host = ready(3, 100);
    host.relay_wants(0, 50);
    fill(&mut host);
    host.silence();
    assert_eq!(host.idle.len(), 0);
    host.command_answers();
    assert_eq!(host.dialling.len(), 3);
}

#[test]
fn a_paused_pool_has_nothing_until_it_goes_on() {
    let bounds = vec![PoolBounds::new(4, 9), PoolBounds::new(2, 2)];
    let mut host = Host::with_bounds(bounds, Box::new(|| u64::MAX));
    host.command_answers();
    host.answered(host.dialling[0]);
    host.pool_paused(0, true);
    let of_first = |slots: &[_], host: &Host| slots.iter().any(|slot| host.pool_of[slot] == 0);
    assert!(!of_first(&host.idle, &host) && !of_first(&host.dialling, &host));
    fill(&mut host);
    host.relay_wants(0, 9);
    host.lives_for(Duration::from_secs(60));
    assert_eq!((host.idle_in(0), host.idle_in(1)), (0, 2), "the other one goes on");
    assert!(host.keeper.is_ready());
    host.pool_paused(0, false);
    host.relay_wants(0, 9);
    fill(&mut host);
    assert_eq!((host.idle_in(0), host.idle_in(1)), (9, 2));
}

#[test]
fn a_host_whose_pools_are_all_paused_is_ready_for_them() {
    let mut host = Host::new(2);
    host.pool_paused(0, true);
    host.command_answers();
    assert!(host.dialling.is_empty() && host.keeper.is_ready());
}

#[test]
fn a_wish_for_another_pool_means_nothing() {
    let mut host = ready(3, 9);
    host.tell(|keeper, now| keeper.handle_wanted(now, 7, usize::MAX));
    assert!(host.dialling.is_empty() && host.closed.is_empty());
}
