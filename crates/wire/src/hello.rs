//! What is said on a data channel before it carries a session: the host's hello and the relay's answer.

use crate::frame;
use crate::{MessageError, check_version, parse, proto};

/// The first message on a data channel, from host to relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Always [`VERSION`](crate::VERSION).
    pub version: i32,
}

/// The relay's answer to a [`Hello`]. From here on the channel waits for a client, and no other message is sent on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Names the channel in announcements. Ours run from 1 to 2^31-1; an original relay may number as it likes.
    pub channel_id: i32,
    /// The address of the relay that the host's connection came in on.
    pub relay_host: String,
    /// The port on which the relay takes clients, as decimal text.
    pub relay_port: String,
}

impl Hello {
    /// The whole frame, header included.
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(&proto::Hello { version: self.version })
    }

    /// Reads the payload of a frame. Unknown fields are ignored.
    ///
    /// # Errors
    /// [`MessageError::UnsupportedVersion`] if the version is missing (it reads as 0) or not
    /// [`VERSION`](crate::VERSION);
    /// [`MessageError::Malformed`] if the payload is no such message.
    pub fn decode(payload: &[u8]) -> Result<Hello, MessageError> {
        let proto::Hello { version } = parse("hello", payload)?;
        check_version(version)?;
        Ok(Hello { version })
    }
}

impl Answer {
    /// The whole frame, header included.
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(&proto::HostProcessHelloResponse {
            session_id: self.channel_id,
            relay_host: self.relay_host.clone(),
            relay_port: self.relay_port.clone(),
        })
    }

    /// Reads the payload of a frame. Unknown fields are ignored. A channel id that is missing reads as 0, which is an id
    /// like any other: it can only name this channel.
    ///
    /// # Errors
    /// [`MessageError::MissingField`] if address or port are missing or empty;
    /// [`MessageError::Malformed`] if the payload is no such message.
    pub fn decode(payload: &[u8]) -> Result<Answer, MessageError> {
        let proto::HostProcessHelloResponse { session_id, relay_host, relay_port } =
            parse(ANSWER, payload)?;
        Ok(Answer {
            channel_id: session_id,
            relay_host: present("relay_host", relay_host)?,
            relay_port: present("relay_port", relay_port)?,
        })
    }
}

const ANSWER: &str = "answer";

fn present(field: &'static str, text: String) -> Result<String, MessageError> {
    if text.is_empty() {
        let message = ANSWER;
        return Err(MessageError::MissingField { message, field });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_of_another_version_is_refused() {
        for version in [0, 2, -1, i32::MAX] {
            let frame = Hello { version }.encode();
            let refused = Err(MessageError::UnsupportedVersion { version });
            assert_eq!(Hello::decode(&frame[4..]), refused);
        }
    }

    #[test]
    fn a_hello_without_version_is_refused() {
        let refused = Err(MessageError::UnsupportedVersion { version: 0 });
        assert_eq!(Hello::decode(b""), refused);
    }

    #[test]
    fn an_answer_without_address_or_port_is_refused() {
        for (payload, field) in [
            (&b"\x08\x01\x1a\x048002"[..], "relay_host"),
            (b"\x08\x01\x12\x00\x1a\x048002", "relay_host"),
            (b"\x08\x01\x12\x03::1", "relay_port"),
            (b"\x08\x01\x12\x03::1\x1a\x00", "relay_port"),
        ] {
            let message = "answer";
            let refused = Err(MessageError::MissingField { message, field });
            assert_eq!(Answer::decode(payload), refused);
        }
    }

    #[test]
    fn any_channel_id_is_accepted_and_a_missing_one_is_0() {
        for channel_id in [i32::MIN, -1, 0, 1, i32::MAX] {
            let answer =
                Answer { channel_id, relay_host: "::1".to_owned(), relay_port: "8002".to_owned() };
            assert_eq!(Answer::decode(&answer.encode()[4..]), Ok(answer));
        }
        let answer = Answer::decode(b"\x12\x03::1\x1a\x048002");
        assert_eq!(answer.map(|answer| answer.channel_id), Ok(0));
    }

    #[test]
    fn what_is_no_protobuf_is_malformed() {
        for payload in [
            &b"\x08"[..],        // a varint that does not come
            b"\x0a\x01",         // field 1 with a length that does not come
            b"\x12\x02\xff\xfe", // relay_host that is not UTF-8
            b"\x00",             // field 0
        ] {
            let error = Answer::decode(payload).unwrap_err();
            let MessageError::Malformed { message, .. } = error else {
                panic!("{payload:?}: {error}");
            };
            assert_eq!(message, "answer");
        }
    }
}
