//! What is said on a connection before anything else: the host's hello and the relay's answer.
//!
//! In version 1 that is on data channels alone. A hello of version 2 says what its connection is to be.

mod answer;

use crate::frame;
use crate::id::{HostId, sixteen};
use crate::secret::{ChannelKey, Token};
use crate::text::service_name;
use crate::{MessageError, check_version, malformed, missing, parse, proto};

pub use answer::{Answer, AnswerV2, Refusal, ServedService, Welcome};

/// The most services that a hello may name.
pub const SERVICES_MAX: usize = 64;

/// The first message on a connection, from host to relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Always [`VERSION`](crate::VERSION).
    pub version: i32,
    /// What makes it a hello of version 2. Without it, this is a data channel of version 1.
    pub v2: Option<HelloV2>,
}

/// The feature by which either side says of a data channel that it carries one session after another, each in parts, where the other says
/// so too.
pub const MANY_SESSIONS: u32 = 1;

/// Who says hello in version 2, and what the connection is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloV2 {
    /// The host process.
    pub host_id: HostId,
    /// What the connection is to be.
    pub role: Role,
    /// What the host can do beyond what every host can. Unknown ones are ignored; [`MANY_SESSIONS`] is one.
    pub features: Vec<u32>,
}

/// What a connection is to be, with what that takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The host's command channel.
    Command {
        /// The secret by which the host has a grant, where it has one.
        token: Option<Token>,
        /// The services that it will serve: 1 to [`SERVICES_MAX`]. One that stands twice counts once.
        services: Vec<String>,
        /// The key of its last command channel, where it had one: that it is the same process, which no other can say.
        last_key: Option<ChannelKey>,
        /// How much it takes.
        capacity: Capacity,
    },
    /// A data channel, for sessions of one service: one at a time, and one in all unless both sides have [`MANY_SESSIONS`].
    Data {
        /// The key from the answer on the host's command channel.
        channel_key: ChannelKey,
        /// The service.
        service: String,
    },
    /// Reserved: a client of a private service.
    Client,
    /// Reserved: another relay.
    Relay,
    /// Something that we have no word for, to be answered with a [`Refusal`].
    Unknown(
        /// Its number: none of 1 to 4. One that was missing is 0.
        i32,
    ),
}

/// How much a host takes, beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Its share of the sessions: a host of twice the weight gets twice as many. 1 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// How many sessions it takes at once, of all its services together.
    pub sessions_max: Option<u32>,
}

/// What a host weighs that says nothing of it.
pub const WEIGHT_DEFAULT: u32 = 100;

/// The most that a host may weigh.
pub const WEIGHT_MAX: u32 = 10_000;

impl Default for Capacity {
    fn default() -> Capacity {
        Capacity { weight: WEIGHT_DEFAULT, sessions_max: None }
    }
}

impl Hello {
    /// The whole frame, header included. Of [`Role::Client`], [`Role::Relay`] and [`Role::Unknown`] only the number is
    /// encoded.
    pub fn encode(&self) -> Vec<u8> {
        let v2 = self.v2.as_ref().map(HelloV2::to_proto);
        frame::encode(&proto::Hello { version: self.version, v2 })
    }

    /// Reads the payload of a frame. Unknown fields are ignored, and so are those that belong to another role.
    ///
    /// # Errors
    /// [`MessageError::UnsupportedVersion`] if the version is missing (it reads as 0) or not
    /// [`VERSION`](crate::VERSION);
    /// [`MessageError::MissingField`] if the host's id, or what the role takes, is missing or empty;
    /// [`MessageError::Malformed`] if the payload is no such message, an id or a key has not 16 bytes, a token is longer
    /// than [`TOKEN_LEN_MAX`](crate::secret::TOKEN_LEN_MAX), a weight exceeds [`WEIGHT_MAX`], or a service is not named as
    /// services are.
    pub fn decode(payload: &[u8]) -> Result<Hello, MessageError> {
        let proto::Hello { version, v2 } = parse(HELLO, payload)?;
        check_version(version)?;
        let v2 = v2.map(HelloV2::from_proto).transpose()?;
        Ok(Hello { version, v2 })
    }
}

impl HelloV2 {
    fn to_proto(&self) -> proto::HelloV2 {
        let mut hello = proto::HelloV2 {
            role: self.role.number(),
            host_id: self.host_id.0.to_vec(),
            feature: self.features.clone(),
            ..proto::HelloV2::default()
        };
        match &self.role {
            Role::Command { token, services, last_key, capacity } => {
                hello.weight = (capacity.weight != WEIGHT_DEFAULT).then_some(capacity.weight);
                hello.sessions_max = capacity.sessions_max;
                hello.channel_key = last_key.as_ref().map(|key| key.expose().to_vec());
                hello.token = token.as_ref().map(|token| token.expose().to_owned());
                hello.service.clone_from(services);
            }
            Role::Data { channel_key, service } => {
                hello.channel_key = Some(channel_key.expose().to_vec());
                hello.service = vec![service.clone()];
            }
            Role::Client | Role::Relay | Role::Unknown(_) => {}
        }
        hello
    }

