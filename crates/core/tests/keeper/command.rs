//! The command channel: when it is dialled, what its end and the relay's silence do, and how a host leaves.

use std::time::Duration;

use relayserver_core::Time;

use crate::host::{Host, assert_waits, millis};

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

#[test]
fn a_relay_that_leaves_is_dialled_anew_when_it_said_and_soon_after() {
    let mut host = Host::with_pools(&[3], Box::new(|| u64::MAX));
    host.command_answers();
    while let Some(&slot) = host.dialling.first() {
        host.answered(slot);
    }
    host.relay_leaves(millis(1500));
    assert!(!host.keeper.is_ready());
    // It closes what is idle.
    while let Some(&slot) = host.idle.first() {
        host.lost(slot);
    }
    assert!(host.dialling.is_empty());
    let waited = host.waits();
    assert!(waited >= millis(1500) && waited <= millis(1700), "{waited:?}");
    assert!(host.command_dialling);
    host.command_answers();
    assert_eq!(host.dialling.len(), 3);
}

#[test]
fn what_is_idle_at_a_relay_that_left_takes_no_place_at_the_next() {
    let mut host = Host::with_pools(&[3], Box::new(|| u64::MAX));
    host.command_answers();
    host.answered(host.dialling[0]);
    host.answered(host.dialling[0]);
    let (idle, under_way) = (host.idle.clone(), host.dialling[0]);
    host.relay_leaves(millis(1500));
    assert_eq!(host.closed, [under_way], "its key is the old relay's");
    host.waits();
    assert_eq!(host.idle, idle, "a session may still come");
    host.command_answers();
    assert_eq!(host.closed, [under_way, idle[0], idle[1]]);
    assert_eq!(host.dialling.len(), 3);
}

#[test]
fn a_relay_that_leaves_again_and_again_is_left_alone_for_longer_and_longer() {
    let mut host = Host::new(1);
    host.command_answers();
    host.relay_leaves(Duration::ZERO);
    assert_waits(&mut host, millis(200));
    for ceiling in [500, 1000, 2000, 4000] {
        host.command_answers();
        host.relay_leaves(Duration::ZERO);
        assert_waits(&mut host, millis(ceiling));
    }
}
