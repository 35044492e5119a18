//! The power of two choices.

use super::Load;

/// Up to this many candidates are all looked at; among more, two are drawn first.
const FEW: usize = 8;

/// Draws two candidates and gives the index of the fitter one. `load` says how fit the one at an index is, or `None`
/// if it cannot be used.
///
/// Two draws spread streams nearly as well as looking for the least loaded, without sending every newcomer to the same
/// one (Mitzenmacher, 2001). Draining and suspect candidates are taken only when there is no other, which is
/// found out by looking at all.
pub fn choose(len: usize, load: impl Fn(usize) -> Option<Load>, rng: &mut fastrand::Rng) -> Option<usize> {
    if len > FEW {
        let drawn = two(len, rng).map(|index| Some((load(index)?, index)));
        let fit = drawn.into_iter().flatten().filter(|(load, _)| tier(load) == BEST);
        if let Some((_, index)) = fit.min_by_key(|(load, _)| *load) {
            return Some(index);
        }
    }
    let usable: Vec<_> = (0..len).filter_map(|index| Some((load(index)?, index))).collect();
    let best = usable.iter().map(|(load, _)| tier(load)).min()?;
    let peers: Vec<_> = usable.into_iter().filter(|(load, _)| tier(load) == best).collect();
    if let [(_, only)] = peers[..] {
        return Some(only);
    }
    let drawn = two(peers.len(), rng).map(|at| peers[at]);
    drawn.into_iter().min_by_key(|(load, _)| *load).map(|(_, index)| index)
}

/// Draining, suspect.
const BEST: (bool, bool) = (false, false);

fn tier(load: &Load) -> (bool, bool) {
    (load.draining, load.suspect)
}

/// Two different indices below `len`, which is at least two, each pair as likely as any other and in random order.
fn two(len: usize, rng: &mut fastrand::Rng) -> [usize; 2] {
    let first = rng.usize(..len);
    let second = rng.usize(..len - 1);
    [first, if second >= first { second + 1 } else { second }]
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn loads() -> impl Strategy<Value = Vec<Option<Load>>> {
        let load =
            (any::<bool>(), any::<bool>(), 0..6u64, 0..3u32).prop_map(|(draining, suspect, streams, unanswered)| {
                Load {
                    draining,
                    suspect,
                    streams,
                    unanswered,
                }
            });
        vec(option::weighted(0.8, load), 0..24)
    }

    proptest! {
        #[test]
        fn one_is_chosen_whenever_one_can_be_used(loads in loads(), seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let chosen = choose(loads.len(), |index| loads[index], &mut rng);
            prop_assert_eq!(chosen.is_some(), loads.iter().any(Option::is_some));
            prop_assert!(chosen.is_none_or(|index| loads[index].is_some()));
        }

        #[test]
        fn draining_and_suspect_ones_come_last(loads in loads(), seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            if let Some(index) = choose(loads.len(), |index| loads[index], &mut rng) {
                let best = loads.iter().flatten().map(tier).min();
                prop_assert_eq!(loads[index].as_ref().map(tier), best);
            }
        }

        #[test]
        fn of_equal_ones_never_the_most_loaded_is_chosen(mut streams in vec(0..1000u64, 2..24), seed: u64) {
            streams.sort_unstable();
            streams.dedup();
            prop_assume!(streams.len() >= 2);
            let load = |index: usize| Some(Load { draining: false, suspect: false, streams: streams[index], unanswered: 0 });
            let chosen = choose(streams.len(), load, &mut fastrand::Rng::with_seed(seed));
            prop_assert_ne!(chosen, Some(streams.len() - 1));
        }

        #[test]
        fn two_draws_differ(len in 2..50usize, seed: u64) {
            let [first, second] = two(len, &mut fastrand::Rng::with_seed(seed));
            prop_assert!(first != second && first < len && second < len);
        }
    }

    #[test]
    fn idle_candidates_share_the_streams() {
        let mut rng = fastrand::Rng::with_seed(7);
        for len in [2, 3, 8, 9, 40] {
            let mut streams = vec![0_u64; len];
            for _ in 0..len * 100 {
                let load = |index: usize| {
                    Some(Load {
                        draining: false,
                        suspect: false,
                        streams: streams[index],
                        unanswered: 0,
                    })
                };
                let index = choose(len, load, &mut rng).unwrap();
                streams[index] += 1;
            }
            assert!(streams.iter().all(|count| (90..=110).contains(count)), "{streams:?}");
        }
    }
}