    fn from_proto(hello: proto::HelloV2) -> Result<HelloV2, MessageError> {
        let host_id = HostId(sixteen(HELLO, "host_id", &hello.host_id)?);
        let features = hello.feature.clone();
        let role = Role::from_proto(hello)?;
        Ok(HelloV2 { host_id, role, features })
    }
}

impl Role {
    const COMMAND: i32 = 1;
    const DATA: i32 = 2;
    const CLIENT: i32 = 3;
    const RELAY: i32 = 4;

    fn number(&self) -> i32 {
        match self {
            Role::Command { .. } => Role::COMMAND,
            Role::Data { .. } => Role::DATA,
            Role::Client => Role::CLIENT,
            Role::Relay => Role::RELAY,
            Role::Unknown(number) => *number,
        }
    }

    fn from_proto(hello: proto::HelloV2) -> Result<Role, MessageError> {
        match hello.role {
            Role::COMMAND => {
                let token = hello.token.map(Token::new);
                if let Some(token) = &token {
                    token.check_len(HELLO)?;
                }
                let last_key = hello.channel_key.map(|key| sixteen(HELLO, "channel_key", &key));
                let last_key = last_key.transpose()?.map(ChannelKey::new);
                let capacity = capacity(hello.weight, hello.sessions_max)?;
                Ok(Role::Command { token, services: services(hello.service)?, last_key, capacity })
            }
            Role::DATA => {
                let channel_key = hello.channel_key.unwrap_or_default();
                let channel_key = ChannelKey::new(sixteen(HELLO, "channel_key", &channel_key)?);
                Ok(Role::Data { channel_key, service: only_service(hello.service)? })
            }
            Role::CLIENT => Ok(Role::Client),
            Role::RELAY => Ok(Role::Relay),
            number => Ok(Role::Unknown(number)),
        }
    }
}

const HELLO: &str = "hello";

fn capacity(weight: Option<u32>, sessions_max: Option<u32>) -> Result<Capacity, MessageError> {
    let weight = weight.unwrap_or(WEIGHT_DEFAULT);
    if weight > WEIGHT_MAX {
        return Err(malformed(HELLO, format!("weight {weight} exceeds {WEIGHT_MAX}")));
    }
    // Who takes none would not have come: 0 is a number that was left out.
    let sessions_max = sessions_max.filter(|max| *max > 0);
    Ok(Capacity { weight: weight.max(1), sessions_max })
}

fn services(names: Vec<String>) -> Result<Vec<String>, MessageError> {
    match names.len() {
        0 => Err(missing(HELLO, "service")),
        1..=SERVICES_MAX => {
            names.into_iter().map(|name| service_name(HELLO, "service", name)).collect()
        }
        count => Err(malformed(HELLO, format!("{count} services exceed {SERVICES_MAX}"))),
    }
}

