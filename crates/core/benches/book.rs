//! What a client costs in the relay's book, while others are there.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on is over")]

use std::net::Ipv4Addr;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use relayserver_core::{
    Book, ChannelId, CommandId, End, Handles, HostId, Input, Limits, Output, Policy, Reason,
    ServiceName, SessionId, Time,
};

struct Numbers;

impl Handles for Numbers {
    type Command = u64;
    type Channel = u64;
    type Client = u64;
    type Stop = u64;
}

/// A relay's book, and what is to be told to it next.
struct World {
    book: Book<Numbers>,
    hosts: u64,
    next: u64,
}

impl World {
    /// With so many hosts, and so many sessions that run.
    fn new(hosts: u64, sessions: u64) -> World {
        let limits = Limits { clients_max: 100_000, channels_max: 200_000, ..Limits::default() };
        let book = Book::new(limits, Policy::default(), ChannelId::new(1).unwrap());
        let mut world = World { book, hosts, next: 1 };
        for number in 0..hosts {
            let host = host(number);
            world.told(Input::CommandUp {
                command: CommandId(number),
                host,
                membership: None,
                handle: number,
            });
        }
        for _ in 0..sessions {
            world.session_begins();
        }
        world
    }

    /// Tells the book, and does all that it says. Gives the channel that it reserved, or assigned.
    fn told(&mut self, input: Input<Numbers>) -> Option<ChannelId> {
        self.book.handle(Time::ZERO, input);
        let mut channel = None;
        while let Some(output) = self.book.poll_output() {
            match output {
                Output::Reserved { channel: reserved } => channel = Some(reserved),
                Output::Assigned { assignment, .. } => channel = Some(assignment.channel),
                _ => {}
            }
        }
        channel
    }

    fn channel_waits(&mut self) {
        self.next += 1;
        let input = Input::ReserveChannel {
            host: host(self.next % self.hosts),
            service: ServiceName::default(),
            key: None,
        };
        let channel = self.told(input).unwrap();
        self.told(Input::ChannelIdle { channel, handle: self.next });
    }

    fn client_comes(&mut self) -> SessionId {
        self.next += 1;
        let session = SessionId(u128::from(self.next));
        let service = ServiceName::default();
        let assigned = self.told(Input::ClientArrived { session, service, client: 0, stop: 0 });
        assert!(assigned.is_some(), "no channel waits");
        session
    }

    fn session_begins(&mut self) -> SessionId {
        self.channel_waits();
        self.client_comes()
    }

    fn session_ends(&mut self, session: SessionId) {
        let end = End { reason: Reason::Finished, bytes_to_host: 64, bytes_to_client: 64 };
        self.told(Input::SessionEnded { session, end });
        self.book.poll_timeout();
    }
}

fn host(number: u64) -> HostId {
    let address = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap());
    HostId::from_address(address.into())
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a session, of so many");
    for count in [0, 100, 10_000] {
        let mut world = World::new(10, count);
        group.bench_function(BenchmarkId::from_parameter(count), |it| {
            it.iter(|| {
                let session = world.session_begins();
                world.session_ends(session);
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("a session, of so many hosts");
    for hosts in [1, 100, 1000] {
        let mut world = World::new(hosts, 2 * hosts);
        group.bench_function(BenchmarkId::from_parameter(hosts), |it| {
            it.iter(|| {
                let session = world.session_begins();
                world.session_ends(session);
            });
        });
    }
    group.finish();
}

/// How long it takes to do without a host that has so many sessions and channels.
fn a_host_leaves(criterion: &mut Criterion) {
    criterion.bench_function("the host of 1000 sessions leaves", |it| {
        it.iter_batched_ref(
            || World::new(1, 1000),
            |world| world.told(Input::CommandDown { command: CommandId(0) }),
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, sessions, a_host_leaves);
criterion_main!(benches);
