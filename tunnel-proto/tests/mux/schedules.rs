//! Whatever happens, in whatever order, two machines do what the model allows, come to an end, and hold nothing then.

use proptest::prelude::*;

use crate::{adversary, world};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn two_machines_do_what_the_model_allows(
        setup in any::<[u8; 4]>(),
        ops in prop::collection::vec(any::<[u8; 4]>(), 0..80),
    ) {
        world::run(setup, ops);
    }

    #[test]
    fn a_machine_bears_any_peer_or_closes_with_the_right_code(
        setup in any::<[u8; 4]>(),
        ops in prop::collection::vec(any::<[u8; 4]>(), 0..80),
    ) {
        adversary::run(setup, ops);
    }
}

/// `MUX_CASES` makes it a long run.
fn cases() -> u32 {
    let set = std::env::var("MUX_CASES").ok();
    set.map_or(10_000, |cases| cases.parse().unwrap())
}
