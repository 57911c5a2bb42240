//! What is said on a command channel. In version 1 that is the relay's word to a host that a session opened or dropped, and
//! the host says nothing there; in version 2 both sides speak.

use crate::frame;
use crate::id::{SessionId, sixteen};
use crate::proto::command::MessageType;
use crate::proto::{
    self, ClientConnectionDropProperties as DropProperties,
    ClientConnectionOpenProperties as OpenProperties, LeavingProperties, PingProperties,
    PoolBoundsProperties, PoolSurplusProperties, PoolWantedProperties, SessionEndedProperties,
};
use crate::text::{service_name, word};
use crate::{MessageError, VERSION, check_version, malformed, missing, parse};

/// One message of a command channel. Those from [`Announcement::Ping`] on go only to a peer that said version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// A client was assigned to a channel: the host may speak on it.
    Open {
        /// The id from the channel's [`Answer`](crate::hello::Answer). Hosts ignore ids that they do not know.
        channel_id: i32,
    },
    /// The client has left, or sent its last byte. Advice: an answer may still be on its way.
    Drop {
        /// As with [`Announcement::Open`].
        channel_id: i32,
    },
    /// Either side asks whether the other is there.
    Ping {
        /// Comes back in the pong.
        nonce: u64,
    },
    /// The answer to a ping, from either side.
    Pong {
        /// That of the ping.
        nonce: u64,
    },
    /// The relay's word that a session of this host is over, and how.
    SessionEnded {
        /// The id from its [`Start`](crate::start::Start).
        session_id: SessionId,
        /// From the relay's closed list of reasons, or one that we do not know: 1 to 64 bytes of `a` to `z`, `0` to `9`
        /// and `_`.
        reason: String,
        /// The client's bytes that were handed to the host.
        bytes_to_host: u64,
        /// The host's bytes that were handed to the client.
        bytes_to_client: u64,
    },
    /// Either side is leaving: nothing new, please. What runs goes on.
    Leaving {
        /// As with [`Announcement::SessionEnded`].
        reason: String,
        /// When to come back, in milliseconds. Only a relay says so.
        retry_after_ms: Option<u32>,
    },
    /// The relay's word how many idle channels it wants of a service, from now on.
    PoolWanted {
        /// The service.
        service: String,
        /// How many, those that are idle already among them.
        idle: u32,
    },
    /// The host's word between what bounds it keeps idle channels of a service, from now on.
    PoolBounds {
        /// The service.
        service: String,
        /// At least so many. It does not exceed the other.
        idle_min: u32,
        /// At most so many; with 0 it takes no sessions of the service for now.
        idle_max: u32,
    },
    /// The host's word how many of its idle channels of a service the relay is to close: those that it would give out last.
    PoolSurplus {
        /// The service.
        service: String,
        /// How many.
        idle: u32,
    },
    /// Something that we have no word for. It is ignored.
    Unknown {
        /// Its number: neither 0 (open), 1 (drop), nor 16 to 22.
        message_type: i32,
    },
}

impl Announcement {
    /// The whole frame, header included. For [`Announcement::Unknown`] only its number is encoded.
    pub fn encode(&self) -> Vec<u8> {
        let mut command = command(self.message_type());
        match self {
            &Announcement::Open { channel_id } => {
                command.open_properties = Some(OpenProperties { assigned_to_session: channel_id });
            }
            &Announcement::Drop { channel_id } => {
                command.drop_properties = Some(DropProperties { session_id: channel_id });
            }
            &Announcement::Ping { nonce } => {
                command.ping_properties = Some(PingProperties { nonce });
            }
            &Announcement::Pong { nonce } => {
                command.pong_properties = Some(PingProperties { nonce });
            }
            Announcement::SessionEnded { session_id, reason, bytes_to_host, bytes_to_client } => {
                command.session_ended_properties = Some(SessionEndedProperties {
                    session_id: session_id.0.to_vec(),
                    reason: reason.clone(),
                    bytes_to_host: *bytes_to_host,
                    bytes_to_client: *bytes_to_client,
                });
            }
            Announcement::Leaving { reason, retry_after_ms } => {
                let (reason, retry_after_ms) = (reason.clone(), *retry_after_ms);
                command.leaving_properties = Some(LeavingProperties { reason, retry_after_ms });
            }
            Announcement::PoolWanted { service, idle } => {
                let (service, idle) = (service.clone(), *idle);
                command.pool_wanted_properties = Some(PoolWantedProperties { service, idle });
            }
            &Announcement::PoolBounds { ref service, idle_min, idle_max } => {
                let service = service.clone();
                command.pool_bounds_properties =
                    Some(PoolBoundsProperties { service, idle_min, idle_max });
            }
            Announcement::PoolSurplus { service, idle } => {
                let (service, idle) = (service.clone(), *idle);
                command.pool_surplus_properties = Some(PoolSurplusProperties { service, idle });
            }
            Announcement::Unknown { .. } => {}
        }
        frame::encode(&command)
    }

