//! What a session costs in the book of a host, while so many channels wait.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use relayserver_core::Time;
use relayserver_core::keeper::{Keeper, Output, PoolBounds, Slot};

/// A host whose pool is full.
struct Host {
    keeper: Keeper,
    idle: Vec<Slot>,
    next_id: i32,
}

impl Host {
    fn new(pool: usize) -> Host {
        let mut seed = 1_u64;
        let dice = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        };
        let keeper = Keeper::new(&[PoolBounds::new(pool, pool)], Box::new(dice));
        let mut host = Host { keeper, idle: Vec::new(), next_id: 1 };
        host.keeper.handle_timeout(Time::ZERO);
        host.keeper.handle_command_up(Time::ZERO);
        host.keeper.handle_command_answered(Time::ZERO);
        while host.perform() {}
        assert_eq!(host.idle.len(), pool);
        host
    }

    /// Answers all that was dialled. Whether anything was.
    fn perform(&mut self) -> bool {
        let mut dialled = Vec::new();
        while let Some(output) = self.keeper.poll_output() {
            if let Output::DialChannel(slot, _) = output {
                dialled.push(slot);
            }
        }
        for slot in &dialled {
            self.next_id = self.next_id.wrapping_add(1).max(1);
            self.keeper.handle_answered(Time::ZERO, *slot, self.next_id);
            self.idle.push(*slot);
        }
        !dialled.is_empty()
    }

    /// A client takes a channel, and another is dialled in its place.
    fn session(&mut self) {
        if let Some(slot) = self.idle.pop() {
            self.keeper.handle_first_byte(Time::ZERO, slot);
        }
        while self.perform() {}
        self.keeper.poll_timeout();
    }
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a session, of a pool of");
    for pool in [10, 100, 1000] {
        let mut host = Host::new(pool);
        group.bench_function(BenchmarkId::from_parameter(pool), |it| it.iter(|| host.session()));
    }
    group.finish();
}

criterion_group!(benches, sessions);
criterion_main!(benches);
