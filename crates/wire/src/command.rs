//! What is said on a command channel: the relay's announcements to a host. The host says nothing there.

use crate::frame;
use crate::proto::command::MessageType;
use crate::proto::{
    self, ClientConnectionDropProperties as DropProperties,
    ClientConnectionOpenProperties as OpenProperties,
};
use crate::{MessageError, VERSION, check_version, parse};

/// The relay's word to a host that a session opened or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Something that this version has no word for. Hosts ignore it.
    Unknown {
        /// Its number: neither 0 (open) nor 1 (drop).
        message_type: i32,
    },
}

impl Announcement {
    /// The whole frame, header included. For [`Announcement::Unknown`] only its number is encoded.
    pub fn encode(&self) -> Vec<u8> {
        let (message_type, open_properties, drop_properties) = match *self {
            Announcement::Open { channel_id } => {
                let properties = OpenProperties { assigned_to_session: channel_id };
                (MessageType::ConnectionOpen.into(), Some(properties), None)
            }
            Announcement::Drop { channel_id } => {
                let properties = DropProperties { session_id: channel_id };
                (MessageType::ConnectionDrop.into(), None, Some(properties))
            }
            Announcement::Unknown { message_type } => (message_type, None, None),
        };
        frame::encode(&proto::Command {
            version: VERSION,
            message_type,
            open_properties,
            drop_properties,
        })
    }

    /// Reads the payload of a frame. Unknown fields are ignored, and so are properties that belong to another type. A
    /// type that is missing reads as open, and a channel id that is missing reads as 0; a host ignores an id that is none
    /// of its own.
    ///
    /// # Errors
    /// [`MessageError::UnsupportedVersion`] if the version is missing (it reads as 0) or not [`VERSION`];
    /// [`MessageError::MissingField`] if the properties that belong to the type are missing;
    /// [`MessageError::Malformed`] if the payload is no such message.
    pub fn decode(payload: &[u8]) -> Result<Announcement, MessageError> {
        let command: proto::Command = parse("command", payload)?;
        check_version(command.version)?;
        match MessageType::try_from(command.message_type) {
            Ok(MessageType::ConnectionOpen) => {
                let properties = present("open_properties", command.open_properties)?;
                let channel_id = properties.assigned_to_session;
                Ok(Announcement::Open { channel_id })
            }
            Ok(MessageType::ConnectionDrop) => {
                let properties = present("drop_properties", command.drop_properties)?;
                let channel_id = properties.session_id;
                Ok(Announcement::Drop { channel_id })
            }
            Err(_unknown) => {
                let message_type = command.message_type;
                Ok(Announcement::Unknown { message_type })
            }
        }
    }
}

fn present<P>(field: &'static str, properties: Option<P>) -> Result<P, MessageError> {
    let message = "command";
    properties.ok_or(MessageError::MissingField { message, field })
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
    fn a_missing_type_is_open_and_a_missing_channel_id_is_0() {
        for (payload, announcement) in [
            (&b"\x08\x01\x1a\x02\x08\x05"[..], Announcement::Open { channel_id: 5 }),
            (b"\x08\x01\x10\x00\x1a\x00", Announcement::Open { channel_id: 0 }),
            (b"\x08\x01\x10\x01\x22\x00", Announcement::Drop { channel_id: 0 }),
        ] {
            assert_eq!(Announcement::decode(payload), Ok(announcement));
        }
    }

    #[test]
    fn an_unknown_type_is_told_from_what_is_known() {
        for message_type in [-1, 2, 16, i32::MAX] {
            let unknown = Announcement::Unknown { message_type };
            assert_eq!(Announcement::decode(&unknown.encode()[4..]), Ok(unknown));
        }
    }
}
