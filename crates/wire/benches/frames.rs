//! What a message costs on its way into bytes and back.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on is over")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relayserver_wire::command::Announcement;
use relayserver_wire::frame::Decoder;
use relayserver_wire::hello::{Answer, AnswerV2, Hello, HelloV2, Role, Welcome};
use relayserver_wire::secret::ChannelKey;
use relayserver_wire::start::{Start, Verdict};
use relayserver_wire::{FRAME_MAX, HostId, SessionId};

/// The bytes before a payload: its length.
const HEADER_LEN: usize = 4;

fn hello() -> Hello {
    let role = Role::Data { channel_key: ChannelKey::new([7; 16]), service: "ssh".to_owned() };
    Hello { version: 1, v2: Some(HelloV2 { host_id: HostId([1; 16]), role, features: vec![] }) }
}

fn answer() -> Answer {
    Answer {
        channel_id: 17,
        relay_host: "203.0.113.9".to_owned(),
        relay_port: "8002".to_owned(),
        v2: Some(AnswerV2::Welcome(Welcome::default())),
    }
}

fn start() -> Start {
    Start {
        session_id: SessionId([2; 16]),
        service: "ssh".to_owned(),
        client_addr: Some("198.51.100.4:50123".parse().unwrap()),
        via: "tcp".to_owned(),
    }
}

fn ended() -> Announcement {
    Announcement::SessionEnded {
        session_id: SessionId([2; 16]),
        reason: "finished".to_owned(),
        bytes_to_host: 64,
        bytes_to_client: 4096,
    }
}

/// The four messages of a new session, and the one at its end.
fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let (hello, answer, start, ended) = (hello(), answer(), start(), ended());
    group.bench_function("hello", |it| it.iter(|| black_box(&hello).encode()));
    group.bench_function("answer", |it| it.iter(|| black_box(&answer).encode()));
    group.bench_function("start", |it| it.iter(|| black_box(&start).encode()));
    group.bench_function("accepted", |it| it.iter(|| black_box(&Verdict::Accepted).encode()));
    group.bench_function("session ended", |it| it.iter(|| black_box(&ended).encode()));
    group.finish();

    let payload = |frame: Vec<u8>| frame.get(HEADER_LEN..).unwrap().to_vec();
    let mut group = criterion.benchmark_group("decode");
    let (hello, answer) = (payload(hello.encode()), payload(answer.encode()));
    let (start, ended) = (payload(start.encode()), payload(ended.encode()));
    let accepted = payload(Verdict::Accepted.encode());
    group.bench_function("hello", |it| it.iter(|| Hello::decode(black_box(&hello)).unwrap()));
    group.bench_function("answer", |it| it.iter(|| Answer::decode(black_box(&answer)).unwrap()));
    group.bench_function("start", |it| it.iter(|| Start::decode(black_box(&start)).unwrap()));
    group.bench_function("accepted", |it| {
        it.iter(|| Verdict::decode(black_box(&accepted)).unwrap());
    });
    group.bench_function("session ended", |it| {
        it.iter(|| Announcement::decode(black_box(&ended)).unwrap());
    });
    group.finish();
}

/// A thousand announcements that come as they come.
fn decoder(criterion: &mut Criterion) {
    let stream: Vec<u8> = (0..1000).flat_map(|_| ended().encode()).collect();
    let mut group = criterion.benchmark_group("a thousand frames");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    for (name, len) in [("at once", stream.len()), ("in pieces of 1448", 1448), ("byte by byte", 1)]
    {
        group.bench_function(name, |it| {
            it.iter(|| {
                let mut decoder = Decoder::new(FRAME_MAX);
                let mut frames = 0;
                for mut piece in stream.chunks(len) {
                    while let Some(frame) = decoder.next(&mut piece).unwrap() {
                        black_box(frame);
                        frames += 1;
                    }
                }
                assert_eq!(frames, 1000);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, messages, decoder);
criterion_main!(benches);
