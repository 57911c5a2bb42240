//! When a relay is left alone, and for how long.

use std::time::Duration;

use relayserver_core::keeper::Failure;

use crate::host::{Host, assert_waits, millis};

#[test]
fn a_shorter_pause_than_is_worth_it_is_still_smeared() {
    let mut host = Host::new(2);
    host.command_answers();
    host.pause(Duration::ZERO);
    host.silence();
    assert_waits(&mut host, millis(500));
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
fn delays_stay_short_while_nobody_is_there() {
    let mut host = Host::new(10);
    for ceiling in [250, 500, 1000, 1500, 1500, 1500] {
        host.command_fails(Failure::Away);
        assert_waits(&mut host, millis(ceiling));
    }
    // Somebody is there again, and does not want us: that is new, and grows from a second on.
    for ceiling in [1000, 2000, 4000] {
        host.command_fails(Failure::Rejected);
        assert_waits(&mut host, millis(ceiling));
    }
}

#[test]
fn who_may_be_there_again_is_dialled_at_once_and_who_refused_is_not() {
    let mut host = Host::new(10);
    for _ in 0..5 {
        host.command_fails(Failure::Away);
        host.comes_back();
        assert!(host.command_dialling);
    }
    host.command_fails(Failure::Rejected);
    host.comes_back();
    assert!(!host.command_dialling, "the network had nothing to do with it");
    assert_waits(&mut host, millis(250));
    host.command_answers();
    host.comes_back();
    assert!(host.command_up, "what is there is left alone");
    host.command_lost();
    host.comes_back();
    assert!(host.command_dialling);
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
        host.fails(slot, Failure::Away);
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