fn only_service(names: Vec<String>) -> Result<String, MessageError> {
    match <[String; 1]>::try_from(names) {
        Ok([name]) => service_name(HELLO, "service", name),
        Err(none) if none.is_empty() => Err(missing(HELLO, "service")),
        Err(many) => Err(malformed(HELLO, format!("{} services, expected 1", many.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_of_another_version_is_refused() {
        for version in [0, 2, -1, i32::MAX] {
            let frame = Hello { version, v2: None }.encode();
            let refused = Err(MessageError::UnsupportedVersion { version });
            assert_eq!(Hello::decode(&frame[4..]), refused);
        }
    }

    #[test]
    fn a_hello_without_version_is_refused() {
        let refused = Err(MessageError::UnsupportedVersion { version: 0 });
        assert_eq!(Hello::decode(b""), refused);
        // One of version 2 too: its field 16 does not stand in for the version.
        let v2 = HelloV2 { host_id: HostId([7; 16]), role: Role::Client, features: vec![] };
        let frame = Hello { version: 0, v2: Some(v2) }.encode();
        assert_eq!(Hello::decode(&frame[4..]), refused);
    }

    #[test]
    fn what_a_role_takes_must_be_there_and_be_what_it_must_be() {
        let key = Some(vec![7; 16]);
        for (role, token, channel_key, services, refused) in [
            (1, None, None, vec![], "hello without service"),
            (1, None, None, vec!["a"; 65], "malformed hello: 65 services exceed 64"),
            (1, None, None, vec!["a", ""], "hello without service"),
            (1, Some(257), None, vec!["a"], "malformed hello: token of 257 bytes exceeds 256"),
            (1, None, Some(vec![7; 15]), vec!["a"], KEY_OF_15_BYTES),
            (2, None, None, vec!["a"], "hello without channel_key"),
            (2, None, Some(vec![]), vec!["a"], "hello without channel_key"),
            (2, None, Some(vec![7; 15]), vec!["a"], KEY_OF_15_BYTES),
            (2, None, key.clone(), vec![], "hello without service"),
            (2, None, key.clone(), vec!["a", "b"], "malformed hello: 2 services, expected 1"),
            (2, None, key, vec!["a_b"], NO_SERVICE_NAME),
        ] {
            let hello = proto::HelloV2 {
                role,
                host_id: vec![7; 16],
                token: token.map(|len| "s".repeat(len)),
                channel_key,
                service: services.into_iter().map(str::to_owned).collect(),
                ..proto::HelloV2::default()
            };
            assert_eq!(decode(hello).unwrap_err().to_string(), refused);
        }
    }

    #[test]
    fn what_a_host_takes_is_within_bounds() {
        let capacity = |weight, sessions_max| {
            let service = vec!["a".to_owned()];
            let (role, host_id) = (Role::COMMAND, vec![7; 16]);
            let default = proto::HelloV2::default();
            let hello = proto::HelloV2 { role, host_id, service, weight, sessions_max, ..default };
            decode(hello).map(|hello| match hello.role {
                Role::Command { capacity, .. } => capacity,
                role => panic!("{role:?}"),
            })
        };
        assert_eq!(capacity(None, None), Ok(Capacity { weight: 100, sessions_max: None }));
        assert_eq!(capacity(Some(0), Some(0)), Ok(Capacity { weight: 1, sessions_max: None }));
        let most = Capacity { weight: 10_000, sessions_max: Some(u32::MAX) };
        assert_eq!(capacity(Some(10_000), Some(u32::MAX)), Ok(most));
        let refused = capacity(Some(10_001), None).unwrap_err().to_string();
        assert_eq!(refused, "malformed hello: weight 10001 exceeds 10000");
    }

    const KEY_OF_15_BYTES: &str = "malformed hello: channel_key of 15 bytes, expected 16";
    const NO_SERVICE_NAME: &str =
        "malformed hello: service \"a_b\", expected a-z, 0-9, and - in between";

    #[test]
    fn a_hello_of_version_2_without_a_host_id_of_16_bytes_is_refused_in_any_role() {
        for role in [-1, 0, 1, 2, 3, 4, 5] {
            let hello = proto::HelloV2 { role, ..proto::HelloV2::default() };
            assert_eq!(decode(hello.clone()), Err(missing("hello", "host_id")));
            for len in [1, 15, 17] {
                let hello = proto::HelloV2 { host_id: vec![7; len], ..hello.clone() };
                let detail = format!("host_id of {len} bytes, expected 16");
                assert_eq!(decode(hello), Err(malformed("hello", detail)));
            }
        }
    }

    #[test]
    fn a_role_that_we_do_not_have_is_read_whatever_comes_with_it() {
        for (number, role) in [
            (3, Role::Client),
            (4, Role::Relay),
            (0, Role::Unknown(0)),
            (5, Role::Unknown(5)),
            (-1, Role::Unknown(-1)),
        ] {
            let hello = proto::HelloV2 {
                role: number,
                host_id: vec![7; 16],
                token: Some("s".repeat(300)),
                channel_key: Some(vec![7]),
                service: vec![String::new(), "A".to_owned()],
                feature: vec![u32::MAX],
                weight: Some(u32::MAX),
                sessions_max: Some(0),
            };
            let expected = HelloV2 { host_id: HostId([7; 16]), role, features: vec![u32::MAX] };
            assert_eq!(decode(hello), Ok(expected));
        }
    }

    #[test]
    fn what_belongs_to_another_role_is_ignored() {
        let command = proto::HelloV2 {
            role: 1,
            host_id: vec![7; 16],
            token: None,
            service: vec!["a".to_owned()],
            ..proto::HelloV2::default()
        };
        let data = proto::HelloV2 {
            role: 2,
            token: Some("s".repeat(300)),
            channel_key: Some(vec![9; 16]),
            ..command
        };
        let channel_key = ChannelKey::new([9; 16]);
        let role = Role::Data { channel_key, service: "a".to_owned() };
        assert_eq!(decode(data).map(|hello| hello.role), Ok(role));
    }

    #[test]
    fn a_hello_shows_no_secret() {
        let token = Token::new("rls_id.secret".to_owned());
        let services = vec!["ssh".to_owned()];
        let key = ChannelKey::new(*b"a key to be seen");
        let capacity = Capacity::default();
        for role in [
            Role::Command { token: Some(token), services, last_key: Some(key), capacity },
            Role::Data { channel_key: key, service: "ssh".to_owned() },
        ] {
            let v2 = Some(HelloV2 { host_id: HostId([7; 16]), role, features: vec![] });
            let shown = format!("{:?}", Hello { version: 1, v2 });
            assert!(shown.contains("***"), "{shown}");
            assert!(!shown.contains("secret") && !shown.contains("97"), "{shown}");
        }
    }

    /// As a peer that checks nothing would send it.
    fn decode(hello: proto::HelloV2) -> Result<HelloV2, MessageError> {
        let frame = frame::encode(&proto::Hello { version: 1, v2: Some(hello) });
        Hello::decode(&frame[4..]).map(|hello| hello.v2.unwrap())
    }
}
