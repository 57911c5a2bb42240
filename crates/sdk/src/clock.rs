//! Time as a host needs it to know how long it was away: it goes on while the machine sleeps, where the system has such a clock.

use relayserver_core::Time;

/// The time since the machine started, sleep included.
#[cfg(all(target_os = "linux", not(simulation)))]
pub(crate) fn now() -> Time {
    use std::time::Duration;

    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since_boot = Duration::try_from(now).unwrap_or_default();
    Time::from_start(since_boot)
}

/// The time of the simulated world, which goes on while a process stands still.
#[cfg(simulation)]
pub(crate) fn now() -> Time {
    Time::from_start(relayserver_transport::net::simulated::with(|network| network.now()))
}

/// The time since this was first asked; whether it goes on while the machine sleeps is the system's matter.
#[cfg(all(not(target_os = "linux"), not(simulation)))]
pub(crate) fn now() -> Time {
    use std::sync::OnceLock;
    use std::time::Instant;

    static STARTED: OnceLock<Instant> = OnceLock::new();
    Time::from_start(STARTED.get_or_init(Instant::now).elapsed())
}
