//! What holds for any bytes in any chunks: round trips, chunking, hostile input, unknown fields.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::{self, Decoder};
use relayserver_wire::hello::{
    Answer, AnswerV2, Capacity, Hello, HelloV2, Refusal, Role, ServedService, WEIGHT_MAX, Welcome,
};
use relayserver_wire::secret::{ChannelKey, Token};
use relayserver_wire::start::{Start, Verdict};
use relayserver_wire::{
    FRAME_MAX, FrameError, HEADER_LEN, HostId, MessageError, START_FRAME_MAX, SessionId,
    VERDICT_FRAME_MAX, is_service_name,
};

proptest! {
    #[test]
    fn every_message_survives_the_way(
        hello in hellos(),
        answer in answers(),
        announcement in announcements(),
        start in starts(),
        verdict in verdicts(),
    ) {
        prop_assert_eq!(Hello::decode(&only_payload(&hello.encode())), Ok(hello));
        prop_assert_eq!(Answer::decode(&only_payload(&answer.encode())), Ok(answer));
        let payload = only_payload(&announcement.encode());
        prop_assert_eq!(Announcement::decode(&payload), Ok(announcement));
        let payload = only_payload(&start.encode());
        prop_assert!(payload.len() <= START_FRAME_MAX);
        prop_assert_eq!(Start::decode(&payload), Ok(start));
        let payload = only_payload(&verdict.encode());
        prop_assert!(payload.len() <= VERDICT_FRAME_MAX);
        prop_assert_eq!(Verdict::decode(&payload), Ok(verdict));
    }

    #[test]
    fn unknown_fields_are_ignored(
        (hello, answer) in (hellos(), answers()),
        announcement in announcements(),
        (start, verdict) in (starts(), verdicts()),
        (before, after) in (unknown_fields(), unknown_fields()),
    ) {
        let around = |frame: Vec<u8>| [&before, only_payload(&frame).as_slice(), &after].concat();
        prop_assert_eq!(Hello::decode(&around(hello.encode())), Ok(hello));
        prop_assert_eq!(Answer::decode(&around(answer.encode())), Ok(answer));
        prop_assert_eq!(Announcement::decode(&around(announcement.encode())), Ok(announcement));
        prop_assert_eq!(Start::decode(&around(start.encode())), Ok(start));
        prop_assert_eq!(Verdict::decode(&around(verdict.encode())), Ok(verdict));
    }

    #[test]
    fn unknown_fields_within_what_version_2_adds_are_ignored(
        hello in hellos(),
        answer in answers(),
        unknown in unknown_fields(),
    ) {
        // A field 16 that stands a second time is merged with the first, as protobuf does.
        let more = [&[0x82, 0x01], varint(unknown.len()).as_slice(), &unknown].concat();
        if hello.v2.is_some() {
            let payload = [only_payload(&hello.encode()), more.clone()].concat();
            prop_assert_eq!(Hello::decode(&payload), Ok(hello));
        }
        if answer.v2.is_some() {
            let payload = [only_payload(&answer.encode()), more].concat();
            prop_assert_eq!(Answer::decode(&payload), Ok(answer));
        }
    }

    #[test]
    fn what_version_2_adds_to_a_hello_is_all_that_differs(hello in hellos()) {
        let frame = hello.encode();
        prop_assert_eq!(&frame[4..6], b"\x08\x01");
        let of_version_1 = Hello { v2: None, ..hello.clone() };
        prop_assert_eq!(frame.len() == 6, hello == of_version_1);
        prop_assert_eq!(of_version_1.encode(), b"\x00\x00\x00\x02\x08\x01");
    }

    #[test]
    fn an_id_or_a_key_that_has_not_16_bytes_is_refused(
        id in vec(any::<u8>(), 0..40),
        key in vec(any::<u8>(), 0..40),
    ) {
        let service = b"\x2a\x03ssh".to_vec();
        let v2 = [b"\x08\x02".to_vec(), field(2, &id), field(4, &key), service].concat();
        let hello = [b"\x08\x01\x82\x01".to_vec(), varint(v2.len()), v2].concat();
        prop_assert_eq!(Hello::decode(&hello).is_ok(), id.len() == 16 && key.len() == 16);

        let start = [field(1, &id), b"\x12\x03ssh\x22\x03tcp".to_vec()].concat();
        prop_assert_eq!(Start::decode(&start).is_ok(), id.len() == 16);

        let v2 = field(2, &key);
        let address = b"\x12\x03::1\x1a\x048002\x82\x01".to_vec();
        let answer = [address, varint(v2.len()), v2].concat();
        prop_assert_eq!(Answer::decode(&answer).is_ok(), key.len() == 16);

        let ended = [field(1, &id), b"\x12\x08finished".to_vec()].concat();
        let head = b"\x08\x01\x10\x12\x92\x01".to_vec();
        let command = [head, varint(ended.len()), ended].concat();
        prop_assert_eq!(Announcement::decode(&command).is_ok(), id.len() == 16);
    }

    #[test]
    fn texts_that_are_decoded_are_what_they_must_be(
        service in prop_oneof!["[a-z0-9-]{0,70}", ".{0,10}"],
        reason in prop_oneof!["[a-z0-9_]{0,70}", ".{0,10}"],
    ) {
        let label = |text: &str| {
            let inner = text.trim_matches('-') == text;
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            inner && text.chars().all(allowed) && (1..=63).contains(&text.len())
        };
        prop_assert_eq!(is_service_name(&service), label(&service));
        let start = [field(1, &[7; 16]), field(2, service.as_bytes()), field(4, b"tcp")].concat();
        prop_assert_eq!(Start::decode(&start).is_ok(), label(&service));

        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let good = (1..=64).contains(&reason.len()) && reason.chars().all(word);
        prop_assert_eq!(Verdict::decode(&field(2, reason.as_bytes())).is_ok(), good);
    }

    #[test]
    fn neither_a_hello_nor_its_refusal_shows_the_token(
        token in "[!-~]{8,300}",
        service in "[a-c-]{0,3}",
    ) {
        let token_of_hello = Some(Token::new(token.clone()));
        let role = Role::Command {
            token: token_of_hello,
            services: vec![service],
            last_key: None,
            capacity: Capacity::default(),
        };
        let v2 = Some(HelloV2 { host_id: HostId([7; 16]), role, features: vec![] });
        let hello = Hello { version: 1, v2 };
        let shown = format!("{hello:?} {hello:#?}");
        prop_assert!(!shown.contains(&token), "{}", shown);
        if let Err(refused) = Hello::decode(&only_payload(&hello.encode())) {
            let shown = format!("{refused} {refused:?}");
            prop_assert!(!shown.contains(&token), "{}", shown);
        }
    }

    #[test]
    fn any_chunking_gives_the_same_payloads(
        payloads in vec(vec(any::<u8>(), 0..300), 0..8),
        chunk_lens in vec(1..40_usize, 1..20),
    ) {
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| framed(payload)).collect();
        prop_assert_eq!(decode_all(&stream, &[stream.len()], FRAME_MAX), (payloads.clone(), None));
        prop_assert_eq!(decode_all(&stream, &chunk_lens, FRAME_MAX), (payloads, None));
    }

    #[test]
    fn any_bytes_give_the_same_payloads_and_error_in_any_chunking(
        stream in hostile_streams(),
        chunk_lens in vec(1..40_usize, 1..20),
        max in 0..300_usize,
    ) {
        let whole = decode_all(&stream, &[stream.len()], max);
        prop_assert_eq!(decode_all(&stream, &chunk_lens, max), whole.clone());
        prop_assert_eq!(decode_all(&stream, &[1], max), whole);
    }

    #[test]
    fn any_payload_is_decoded_or_refused(payload in payloads()) {
        survives(&payload, Hello::decode, Hello::encode)?;
        survives(&payload, Answer::decode, Answer::encode)?;
        survives(&payload, Announcement::decode, Announcement::encode)?;
        survives(&payload, Start::decode, Start::encode)?;
        survives(&payload, Verdict::decode, Verdict::encode)?;
    }

    #[test]
    fn any_header_is_a_length_within_the_maximum_or_refused(header: [u8; HEADER_LEN], max: usize) {
        let announced = u32::from_be_bytes(header) as usize;
        let expected = match header[0] {
            0 if announced <= max => Ok(announced),
            0 => Err(FrameError::TooLarge { len: announced, max }),
            first => Err(FrameError::NotOurProtocol { first }),
        };
        prop_assert_eq!(frame::payload_len(header, max), expected);
    }
}

