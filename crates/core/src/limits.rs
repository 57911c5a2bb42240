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
