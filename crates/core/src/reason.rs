//! Why a session ended, a client was refused, a channel was closed: one closed list, the same in logs, counters and docs.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $advice:literal;)+) => {
        /// Why a session ended, a client was refused, or a channel was closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason there is, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The word that stands in logs and counters.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Reason::$name => $code,)+
                }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Reason::$name => concat!($($doc,)+).trim_ascii(),)+
                }
            }

            /// What to do about it, for the relay's operator or for whoever runs the host.
            pub const fn advice(self) -> &'static str {
                match self {
                    $(Reason::$name => $advice,)+
                }
            }
        }
    };
}

reasons! {
    /// Both sides sent their last byte and all of it was handed over.
    Finished = "finished",
        "Nothing: this is how a session should end.";
    /// The client's connection was reset or failed.
    ClientAborted = "client_aborted",
        "Nothing where it happens now and then: people leave. Where it is frequent, look at the clients and at their network.";
    /// The host's data channel was reset or failed.
    HostAborted = "host_aborted",
        "Look at the host's log: the server behind it may have cut the session off. Else look at the network between host and relay.";
    /// The host vanished: it was silent for too long, or its command channel ended.
    HostLost = "host_lost",
        "See whether the host's process runs and its network is up. It connects again by itself.";
    /// One side had finished, and nothing moved for longer than the bound.
    HalfClosedTimeout = "half_closed_timeout",
        "See why the other side neither sends nor ends. It may be stuck, or its peer may have gone without a word.";
    /// The relay was leaving and the drain timeout had passed.
    Drained = "drained",
        "Nothing where the relay was stopped on purpose. Give it a longer drain timeout where sessions last longer.";
    /// The client left before a host served it.
    ClientGone = "client_gone",
        "Nothing where it happens now and then. Where it is frequent, clients wait for too long: give the service more idle channels, or more hosts.";
    /// No host is connected that serves this.
    NoHost = "no_host",
        "Start a host for this service, or see why the one that there is does not come through: its log says.";
    /// Hosts are connected, but none had an idle channel in time.
    NoChannel = "no_channel",
        "Give the hosts larger pools or add hosts, or let clients wait for longer.";
    /// Too many clients wait already.
    QueueFull = "queue_full",
        "Give the hosts larger pools or add hosts, or let more clients wait.";
    /// Too many clients are connected to the relay already.
    ClientLimit = "client_limit",
        "Raise the relay's limit of clients, where the machine can bear it.";
    /// Too many data channels are connected to the relay already.
    ChannelLimit = "channel_limit",
        "Raise the relay's limit of data channels, or make the hosts' pools smaller.";
    /// The relay cannot take another command channel.
    CommandLimit = "command_limit",
        "Raise the relay's limit of command channels, or see who opens so many.";
    /// Too many connections have not said who they are, and this one waited too long, or was silent while others waited.
    HandshakeLimit = "handshake_limit",
        "Nothing for a host: it tries again by itself. On the relay, see where so many connections come from.";
    /// The relay, or the host, is leaving and takes nothing new.
    Draining = "draining",
        "Nothing where it was stopped on purpose. A host comes back by itself when its relay does.";
    /// The peer did not say hello in time.
    HelloTimeout = "hello_timeout",
        "Nothing where a stranger has found the port. For a host, look at its network: a hello takes two round trips.";
    /// The peer's first bytes are not those of this protocol.
    NotOurProtocol = "not_our_protocol",
        "See whether a client dials the hosts' port, or a host the clients' port. Else a stranger has found it: nothing is lost.";
    /// The peer sent a frame or a message that cannot be understood.
    Malformed = "malformed",
        "See whether host and relay are what they should be, and of versions that fit. If they are, this is a bug: report it.";
    /// The peer speaks a version, or asks for a role, that this relay does not know.
    UnsupportedVersion = "unsupported_version",
        "Bring host and relay to versions that fit.";
    /// Hosts are not accepted from this network.
    NetworkNotAllowed = "network_not_allowed",
        "Give the host a join line. For a host of version 1, name its network in the relay's configuration (`allow` in `[relay.v1]`, or `--v1-allow`).";
    /// The host spoke on a data channel that no client was assigned to.
    SpokeWhileIdle = "spoke_while_idle",
        "The host breaks the protocol: bring it up to date, or report it.";
    /// The host did not read its command channel.
    CommandStuck = "command_stuck",
        "See whether the host's process hangs, or its network has stopped. It connects again by itself.";
    /// The peer closed the connection.
    PeerClosed = "peer_closed",
        "Nothing where the peer meant to. Its own log says why.";
    /// The host turned the session down.
    Rejected = "rejected",
        "Look at the host's log, which says why.";
    /// The server behind the host cannot be reached.
    TargetUnreachable = "target_unreachable",
        "See whether the server runs that the host forwards to, and whether the address given to the host is right.";
    /// The host did not accept the session in time.
    NotAccepted = "not_accepted",
        "See whether the host's process hangs, or the server behind it takes long to answer.";
    /// The host was not heard from for a while.
    HostSuspect = "host_suspect",
        "Look at the host's network, and whether its machine was asleep. It gets clients again once it is heard.";
    /// The service has as many sessions as it may have, or each of its hosts.
    SessionLimit = "session_limit",
        "Raise `max_sessions` of the service, or of its hosts, or add hosts.";
    /// The host takes no sessions of this service for now: its server does not answer, or it was told so.
    Paused = "paused",
        "See whether the server runs that the host forwards to: the host takes sessions again as soon as it does.";
    /// The host has more idle channels than it needs, and had the relay close this one.
    Surplus = "surplus",
        "Nothing: it was left over from busier times.";
    /// The host's token is not known to this relay: it was mistyped, or it is another relay's.
    TokenUnknown = "token_unknown",
        "Copy the join line anew, whole. If it was lost, make another with `relayserver token create`.";
    /// The host's token was revoked.
    TokenRevoked = "token_revoked",
        "If the host is to serve again, make another token with `relayserver token create` and give it the new join line.";
    /// The host's token has expired.
    TokenExpired = "token_expired",
        "Make another token with `relayserver token create` and give the host the new join line.";
    /// The host showed no token, and may serve nothing here without one.
    TokenRequired = "token_required",
        "Give the host a join line: `relayserver token create` makes one.";
    /// The token is for clients: it cannot serve.
    RoleNotGranted = "role_not_granted",
        "Make a token of the role host with `relayserver token create` and give the host its join line.";
    /// The host may not serve this service: its token does not cover it, or its command channel did not name it.
    ServiceNotGranted = "service_not_granted",
        "Have the host serve what its token covers (`relayserver token list` says), or make a token that covers the service (`--service`).";
    /// The relay has no service of that name.
    ServiceUnknown = "service_unknown",
        "Correct the name on the host, or add the service to the relay's configuration.";
    /// This service is for hosts of version 1 alone.
    ServiceOfVersion1 = "service_of_version_1",
        "Have the host serve another service, or set `mixed = true` in `[relay.v1]`.";
    /// The data channel does not belong to a command channel that is there.
    ChannelKeyUnknown = "channel_key_unknown",
        "Nothing where the host has just lost its command channel: it comes back with a new key. Else somebody tries another host's id.";
    /// Another host has this id.
    HostIdTaken = "host_id_taken",
        "Nothing where the host was just cut off: its old connections end soon. Else two processes use one id: restart one of them.";
    /// The host opened a newer command channel.
    Replaced = "replaced",
        "Nothing: the newer one is in use.";
    /// Version 1 of the protocol is switched off on this relay.
    Version1Off = "version_1_off",
        "Give the host a join line, or switch version 1 on (`[relay.v1]` in the relay's configuration).";
    /// The connection is not encrypted, and TLS is due here.
    TlsRequired = "tls_required",
        "Give the host a join line: with one it uses TLS.";
    /// The peer began TLS, which is off on this relay.
    TlsOff = "tls_off",
        "Switch TLS on (`tls` in `[relay]`). A host with a join line never goes without.";
    /// The TLS handshake failed.
    TlsFailed = "tls_failed",
        "For a host, see whether the pin in its join line is this relay's: its log says. Else a stranger has found the port: nothing is lost.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(code: &str) -> Result<Reason, UnknownReason> {
        Reason::ALL.iter().copied().find(|reason| reason.code() == code).ok_or(UnknownReason)
    }
}

/// The text is the code of no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownReason;

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the code of a reason")
    }
}

impl std::error::Error for UnknownReason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for &reason in Reason::ALL {
            assert_eq!(reason.code().parse(), Ok(reason));
            for text in [reason.meaning(), reason.advice()] {
                assert!(text.ends_with('.') && !text.contains('|'), "{reason}: {text}");
            }
        }
        assert_eq!("no_such_reason".parse::<Reason>(), Err(UnknownReason));
    }
}
