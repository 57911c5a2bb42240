//! What holds for any bytes in any chunks: round trips, chunking, hostile input, unknown fields.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::{self, Decoder};
use relayserver_wire::hello::{Answer, Hello};
use relayserver_wire::{FRAME_MAX, FrameError, HEADER_LEN};

proptest! {
    #[test]
    fn an_answer_survives_the_way(answer in answers()) {
        prop_assert_eq!(Answer::decode(&only_payload(&answer.encode())), Ok(answer));
    }

    #[test]
    fn an_announcement_survives_the_way(announcement in announcements()) {
        let payload = only_payload(&announcement.encode());
        prop_assert_eq!(Announcement::decode(&payload), Ok(announcement));
    }

    #[test]
    fn unknown_fields_are_ignored(
        answer in answers(),
        announcement in announcements(),
        (before, after) in (unknown_fields(), unknown_fields()),
    ) {
        let around = |frame: Vec<u8>| [&before, only_payload(&frame).as_slice(), &after].concat();
        let hello = Hello { version: 1 };
        prop_assert_eq!(Hello::decode(&around(hello.encode())), Ok(hello));
        prop_assert_eq!(Answer::decode(&around(answer.encode())), Ok(answer));
        prop_assert_eq!(Announcement::decode(&around(announcement.encode())), Ok(announcement));
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
    fn any_payload_is_decoded_or_refused(payload in vec(any::<u8>(), 0..64)) {
        if let Ok(hello) = Hello::decode(&payload) {
            prop_assert_eq!(hello.version, 1);
        }
        if let Ok(answer) = Answer::decode(&payload) {
            prop_assert_eq!(Answer::decode(&only_payload(&answer.encode())), Ok(answer));
        }
        if let Ok(it) = Announcement::decode(&payload) {
            prop_assert_eq!(Announcement::decode(&only_payload(&it.encode())), Ok(it));
        }
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

fn answers() -> impl Strategy<Value = Answer> {
    (any::<i32>(), ".{1,80}", "[0-9]{1,5}").prop_map(|(channel_id, relay_host, relay_port)| {
        Answer { channel_id, relay_host, relay_port }
    })
}

fn announcements() -> impl Strategy<Value = Announcement> {
    prop_oneof![
        any::<i32>().prop_map(|channel_id| Announcement::Open { channel_id }),
        any::<i32>().prop_map(|channel_id| Announcement::Drop { channel_id }),
        any::<i32>()
            .prop_filter("known", |message_type| !matches!(message_type, 0 | 1))
            .prop_map(|message_type| Announcement::Unknown { message_type }),
    ]
}

/// Fields with numbers that no message of version 1 has, of each wire type.
fn unknown_fields() -> impl Strategy<Value = Vec<u8>> {
    let field = (5..16_u8).prop_flat_map(|number| {
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