    /// Reads the payload of a frame. Unknown fields are ignored, and so are properties that belong to another type. A
    /// type that is missing reads as open, and a number that is missing, such as a channel id, reads as 0; a host ignores
    /// an id that is none of its own.
    ///
    /// # Errors
    /// [`MessageError::UnsupportedVersion`] if the version is missing (it reads as 0) or not [`VERSION`];
    /// [`MessageError::MissingField`] if the properties that belong to the type are missing, or a session's id, a reason
    /// or a service is missing in them or empty;
    /// [`MessageError::Malformed`] if the payload is no such message, a session's id has not 16 bytes, a text is not what
    /// it must be, or a lower bound exceeds its upper one.
    pub fn decode(payload: &[u8]) -> Result<Announcement, MessageError> {
        let command: proto::Command = parse(COMMAND, payload)?;
        check_version(command.version)?;
        let message_type = command.message_type;
        let Ok(known) = MessageType::try_from(message_type) else {
            return Ok(Announcement::Unknown { message_type });
        };
        match known {
            MessageType::ConnectionOpen => {
                let properties = present("open_properties", command.open_properties)?;
                Ok(Announcement::Open { channel_id: properties.assigned_to_session })
            }
            MessageType::ConnectionDrop => {
                let properties = present("drop_properties", command.drop_properties)?;
                Ok(Announcement::Drop { channel_id: properties.session_id })
            }
            MessageType::Ping => {
                let properties = present("ping_properties", command.ping_properties)?;
                Ok(Announcement::Ping { nonce: properties.nonce })
            }
            MessageType::Pong => {
                let properties = present("pong_properties", command.pong_properties)?;
                Ok(Announcement::Pong { nonce: properties.nonce })
            }
            MessageType::SessionEnded => {
                let properties = command.session_ended_properties;
                session_ended(present("session_ended_properties", properties)?)
            }
            MessageType::Leaving => {
                leaving(present("leaving_properties", command.leaving_properties)?)
            }
            MessageType::PoolWanted => {
                pool_wanted(present("pool_wanted_properties", command.pool_wanted_properties)?)
            }
            MessageType::PoolBounds => {
                pool_bounds(present("pool_bounds_properties", command.pool_bounds_properties)?)
            }
            MessageType::PoolSurplus => {
                pool_surplus(present("pool_surplus_properties", command.pool_surplus_properties)?)
            }
        }
    }

    fn message_type(&self) -> i32 {
        match self {
            Announcement::Open { .. } => MessageType::ConnectionOpen.into(),
            Announcement::Drop { .. } => MessageType::ConnectionDrop.into(),
            Announcement::Ping { .. } => MessageType::Ping.into(),
            Announcement::Pong { .. } => MessageType::Pong.into(),
            Announcement::SessionEnded { .. } => MessageType::SessionEnded.into(),
            Announcement::Leaving { .. } => MessageType::Leaving.into(),
            Announcement::PoolWanted { .. } => MessageType::PoolWanted.into(),
            Announcement::PoolBounds { .. } => MessageType::PoolBounds.into(),
            Announcement::PoolSurplus { .. } => MessageType::PoolSurplus.into(),
            Announcement::Unknown { message_type } => *message_type,
        }
    }
}

const COMMAND: &str = "command";

/// A command without properties.
fn command(message_type: i32) -> proto::Command {
    proto::Command { version: VERSION, message_type, ..proto::Command::default() }
}

fn session_ended(properties: SessionEndedProperties) -> Result<Announcement, MessageError> {
    Ok(Announcement::SessionEnded {
        session_id: SessionId(sixteen(COMMAND, "session_id", &properties.session_id)?),
        reason: word(COMMAND, "reason", properties.reason)?,
        bytes_to_host: properties.bytes_to_host,
        bytes_to_client: properties.bytes_to_client,
    })
}

fn leaving(properties: LeavingProperties) -> Result<Announcement, MessageError> {
    Ok(Announcement::Leaving {
        reason: word(COMMAND, "reason", properties.reason)?,
        retry_after_ms: properties.retry_after_ms,
    })
}

fn pool_wanted(properties: PoolWantedProperties) -> Result<Announcement, MessageError> {
    Ok(Announcement::PoolWanted {
        service: service_name(COMMAND, "service", properties.service)?,
        idle: properties.idle,
    })
}

fn pool_bounds(properties: PoolBoundsProperties) -> Result<Announcement, MessageError> {
    let PoolBoundsProperties { service, idle_min, idle_max } = properties;
    if idle_min > idle_max {
        let detail = format!("idle_min {idle_min} exceeds idle_max {idle_max}");
        return Err(malformed(COMMAND, detail));
    }
    let service = service_name(COMMAND, "service", service)?;
    Ok(Announcement::PoolBounds { service, idle_min, idle_max })
}

fn pool_surplus(properties: PoolSurplusProperties) -> Result<Announcement, MessageError> {
    Ok(Announcement::PoolSurplus {
        service: service_name(COMMAND, "service", properties.service)?,
        idle: properties.idle,
    })
}

