//! The relay's answer to a hello: the address and the channel's id as in version 1 and, to a host of version 2, either what it
//! needs to know or why it is refused.

use crate::frame;
use crate::id::sixteen;
use crate::secret::ChannelKey;
use crate::text::{clients, detail, present, service_name, word};
use crate::{MessageError, parse, proto};

/// The relay's answer to a [`Hello`](super::Hello). In version 1 the channel waits for a client from here on, and no other
/// message is sent on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Names the channel in announcements. Ours run from 1 to 2^31-1, and are 0 where there is no data channel; an original
    /// relay may number as it likes.
    pub channel_id: i32,
    /// The address of the relay that the host's connection came in on.
    pub relay_host: String,
    /// The port on which the relay takes clients, as decimal text.
    pub relay_port: String,
    /// The answer of version 2. Where a hello of version 2 gets none, this is an original relay, and the connection is one
    /// of its idle data channels.
    pub v2: Option<AnswerV2>,
}

/// What a relay answers to a hello of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerV2 {
    /// The host may not, or not now. The relay closes the connection.
    Refused(Refusal),
    /// The connection is what the host asked for.
    Welcome(Welcome),
}

/// What a host needs to know. To a data channel, all of it is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// To a command channel: what its data channels must present. It lives as long as the command channel.
    pub channel_key: Option<ChannelKey>,
    /// To a command channel: what is served where. A service that takes clients in several places stands there as often.
    pub services: Vec<ServedService>,
    /// What the relay can do beyond what every relay can. Unknown ones are ignored; none are defined yet.
    pub features: Vec<u32>,
    /// To a command channel: after how many milliseconds of silence a host gets no new clients.
    pub suspect_after_ms: Option<u32>,
    /// To a command channel: after how many milliseconds of silence a host's sessions end.
    pub gone_after_ms: Option<u32>,
}

/// Why a host is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// From the relay's closed list of reasons, or one that we do not know: 1 to 64 bytes of `a` to `z`, `0` to `9` and `_`.
    pub reason: String,
    /// For people: at most 512 bytes, without control characters.
    pub detail: Option<String>,
    /// When to come back, in milliseconds.
    pub retry_after_ms: Option<u32>,
}

/// A service that the host serves now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedService {
    /// Its name.
    pub name: String,
    /// Where clients connect, to show to people: `vps.example.com:8002`. At most 259 bytes of printable ASCII.
    pub clients: Option<String>,
}

impl Answer {
    /// The whole frame, header included.
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(&proto::HostProcessHelloResponse {
            session_id: self.channel_id,
            relay_host: self.relay_host.clone(),
            relay_port: self.relay_port.clone(),
            v2: self.v2.as_ref().map(AnswerV2::to_proto),
        })
    }

    /// Reads the payload of a frame. Unknown fields are ignored, and so is everything beside a refusal. A channel id that is
    /// missing reads as 0, which is an id like any other: it can only name this channel.
    ///
    /// # Errors
    /// [`MessageError::MissingField`] if address or port, a refusal's reason or a service's name are missing or empty;
    /// [`MessageError::Malformed`] if the payload is no such message, a key has not 16 bytes, or a text is not what it must
    /// be.
    pub fn decode(payload: &[u8]) -> Result<Answer, MessageError> {
        let proto::HostProcessHelloResponse { session_id, relay_host, relay_port, v2 } =
            parse(ANSWER, payload)?;
        Ok(Answer {
            channel_id: session_id,
            relay_host: present(ANSWER, "relay_host", relay_host)?,
            relay_port: present(ANSWER, "relay_port", relay_port)?,
            v2: v2.map(AnswerV2::from_proto).transpose()?,
        })
    }
}

impl AnswerV2 {
    fn to_proto(&self) -> proto::AnswerV2 {
        match self {
            AnswerV2::Refused(refusal) => proto::AnswerV2 {
                refusal: Some(proto::Refusal {
                    reason: refusal.reason.clone(),
                    detail: refusal.detail.clone(),
                    retry_after_ms: refusal.retry_after_ms,
                }),
                ..proto::AnswerV2::default()
            },
            AnswerV2::Welcome(welcome) => proto::AnswerV2 {
                refusal: None,
                channel_key: welcome.channel_key.map(|key| key.expose().to_vec()),
                service: welcome.services.iter().map(ServedService::to_proto).collect(),
                feature: welcome.features.clone(),
                suspect_after_ms: welcome.suspect_after_ms,
                gone_after_ms: welcome.gone_after_ms,
            },
        }
    }