fn hellos() -> impl Strategy<Value = Hello> {
    let features = vec(any::<u32>(), 0..4);
    let v2 = (any::<[u8; 16]>(), roles(), features).prop_map(|(host_id, role, features)| {
        let host_id = HostId(host_id);
        HelloV2 { host_id, role, features }
    });
    option::of(v2).prop_map(|v2| Hello { version: 1, v2 })
}

fn roles() -> impl Strategy<Value = Role> {
    let token = option::of("[!-~]{0,256}".prop_map(Token::new));
    prop_oneof![
        (
            token,
            vec(service_names(), 1..=64),
            any::<Option<[u8; 16]>>().prop_map(|key| key.map(ChannelKey::new)),
            (1..=WEIGHT_MAX, option::of(1_u32..))
                .prop_map(|(weight, sessions_max)| Capacity { weight, sessions_max })
        )
            .prop_map(|(token, services, last_key, capacity)| Role::Command {
                token,
                services,
                last_key,
                capacity
            }),
        (any::<[u8; 16]>(), service_names()).prop_map(|(key, service)| {
            let channel_key = ChannelKey::new(key);
            Role::Data { channel_key, service }
        }),
        Just(Role::Client),
        Just(Role::Relay),
        any::<i32>()
            .prop_filter("known", |number| !matches!(number, 1..=4))
            .prop_map(Role::Unknown),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    (any::<i32>(), ".{1,80}", "[0-9]{1,5}", option::of(answers_v2())).prop_map(
        |(channel_id, relay_host, relay_port, v2)| Answer {
            channel_id,
            relay_host,
            relay_port,
            v2,
        },
    )
}

fn answers_v2() -> impl Strategy<Value = AnswerV2> {
    let refusal = (words(), option::of("\\PC{0,128}"), any::<Option<u32>>());
    let served = (service_names(), option::of("[!-~]{0,259}"))
        .prop_map(|(name, clients)| ServedService { name, clients });
    let welcome = (
        any::<Option<[u8; 16]>>(),
        vec(served, 0..4),
        vec(any::<u32>(), 0..4),
        any::<(Option<u32>, Option<u32>)>(),
    );
    prop_oneof![
        refusal.prop_map(|(reason, detail, retry_after_ms)| {
            AnswerV2::Refused(Refusal { reason, detail, retry_after_ms })
        }),
        welcome.prop_map(|(key, services, features, (suspect_after_ms, gone_after_ms))| {
            AnswerV2::Welcome(Welcome {
                channel_key: key.map(ChannelKey::new),
                services,
                features,
                suspect_after_ms,
                gone_after_ms,
            })
        }),
    ]
}

fn announcements() -> impl Strategy<Value = Announcement> {
    let ended = (any::<[u8; 16]>(), words(), any::<u64>(), any::<u64>());
    prop_oneof![
        any::<i32>().prop_map(|channel_id| Announcement::Open { channel_id }),
        any::<i32>().prop_map(|channel_id| Announcement::Drop { channel_id }),
        any::<u64>().prop_map(|nonce| Announcement::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Announcement::Pong { nonce }),
        ended.prop_map(|(id, reason, bytes_to_host, bytes_to_client)| {
            let session_id = SessionId(id);
            Announcement::SessionEnded { session_id, reason, bytes_to_host, bytes_to_client }
        }),
        (words(), any::<Option<u32>>()).prop_map(|(reason, retry_after_ms)| {
            Announcement::Leaving { reason, retry_after_ms }
        }),
        (service_names(), any::<u32>())
            .prop_map(|(service, idle)| Announcement::PoolWanted { service, idle }),
        (service_names(), any::<[u32; 2]>()).prop_map(|(service, [a, b])| {
            Announcement::PoolBounds { service, idle_min: a.min(b), idle_max: a.max(b) }
        }),
        (service_names(), any::<u32>())
            .prop_map(|(service, idle)| Announcement::PoolSurplus { service, idle }),
        any::<i32>()
            .prop_filter("known", |message_type| !matches!(message_type, 0 | 1 | 16..=22))
            .prop_map(|message_type| Announcement::Unknown { message_type }),
    ]
}

fn starts() -> impl Strategy<Value = Start> {
    let addr = any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip, port));
    (any::<[u8; 16]>(), service_names(), option::of(addr), words()).prop_map(
        |(id, service, client_addr, via)| {
            let session_id = SessionId(id);
            Start { session_id, service, client_addr, via }
        },
    )
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Accepted),
        option::of(words()).prop_map(|reason| Verdict::Rejected { reason }),
    ]
}