fn present<P>(field: &'static str, properties: Option<P>) -> Result<P, MessageError> {
    properties.ok_or(missing(COMMAND, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_without_its_properties_is_refused() {
        for (payload, field) in [
            (&b"\x08\x01\x10\x00"[..], "open_properties"),
            (b"\x08\x01", "open_properties"),
            (b"\x08\x01\x10\x01", "drop_properties"),
            // Those of the other type do not count.
            (b"\x08\x01\x10\x00\x22\x02\x08\x01", "open_properties"),
            (b"\x08\x01\x10\x01\x1a\x02\x08\x01", "drop_properties"),
            (b"\x08\x01\x10\x10", "ping_properties"),
            (b"\x08\x01\x10\x10\x8a\x01\x02\x08\x07", "ping_properties"),
            (b"\x08\x01\x10\x11", "pong_properties"),
            (b"\x08\x01\x10\x11\x82\x01\x02\x08\x07", "pong_properties"),
            (b"\x08\x01\x10\x12", "session_ended_properties"),
            (b"\x08\x01\x10\x13", "leaving_properties"),
            (b"\x08\x01\x10\x14", "pool_wanted_properties"),
            (b"\x08\x01\x10\x15", "pool_bounds_properties"),
            (b"\x08\x01\x10\x16", "pool_surplus_properties"),
        ] {
            let message = "command";
            let refused = Err(MessageError::MissingField { message, field });
            assert_eq!(Announcement::decode(payload), refused);
        }
    }

    #[test]
    fn a_command_of_another_version_is_refused_whatever_its_type() {
        for (payload, version) in [
            (&b"\x08\x02\x10\x00\x1a\x02\x08\x01"[..], 2),
            (b"\x10\x00\x1a\x02\x08\x01", 0),
            (b"\x08\x02\x10\x07", 2),
        ] {
            let refused = Err(MessageError::UnsupportedVersion { version });
            assert_eq!(Announcement::decode(payload), refused);
        }
    }

    #[test]
    fn a_missing_type_is_open_and_a_missing_number_is_0() {
        for (payload, announcement) in [
            (&b"\x08\x01\x1a\x02\x08\x05"[..], Announcement::Open { channel_id: 5 }),
            (b"\x08\x01\x10\x00\x1a\x00", Announcement::Open { channel_id: 0 }),
            (b"\x08\x01\x10\x01\x22\x00", Announcement::Drop { channel_id: 0 }),
            (b"\x08\x01\x10\x10\x82\x01\x00", Announcement::Ping { nonce: 0 }),
        ] {
            assert_eq!(Announcement::decode(payload), Ok(announcement));
        }
    }

    #[test]
    fn an_unknown_type_is_told_from_what_is_known() {
        for message_type in [-1, 2, 15, 23, i32::MAX] {
            let unknown = Announcement::Unknown { message_type };
            assert_eq!(Announcement::decode(&unknown.encode()[4..]), Ok(unknown));
        }
    }

    #[test]
    fn properties_that_are_not_what_they_must_be_are_refused() {
        let ended = |id: &[u8], reason: &str| proto::Command {
            session_ended_properties: Some(SessionEndedProperties {
                session_id: id.to_vec(),
                reason: reason.to_owned(),
                bytes_to_host: 1,
                bytes_to_client: 2,
            }),
            ..command(18)
        };
        let leaving = |reason: &str| proto::Command {
            leaving_properties: Some(LeavingProperties {
                reason: reason.to_owned(),
                retry_after_ms: None,
            }),
            ..command(19)
        };
        let wanted = |service: &str| proto::Command {
            pool_wanted_properties: Some(PoolWantedProperties {
                service: service.to_owned(),
                idle: 1,
            }),
            ..command(20)
        };
        let bounds = |idle_min, idle_max| proto::Command {
            pool_bounds_properties: Some(PoolBoundsProperties {
                service: "a".to_owned(),
                idle_min,
                idle_max,
            }),
            ..command(21)
        };
        let surplus = |service: &str| proto::Command {
            pool_surplus_properties: Some(PoolSurplusProperties {
                service: service.to_owned(),
                idle: 1,
            }),
            ..command(22)
        };
        let no_word = "malformed command: reason \"a-b\", expected a-z, 0-9 and _";
        let no_name = "malformed command: service \"a_b\", expected a-z, 0-9, and - in between";
        for (command, refused) in [
            (ended(&[], "finished"), "command without session_id"),
            (ended(&[7; 15], "finished"), "malformed command: session_id of 15 bytes, expected 16"),
            (ended(&[7; 16], ""), "command without reason"),
            (ended(&[7; 16], "a-b"), no_word),
            (leaving(""), "command without reason"),
            (leaving("a-b"), no_word),
            (wanted(""), "command without service"),
            (wanted("a_b"), no_name),
            (surplus(""), "command without service"),
            (surplus("a_b"), no_name),
            (bounds(2, 1), "malformed command: idle_min 2 exceeds idle_max 1"),
        ] {
            let error = Announcement::decode(&frame::encode(&command)[4..]).unwrap_err();
            assert_eq!(error.to_string(), refused);
        }
    }
}
