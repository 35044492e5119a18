//! How long a small exchange takes beside busy streams.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tunnel_core::Duplex;

use crate::{Bulk, World};

/// What an exchange moves in each direction.
const SMALL: usize = 100;
/// How often one is made.
const EXCHANGES: usize = 200;

/// The 99th percentile of the time of an exchange on a stream that is open.
async fn p99(near: &mut Duplex, far: &mut Duplex) -> Duration {
    let mut times = Vec::new();
    for _ in 0..EXCHANGES {
        let start = Instant::now();
        for (from, to) in [(&mut near.tx, &mut far.rx), (&mut far.tx, &mut near.rx)] {
            from.send_all(Bytes::from_static(&[7; SMALL])).await.unwrap();
            let mut received = 0;
            while received < SMALL {
                received += to.recv(SMALL).await.unwrap().unwrap().len();
            }
        }
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[EXCHANGES * 99 / 100 - 1]
}

#[tokio::test(start_paused = true)]
async fn bulk_streams_do_not_stand_in_the_way_of_a_small_exchange() {
    let world = World::gigabit(Duration::from_millis(10));
    let (mut near, mut far) = world.stream().await;
    let idle = p99(&mut near, &mut far).await;
    assert!(idle >= Duration::from_millis(10), "{idle:?} is less than a round trip");

    let bulk = Bulk::start(&world, 16).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let busy = p99(&mut near, &mut far).await;
    let frame = Duration::from_nanos(16 * 1024 * 8);
    assert!(busy <= 3 * idle + frame, "{busy:?} beside bulk, {idle:?} alone");
    let speed = bulk.speed(Duration::from_millis(100)).await;
    assert!(
        speed >= 0.9 * crate::GIGABIT as f64,
        "the path was not full: {speed:.0} B/s"
    );
}