    fn from_proto(answer: proto::AnswerV2) -> Result<AnswerV2, MessageError> {
        if let Some(refusal) = answer.refusal {
            return Ok(AnswerV2::Refused(Refusal {
                reason: word(ANSWER, "reason", refusal.reason)?,
                detail: refusal.detail.map(|text| detail(ANSWER, text)).transpose()?,
                retry_after_ms: refusal.retry_after_ms,
            }));
        }
        let channel_key = answer.channel_key.map(|key| sixteen(ANSWER, "channel_key", &key));
        let services = answer.service.into_iter().map(ServedService::from_proto);
        Ok(AnswerV2::Welcome(Welcome {
            channel_key: channel_key.transpose()?.map(ChannelKey::new),
            services: services.collect::<Result<_, _>>()?,
            features: answer.feature,
            suspect_after_ms: answer.suspect_after_ms,
            gone_after_ms: answer.gone_after_ms,
        }))
    }
}

impl ServedService {
    fn to_proto(&self) -> proto::ServedService {
        proto::ServedService { name: self.name.clone(), clients: self.clients.clone() }
    }

    fn from_proto(service: proto::ServedService) -> Result<ServedService, MessageError> {
        Ok(ServedService {
            name: service_name(ANSWER, "name", service.name)?,
            clients: service.clients.map(|text| clients(ANSWER, text)).transpose()?,
        })
    }
}

const ANSWER: &str = "answer";

#[cfg(test)]
mod tests {
    use super::*;

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
            let (relay_host, relay_port) = ("::1".to_owned(), "8002".to_owned());
            let answer = Answer { channel_id, relay_host, relay_port, v2: None };
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

    #[test]
    fn an_answer_of_version_2_is_told_from_one_of_version_1_even_if_it_says_nothing() {
        let welcome = Some(AnswerV2::Welcome(Welcome::default()));
        assert_eq!(decode(proto::AnswerV2::default()).map(Some), Ok(welcome));
        let of_version_1 = Answer::decode(b"\x12\x03::1\x1a\x048002").unwrap();
        assert_eq!(of_version_1.v2, None);
    }

    #[test]
    fn beside_a_refusal_nothing_else_counts() {
        let reason = "token_revoked".to_owned();
        let refusal = proto::Refusal { reason, detail: None, retry_after_ms: Some(1000) };
        let answer = proto::AnswerV2 {
            refusal: Some(refusal),
            channel_key: Some(vec![7]),
            service: vec![proto::ServedService::default()],
            feature: vec![1],
            suspect_after_ms: Some(1),
            gone_after_ms: Some(1),
        };
        let refused = AnswerV2::Refused(Refusal {
            reason: "token_revoked".to_owned(),
            detail: None,
            retry_after_ms: Some(1000),
        });
        assert_eq!(decode(answer), Ok(refused));
    }

    #[test]
    fn an_answer_with_parts_that_are_not_what_they_must_be_is_refused() {
        let refusal = |reason: &str, detail: usize| proto::AnswerV2 {
            refusal: Some(proto::Refusal {
                reason: reason.to_owned(),
                detail: Some("d".repeat(detail)),
                retry_after_ms: None,
            }),
            ..proto::AnswerV2::default()
        };
        let key =
            |len| proto::AnswerV2 { channel_key: Some(vec![7; len]), ..proto::AnswerV2::default() };
        let served = |name: &str, clients: usize| proto::AnswerV2 {
            service: vec![proto::ServedService {
                name: name.to_owned(),
                clients: Some("c".repeat(clients)),
            }],
            ..proto::AnswerV2::default()
        };
        for (answer, refused) in [
            (refusal("", 0), "answer without reason"),
            (refusal("No", 0), "malformed answer: reason \"No\", expected a-z, 0-9 and _"),
            (refusal("no", 513), "malformed answer: detail of 513 bytes exceeds 512"),
            (key(0), "answer without channel_key"),
            (key(17), "malformed answer: channel_key of 17 bytes, expected 16"),
            (served("", 1), "answer without name"),
            (served(&"a".repeat(64), 1), "malformed answer: name of 64 bytes exceeds 63"),
            (served("a", 260), "malformed answer: clients of 260 bytes exceeds 259"),
        ] {
            assert_eq!(decode(answer).unwrap_err().to_string(), refused);
        }
    }

    /// As a peer that checks nothing would send it.
    fn decode(answer: proto::AnswerV2) -> Result<AnswerV2, MessageError> {
        let frame = frame::encode(&proto::HostProcessHelloResponse {
            session_id: 0,
            relay_host: "::1".to_owned(),
            relay_port: "8002".to_owned(),
            v2: Some(answer),
        });
        Answer::decode(&frame[4..]).map(|answer| answer.v2.unwrap())
    }
}