fn service_names() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
}

fn words() -> impl Strategy<Value = String> {
    "[a-z0-9_]{1,64}"
}

/// Anything, and messages of ours with one byte changed.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let frames = prop_oneof![
        hellos().prop_map(|it| it.encode()),
        answers().prop_map(|it| it.encode()),
        announcements().prop_map(|it| it.encode()),
        starts().prop_map(|it| it.encode()),
        verdicts().prop_map(|it| it.encode()),
    ];
    let changed = (frames, any::<prop::sample::Index>(), any::<u8>());
    prop_oneof![
        vec(any::<u8>(), 0..64),
        changed.prop_map(|(frame, place, byte)| {
            let mut payload = only_payload(&frame);
            *place.get_mut(&mut payload) = byte;
            payload
        }),
    ]
}

/// What was decoded is encoded to what is decoded to the same again.
fn survives<M: Debug + PartialEq>(
    payload: &[u8],
    decode: fn(&[u8]) -> Result<M, MessageError>,
    encode: fn(&M) -> Vec<u8>,
) -> Result<(), TestCaseError> {
    if let Ok(message) = decode(payload) {
        prop_assert_eq!(decode(&only_payload(&encode(&message))), Ok(message));
    }
    Ok(())
}

/// Fields with numbers that no message has, of each wire type.
fn unknown_fields() -> impl Strategy<Value = Vec<u8>> {
    let field = (9..16_u8).prop_flat_map(|number| {
        let key = move |wire_type: u8| vec![number << 3 | wire_type];
        prop_oneof![
            (0..128_u8).prop_map(move |varint| [key(0), vec![varint]].concat()),
            any::<[u8; 8]>().prop_map(move |fixed| [key(1), fixed.to_vec()].concat()),
            vec(any::<u8>(), 0..100).prop_map(move |bytes| {
                let len = u8::try_from(bytes.len()).unwrap();
                [key(2), vec![len], bytes].concat()
            }),
            any::<[u8; 4]>().prop_map(move |fixed| [key(5), fixed.to_vec()].concat()),
        ]
    });
    vec(field, 0..5).prop_map(|fields| fields.concat())
}

