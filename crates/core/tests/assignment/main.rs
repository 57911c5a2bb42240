//! Generated histories of hosts of both versions, grants, channels and clients, in any order: after each step the book's own
//! invariants hold, and everything it decided is what a plain reading of the rules decides.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod clients;
mod hosts;
mod perform;
mod returns;
mod steps;
mod world;

use proptest::prelude::*;
use world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_the_rules(
        setting in steps::setting(),
        steps in steps::history(),
    ) {
        let mut world = World::new(setting);
        for step in steps {
            world.take_step(step);
            world.check();
        }
    }
}
