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
    /// Too many connections have not said who they are; this one had waited longest at its address.
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