/// Frames, some of them too long, then anything.
fn hostile_streams() -> impl Strategy<Value = Vec<u8>> {
    let frames = vec(vec(any::<u8>(), 0..300), 0..6);
    (frames, vec(any::<u8>(), 0..50)).prop_map(|(payloads, garbage)| {
        let frames: Vec<u8> = payloads.iter().flat_map(|it| framed(it)).collect();
        [frames, garbage].concat()
    })
}

/// A field of bytes or text.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(value.len()), value.to_vec()].concat()
}

/// A length below 2^14.
fn varint(len: usize) -> Vec<u8> {
    let low = u8::try_from(len & 0x7f).unwrap();
    match u8::try_from(len >> 7).unwrap() {
        0 => vec![low],
        high => vec![low | 0x80, high],
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [&len.to_be_bytes(), payload].concat()
}

/// All that a decoder makes of a stream that arrives in chunks of `chunk_lens`, over and over.
fn decode_all(
    stream: &[u8],
    chunk_lens: &[usize],
    max: usize,
) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut decoder = Decoder::new(max);
    let mut payloads = Vec::new();
    let mut rest = stream;
    let mut chunk_lens = chunk_lens.iter().cycle();
    while !rest.is_empty() {
        let (mut chunk, behind) = rest.split_at((*chunk_lens.next().unwrap()).min(rest.len()));
        rest = behind;
        loop {
            match decoder.next(&mut chunk) {
                Ok(Some(payload)) => payloads.push(payload),
                Ok(None) => break assert!(chunk.is_empty(), "bytes left over"),
                Err(error) => return (payloads, Some(error)),
            }
        }
    }
    (payloads, None)
}

fn only_payload(frame: &[u8]) -> Vec<u8> {
    let (mut payloads, error) = decode_all(frame, &[frame.len()], FRAME_MAX);
    assert_eq!(error, None);
    assert_eq!(payloads.len(), 1);
    payloads.remove(0)
}
