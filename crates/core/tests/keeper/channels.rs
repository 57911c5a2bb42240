//! Data channels: how they are dialled, announced, used and replaced.

use relayserver_core::keeper::{ANNOUNCEMENT_GRACE, BACKLOG_MAX, DIALLING_MAX, EARLY_MAX};

use crate::host::{Host, id};

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
