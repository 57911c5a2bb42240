//! Inputs and outputs as words: how each stands in a line of a recording. What may be missing is `-` then.

use std::fmt;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

use super::Plain;
use crate::grant::{Grant, Role, ServicePattern};
use crate::ids::{ChannelId, ChannelKey, CommandId, GrantId, ServiceName};
use crate::time::Time;
use crate::vocabulary::{Assignment, Capacity, End, Handles, Input, Membership, Output};

/// A text is not of the form that recordings have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotInForm;

impl<H: Handles> fmt::Display for Input<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::CommandUp { command, host, membership, .. } => {
                write!(f, "command_up {command} {host} ")?;
                write_membership(f, membership.as_ref())
            }
            Input::CommandDown { command } => write!(f, "command_down {command}"),
            Input::CommandSuspect { command } => write!(f, "command_suspect {command}"),
            Input::CommandWell { command } => write!(f, "command_well {command}"),
            Input::CommandGone { command } => write!(f, "command_gone {command}"),
            Input::CommandLeaving { command } => write!(f, "command_leaving {command}"),
            Input::PoolBounds { command, service, min, max } => {
                write!(f, "pool_bounds {command} {service} {min} {max}")
            }
            Input::PoolSurplus { command, service, idle } => {
                write!(f, "pool_surplus {command} {service} {idle}")
            }
            Input::RoundTrip { command, round_trip } => {
                write!(f, "round_trip {command} {}", round_trip.as_nanos())
            }
            Input::GrantChanged { grant, terms } => {
                write!(f, "grant_changed {grant} ")?;
                write_terms(f, terms.as_ref())
            }
            Input::ReserveChannel { host, service, key } => {
                write!(f, "reserve_channel {host} {service} {}", Optional(key.map(Key)))
            }
            Input::ChannelIdle { channel, .. } => write!(f, "channel_idle {channel}"),
            Input::ChannelReturned { session, .. } => write!(f, "channel_returned {session}"),
            Input::ChannelGone { channel } => write!(f, "channel_gone {channel}"),
            Input::ClientArrived { session, service, .. } => {
                write!(f, "client_arrived {session} {service}")
            }
            Input::ClientGone { session } => write!(f, "client_gone {session}"),
            Input::Accepted { session, .. } => write!(f, "accepted {session}"),
            Input::OfferFailed { session, reason, .. } => {
                write!(f, "offer_failed {session} {reason}")
            }
            Input::ClientFinished { session } => write!(f, "client_finished {session}"),
            Input::HostFinished { session } => write!(f, "host_finished {session}"),
            Input::SessionEnded { session, end } => write!(f, "session_ended {session} {end}"),
            Input::TimePassed => write!(f, "time_passed"),
            Input::Drain => write!(f, "drain"),
            Input::EndAll { reason } => write!(f, "end_all {reason}"),
        }
    }
}

fn write_membership(f: &mut fmt::Formatter<'_>, membership: Option<&Membership>) -> fmt::Result {
    match membership {
        None => write!(f, "- - - - - -"),
        Some(Membership { grant, services, key, last_key, capacity }) => {
            let (grant, last_key) = (Optional(grant.as_ref()), Optional(last_key.map(Key)));
            let services: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
            write!(f, "{} {grant} {last_key} {}", Key(*key), services.join(","))?;
            write!(f, " {} {}", capacity.weight, Optional(capacity.sessions_max))
        }
    }
}

fn write_terms(f: &mut fmt::Formatter<'_>, terms: Option<&Grant>) -> fmt::Result {
    let Some(Grant { role, services, expires }) = terms else {
        return write!(f, "-");
    };
    let role = match role {
        Role::Host => "host",
        Role::Client => "client",
    };
    let expires = Optional(expires.map(|at| at.since_start().as_nanos()));
    let services: Vec<String> = services.iter().map(ServicePattern::to_string).collect();
    let services = Optional((!services.is_empty()).then(|| services.join(",")));
    write!(f, "{role} {expires} {services}")
}

impl FromStr for Input<Plain> {
    type Err = NotInForm;

    fn from_str(text: &str) -> Result<Input<Plain>, NotInForm> {
        let mut words = Words::of(text);
        Ok(match words.word()? {
            "command_up" => Input::CommandUp {
                command: CommandId(words.parse()?),
                host: words.parse()?,
                membership: words.membership()?,
                handle: (),
            },
            "command_down" => Input::CommandDown { command: CommandId(words.parse()?) },
            "command_suspect" => Input::CommandSuspect { command: CommandId(words.parse()?) },
            "command_well" => Input::CommandWell { command: CommandId(words.parse()?) },
            "command_gone" => Input::CommandGone { command: CommandId(words.parse()?) },
            "command_leaving" => Input::CommandLeaving { command: CommandId(words.parse()?) },
            "pool_bounds" => Input::PoolBounds {
                command: CommandId(words.parse()?),
                service: words.service()?,
                min: words.parse()?,
                max: words.parse()?,
            },
            "pool_surplus" => {
                let (command, service) = (CommandId(words.parse()?), words.service()?);
                Input::PoolSurplus { command, service, idle: words.parse()? }
            }
            "round_trip" => Input::RoundTrip {
                command: CommandId(words.parse()?),
                round_trip: Duration::from_nanos(words.parse()?),
            },
            "grant_changed" => {
                Input::GrantChanged { grant: GrantId::new(words.word()?), terms: words.terms()? }
            }
            "reserve_channel" => Input::ReserveChannel {
                host: words.parse()?,
                service: words.service()?,
                key: words.optional(key)?,
            },
            "channel_idle" => Input::ChannelIdle { channel: words.channel()?, handle: () },
            "channel_returned" => Input::ChannelReturned { session: words.parse()?, handle: () },
            "channel_gone" => Input::ChannelGone { channel: words.channel()? },
            "client_arrived" => Input::ClientArrived {
                session: words.parse()?,
                service: words.service()?,
                client: (),
                stop: (),
            },
            "client_gone" => Input::ClientGone { session: words.parse()? },
            "accepted" => Input::Accepted { session: words.parse()?, stop: () },
            "offer_failed" => Input::OfferFailed {
                session: words.parse()?,
                reason: words.parse()?,
                client: (),
                stop: (),
            },
            "client_finished" => Input::ClientFinished { session: words.parse()? },
            "host_finished" => Input::HostFinished { session: words.parse()? },
            "session_ended" => Input::SessionEnded { session: words.parse()?, end: words.end()? },
            "time_passed" => Input::TimePassed,
            "drain" => Input::Drain,
            "end_all" => Input::EndAll { reason: words.parse()? },
            _ => return Err(NotInForm),
        })
    }
}

