//! How quiet the machine is: fixed work, which takes longer where something else runs.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;

/// What is walked through: more than a processor's own caches hold, less than the one that processors share.
const WALK_BYTES: usize = 4 * 1024 * 1024;
/// How often all of it.
const ROUNDS: u32 = 8;

/// How long fixed work took on every processor at once, the slowest one's time: more than elsewhere in the same run means
/// that something else ran.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    /// Of arithmetic alone.
    pub arithmetic: Duration,
    /// Of a step from one cache line to another one in 4 MiB. It grows when others on the same hardware use the cache that
    /// processors share, also those of other virtual machines, which arithmetic does not notice.
    pub memory: Duration,
}

impl Calibration {
    /// Takes the time.
    #[must_use]
    pub fn now(cpus: usize) -> Self {
        let start = Instant::now();
        on_each(cpus, compute);
        let arithmetic = start.elapsed();
        Self {
            arithmetic,
            memory: on_each(cpus, walk).into_iter().max().unwrap_or_default(),
        }
    }
}

fn on_each<T: Send>(cpus: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn compute() {
    let mut state = 1_u64;
    for _ in 0..20_000_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}

/// Each line says which one is next, so no step begins before the last one has ended.
fn walk() -> Duration {
    /// What memory moves at once, on most processors.
    #[derive(Clone)]
    #[repr(align(64))]
    struct Line(usize);
    let mut lines = vec![Line(0); WALK_BYTES / size_of::<Line>()];
    let order = cycle(lines.len());
    for (line, next) in lines.iter_mut().zip(order) {
        line.0 = next;
    }
    let steps = ROUNDS * u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let start = Instant::now();
    let mut at = 0;
    for _ in 0..steps {
        at = lines[at].0;
    }
    black_box(at);
    start.elapsed() / steps
}

/// Who follows whom in one cycle of all, in an order that no processor foresees (Sattolo's algorithm).
fn cycle(len: usize) -> Vec<usize> {
    let mut random = Rng::with_seed(1);
    let mut next: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        next.swap(last, random.usize(..last));
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_comes_everywhere() {
        let next = cycle(1000);
        let mut seen = vec![false; next.len()];
        let mut at = 0;
        for _ in 0..next.len() {
            seen[at] = true;
            at = next[at];
        }
        assert_eq!(at, 0);
        assert!(seen.into_iter().all(|seen| seen));
    }

    #[test]
    fn work_takes_time() {
        let Calibration { arithmetic, memory } = Calibration::now(2);
        assert!(!arithmetic.is_zero() && !memory.is_zero());
    }
}
