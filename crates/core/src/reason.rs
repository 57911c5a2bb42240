//! Why a session ended, a client was refused, a channel was closed: one closed list, the same in logs, counters and docs.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
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
        }
    };
}

reasons! {
    /// Both sides sent their last byte and all of it was handed over.
    Finished = "finished",
    /// The client's connection was reset or failed.
    ClientAborted = "client_aborted",
    /// The host's data channel was reset or failed.
    HostAborted = "host_aborted",
    /// The host had sent its last byte and then vanished, so nobody is left to read what the client sends.
    HostLost = "host_lost",
    /// One side had finished and the other was silent for longer than the bound.
    HalfClosedTimeout = "half_closed_timeout",
    /// The relay was leaving and the drain timeout had passed.
    Drained = "drained",
    /// The client left before a channel was free for it.
    ClientGone = "client_gone",
    /// No host is connected.
    NoHost = "no_host",
    /// Hosts are connected, but none had a free channel in time.
    NoChannel = "no_channel",
    /// Too many clients wait already.
    QueueFull = "queue_full",
    /// Too many clients are connected already.
    ClientLimit = "client_limit",
    /// Too many data channels are connected already.
    ChannelLimit = "channel_limit",
    /// Too many command channels are connected already.
    CommandLimit = "command_limit",
    /// Too many connections have not said who they are, and this one waited too long, or was silent while others waited.
    HandshakeLimit = "handshake_limit",
    /// The relay is leaving and takes nobody new.
    Draining = "draining",
    /// The peer did not say hello in time.
    HelloTimeout = "hello_timeout",
    /// The peer's first bytes are not those of this protocol.
    NotOurProtocol = "not_our_protocol",
    /// The peer sent a frame or message that cannot be understood.
    Malformed = "malformed",
    /// The peer speaks a version that this relay does not.
    UnsupportedVersion = "unsupported_version",
    /// Hosts are not accepted from this network.
    NetworkNotAllowed = "network_not_allowed",
    /// The host spoke on a data channel that no client was assigned to.
    SpokeWhileIdle = "spoke_while_idle",
    /// The host did not read its announcements.
    CommandStuck = "command_stuck",
    /// The peer closed the connection.
    PeerClosed = "peer_closed",
    /// The host turned the session down.
    Rejected = "rejected",
    /// Nothing listens behind the host, or it cannot be reached.
    TargetUnreachable = "target_unreachable",
    /// The host did not accept the session in time.
    NotAccepted = "not_accepted",
    /// Each host that could serve the client was tried, and none did.
    NoOtherHost = "no_other_host",
    /// The host was not heard from for a while.
    HostSuspect = "host_suspect",
    /// The service has as many sessions as it may have.
    SessionLimit = "session_limit",
    /// The host's token is not known here: it was mistyped, or its relay is another one.
    TokenUnknown = "token_unknown",
    /// The host's token was revoked.
    TokenRevoked = "token_revoked",
    /// The host's token has expired.
    TokenExpired = "token_expired",
    /// The host presented no token, and may serve nothing without one.
    TokenRequired = "token_required",
    /// The token is one for clients: it cannot serve.
    RoleNotGranted = "role_not_granted",
    /// The token does not cover the service.
    ServiceNotGranted = "service_not_granted",
    /// The relay has no service of that name.
    ServiceUnknown = "service_unknown",
    /// The service is served by hosts of version 1, and not mixed with others.
    ServiceOfVersion1 = "service_of_version_1",
    /// The data channel does not belong to a command channel that is there.
    ChannelKeyUnknown = "channel_key_unknown",
    /// Another host has this id, and its command channel.
    HostIdTaken = "host_id_taken",
    /// The host opened a newer command channel.
    Replaced = "replaced",
    /// Version 1 is switched off.
    Version1Off = "version_1_off",
    /// Plain connections are not taken here: TLS is due.
    TlsRequired = "tls_required",
    /// TLS is off here, and the peer began it.
    TlsOff = "tls_off",
    /// The TLS handshake failed.
    TlsFailed = "tls_failed",
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
            assert!(reason.meaning().ends_with('.'), "{reason}: {}", reason.meaning());
        }
        assert_eq!("no_such_reason".parse::<Reason>(), Err(UnknownReason));
    }
}