impl<H: Handles> fmt::Display for Output<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Reserved { channel } => write!(f, "reserved {channel}"),
            Output::ReserveRefused { reason } => write!(f, "reserve_refused {reason}"),
            Output::CommandTaken { command } => write!(f, "command_taken {command}"),
            Output::HostJoined { host } => write!(f, "host_joined {host}"),
            Output::HostLeft { host } => write!(f, "host_left {host}"),
            Output::CloseCommand { reason, .. } => write!(f, "close_command {reason}"),
            Output::Assigned { assignment, .. } => write!(f, "assigned {assignment}"),
            Output::Announce { command, announcement, .. } => {
                write!(f, "announce {command} {announcement}")
            }
            Output::Refused { session, reason, .. } => write!(f, "refused {session} {reason}"),
            Output::CloseChannel { channel, reason, .. } => {
                write!(f, "close_channel {channel} {reason}")
            }
            Output::Withdraw { session, reason, .. } => write!(f, "withdraw {session} {reason}"),
            Output::EndSession { session, reason, .. } => {
                write!(f, "end_session {session} {reason}")
            }
        }
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Assignment { session, service, host, channel, waited, is_offer } = self;
        let nanos = waited.as_nanos();
        write!(f, "{session} {service} {host} {channel} {nanos} {is_offer}")
    }
}

/// A value that may be missing.
pub(super) struct Optional<T>(pub(super) Option<T>);

impl<T: fmt::Display> fmt::Display for Optional<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// A key in full: the relay tells the book digests of its keys, and no key.
struct Key(ChannelKey);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0.bits())
    }
}

fn key(word: &str) -> Result<ChannelKey, NotInForm> {
    u128::from_str_radix(word, 16).map(ChannelKey::new).map_err(|_| NotInForm)
}

/// What is left of a line.
pub(super) struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    pub(super) fn of(text: &'a str) -> Words<'a> {
        Words(text.split_whitespace())
    }

    pub(super) fn word(&mut self) -> Result<&'a str, NotInForm> {
        self.0.next().ok_or(NotInForm)
    }

    pub(super) fn parse<T: FromStr>(&mut self) -> Result<T, NotInForm> {
        self.word()?.parse().map_err(|_| NotInForm)
    }

    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&str) -> Result<T, NotInForm>,
    ) -> Result<Option<T>, NotInForm> {
        let word = self.word()?;
        if word == "-" { Ok(None) } else { read(word).map(Some) }
    }

    pub(super) fn service(&mut self) -> Result<ServiceName, NotInForm> {
        Ok(ServiceName::new(self.word()?))
    }

    pub(super) fn channel(&mut self) -> Result<ChannelId, NotInForm> {
        ChannelId::new(self.parse()?).ok_or(NotInForm)
    }

    fn membership(&mut self) -> Result<Option<Membership>, NotInForm> {
        let own = self.optional(key)?;
        let grant = self.optional(|word| Ok(GrantId::new(word)))?;
        let last_key = self.optional(key)?;
        let names = |word: &str| Ok(word.split(',').map(ServiceName::new).collect());
        let services = self.optional(names)?.unwrap_or_default();
        let parse = |word: &str| word.parse().map_err(|_| NotInForm);
        let weight = self.optional(|word| word.parse().map_err(|_| NotInForm))?.unwrap_or_default();
        let capacity = Capacity { weight, sessions_max: self.optional(parse)? };
        Ok(own.map(|key| Membership { grant, services, key, last_key, capacity }))
    }

    fn terms(&mut self) -> Result<Option<Grant>, NotInForm> {
        let role = match self.word()? {
            "-" => return Ok(None),
            "host" => Role::Host,
            "client" => Role::Client,
            _ => return Err(NotInForm),
        };
        let nanos = self.optional(|word| word.parse().map_err(|_| NotInForm))?;
        let expires = nanos.map(|nanos| Time::from_start(Duration::from_nanos(nanos)));
        let patterns = |word: &str| {
            word.split(',').map(|it| it.parse().map_err(|_| NotInForm)).collect::<Result<_, _>>()
        };
        let services: Vec<ServicePattern> = self.optional(patterns)?.unwrap_or_default();
        Ok(Some(Grant { role, services, expires }))
    }

    fn end(&mut self) -> Result<End, NotInForm> {
        Ok(End {
            reason: self.parse()?,
            bytes_to_host: self.parse()?,
            bytes_to_client: self.parse()?,
        })
    }
}
