//! What goes out.

use tokio::join;

use super::*;
use crate::link::outbox::ENOUGH;

#[tokio::test(start_paused = true)]
async fn each_message_is_one_frame() {
    for role in [Role::Client, Role::Server] {
        for room in [97, 300_000] {
            let (mut link, mut peer) = pair(role, room);
            let lengths = [1, 125, 126, 1024, 1025, 65535, 65536, 131_072, 3];
            let link = async {
                for len in lengths {
                    send(&mut link, &bytes(len)).await.unwrap();
                }
                flush(&mut link).await.unwrap();
            };
            let peer = async {
                for len in lengths {
                    assert_eq!(peer.recv().await.unwrap(), (FIN | BINARY, bytes(len)));
                }
            };
            join!(link, peer);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_is_taken_than_is_needed_to_keep_the_wire_busy() {
    for role in [Role::Client, Role::Server] {
        let (mut link, _peer) = pair(role, 1);
        let sending = async {
            let mut taken = 0;
            while timeout(Duration::from_secs(1), send(&mut link, &[0; 1000]))
                .await
                .is_ok()
            {
                taken += 1000;
            }
            taken
        };
        let taken = sending.await;
        assert!((ENOUGH - 1000..ENOUGH + 1000).contains(&taken), "it took {taken} bytes");
    }
}

/// A peer that pings and does not read must not fill the memory with pongs.
#[tokio::test(start_paused = true)]
async fn pongs_do_not_pile_up() {
    for role in [Role::Client, Role::Server] {
        let (mut link, mut peer) = pair(role, 1000);
        let reading = stays_quiet(&mut link);
        let pinging = async {
            for _ in 0..10_000 {
                peer.send(FIN | PING, &[1; 125]).await;
            }
        };
        join!(reading, pinging);
        assert!(link.outbox.waiting() < 2000, "{:?}", link.outbox);
    }
}
