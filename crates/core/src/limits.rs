//! The caps and deadlines of the protocol and of the relay, and those that relay and host share, named, with the arithmetic
//! behind each. What concerns one file of the host, of the command or of a library alone stands at the top of that file.

use std::time::Duration;

/// How long a connection may take to say who it is. A hello crosses the slowest usable link in two round trips; whoever
/// takes longer is not a host.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one write of announcements to a host may be stuck. Some 50 bytes fit any send buffer; when that has been full for
/// so long, the host is not reading.
pub const COMMAND_WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many announcements may wait for one command channel. At some 50 bytes each this is 200 KiB a host; a host that is
/// this far behind is not reading.
pub const ANNOUNCEMENTS_MAX: usize = 4096;

/// How long a session with one finished side may be silent. The longest pause seen in practice is a report computed after
/// the request's end was sent: minutes, not hours.
pub const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a connection that we finished may be silent before it is closed; until then input that nobody will read is taken
/// off, so that the peer reads our last bytes instead of a reset.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a client that goes on sending may take to read what its lost host had sent; then it is told by a reset that
/// nobody listens. A connection's buffers hold 10 MiB at most: 1.4 Mbit/s.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a host's dial may take, with all addresses of the relay's name. A round trip on the worst of usable links is below
/// one second, and a first packet that was lost is sent again after one.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long bytes on a command or idle channel may stay unacknowledged before the kernel calls it dead.
///
/// Where this is set the kernel no longer counts keepalive probes: the first one that stays unanswered after this long ends
/// the connection. So it is what the transport's probes come to: 60 s and 3 times 10 s.
pub const USER_TIMEOUT: Duration = Duration::from_secs(90);

/// The relay's caps and deadlines that its operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many clients may be connected, waiting or in a session.
    pub clients_max: usize,
    /// How many data channels may be connected, idle or in a session.
    pub channels_max: usize,
    /// How many command channels may be connected.
    pub commands_max: usize,
    /// How many connections may be under way to their hello, in all.
    pub handshakes_max: usize,
    /// How many of those may come from one address (IPv6: one /64).
    pub handshakes_per_address_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // A session takes two descriptors, an idle channel one: as many sessions and as many idle channels besides are
            // 98,304, and with command channels and handshakes 106,496. Distributions allow a service 524,288.
            clients_max: 32_768,
            channels_max: 65_536,
            commands_max: 4096,
            // One descriptor and under 2 KiB each.
            handshakes_max: 4096,
            // A host dials at most 32 channels at once; 32 hosts behind one NAT may all start at the same moment.
            handshakes_per_address_max: 1024,
        }
    }
}

impl Limits {
    /// How many descriptors all of it takes at once.
    pub fn descriptors(&self) -> usize {
        let Limits { clients_max, channels_max, commands_max, handshakes_max, .. } = *self;
        [clients_max, channels_max, commands_max, handshakes_max]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// Lowered to what a process with so many descriptors can keep. For whoever waits for a descriptor that another has to give back may
    /// wait for ever: clients that found none left for the channels that would serve them.
    ///
    /// What is there is divided as the defaults are: two data channels to a client. Listeners, pipes and the rest have a sixteenth.
    #[must_use]
    pub fn within(self, descriptors: usize) -> Limits {
        let usable = descriptors - (descriptors / 16).max(DESCRIPTORS_SPARE).min(descriptors / 2);
        if self.descriptors() <= usable {
            return self;
        }
        let eighth = usable / 8;
        let client = (usable - 2 * eighth) / 3;
        Limits {
            clients_max: self.clients_max.min(client).max(1),
            channels_max: self.channels_max.min(2 * client).max(1),
            commands_max: self.commands_max.min(eighth).max(1),
            handshakes_max: self.handshakes_max.min(eighth).max(1),
            handshakes_per_address_max: self.handshakes_per_address_max.min(eighth).max(1),
        }
    }

    /// How many idle channels the hosts of one service may be asked for: those that all sessions leave, or half.
    pub(crate) fn wanted_max(&self) -> usize {
        (self.channels_max.saturating_sub(self.clients_max)).max(self.channels_max / 2)
    }
}

/// The fewest that are left for what has no limit of its own: listeners, standard streams, the runtime's, a few pipes.
const DESCRIPTORS_SPARE: usize = 48;

/// What the relay's operator may set for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    /// How many sessions it may have at once; none: no bound of its own.
    pub sessions_max: Option<usize>,
    /// How many of its clients may wait.
    pub queue_max: usize,
    /// How long a client may wait for a channel. Zero refuses at once, as the original does.
    pub assign_timeout: Duration,
}

impl Default for ServiceLimits {
    fn default() -> ServiceLimits {
        ServiceLimits {
            sessions_max: None,
            queue_max: 1024,
            // Three dials of a host that is redialling, with the round trips of a bad network.
            assign_timeout: Duration::from_secs(5),
        }
    }
}

/// How long a host may take to accept a session. Its server is dialled within seconds; an application that does not read for this
/// long is not there.
pub const ACCEPT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a host gets clients only where there is no other, after it has failed to serve one. Each of them costs a round trip to find
/// out, and a server that was restarted is back in a few seconds.
pub const FAILING_TIME: Duration = Duration::from_secs(5);

/// How many hosts a client is offered to before it is refused. More than that do not fail one after the other by chance.
pub const OFFERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_fit_the_descriptors_that_there_are() {
        for descriptors in [64, 256, 1024, 4096, 20_000, 100_000] {
            let limits = Limits::default().within(descriptors);
            assert!(limits.descriptors() < descriptors, "{descriptors}: {limits:?}");
            assert!(limits.clients_max >= descriptors / 8, "{descriptors}: {limits:?}");
            assert!(limits.channels_max > limits.clients_max, "{descriptors}: {limits:?}");
            assert!(limits.wanted_max() <= limits.channels_max);
            assert_eq!(limits.within(descriptors), limits);
        }
        assert_eq!(Limits::default().within(1_000_000), Limits::default());
        assert!(Limits::default().within(0).clients_max > 0);
    }

    #[test]
    fn what_the_operator_has_set_lower_stays() {
        let set = Limits { clients_max: 10, channels_max: 20, ..Limits::default() };
        let limits = set.within(1024);
        assert_eq!((limits.clients_max, limits.channels_max), (10, 20));
    }
}
