//! Everything at once, on several threads.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tunnel_core::{CloseCode, Opener, Policy};

use crate::support::{Behaviour, World, claim, common_name, request};

/// Clients come and go, agents restart, the policy flips: no call hangs, and nothing is left in the books.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_busy_life() {
    let world = Arc::new(World::new());
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let world = Arc::clone(&world);
        clients.spawn(async move {
            let mut served = 0;
            for at in 0..200 {
                let Ok(opened) = world.server.open(request()).await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let (mut tx, mut rx) = (opened.stream.tx, opened.stream.rx);
                if tx.send_all(vec![client; 100].into()).await.is_err() || at % 3 == 0 {
                    continue;
                }
                if tx.finish().await.is_ok() && matches!(rx.recv(4096).await, Ok(Some(_))) {
                    served += 1;
                }
            }
            served
        });
    }
    let mut others = JoinSet::new();
    for name in ["a", "b", "c"] {
        let world = Arc::clone(&world);
        others.spawn(async move {
            let carrier = world.carrier.another(common_name(name));
            for generation in 0.. {
                let agent = world
                    .connect(&carrier, claim(name, generation), Behaviour::Echo)
                    .await
                    .unwrap();
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                match generation % 3 {
                    0 => agent.connection.close(CloseCode::DONE, ""),
                    1 => agent.connection.drain(),
                    _ => {} // The next generation takes over.
                }
            }
        });
    }
    others.spawn({
        let world = Arc::clone(&world);
        async move {
            loop {
                world.server.set_policy(Arc::new(Policy::deny_all()));
                tokio::task::yield_now().await;
                world.server.set_policy(Arc::new(Policy::allow_all()));
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    let served: usize = clients.join_all().await.into_iter().sum();
    assert!(served > 0);
    others.shutdown().await;
    assert_eq!(world.server.shutdown(Duration::from_secs(10)).await, 0);
    assert_eq!(world.server.streams_open(), 0);
    assert_eq!(world.connected(), []);
    for gauge in [
        "streams_open{opener=\"server\"}",
        "connections{carrier=\"memory\"}",
        "sessions",
        "dials_pending",
        "handshakes_pending",
    ] {
        assert_eq!(world.metric(gauge), 0.0, "{gauge}");
    }
}
