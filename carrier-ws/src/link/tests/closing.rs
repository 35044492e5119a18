//! How it ends.

use tokio::join;

use super::*;

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// What waits is sent first, and both learn of an orderly end.
#[tokio::test(start_paused = true)]
async fn an_end_in_order() {
    for role in ROLES {
        let (mut link, mut peer) = pair(role, 10);
        let link = async {
            send(&mut link, b"the last message").await.unwrap();
            close(&mut link).await.unwrap();
            assert!(matches!(recv(&mut link).await, Ok(None)));
            link
        };
        let peer = async {
            assert_eq!(peer.recv().await.unwrap().1, b"the last message");
            assert_eq!(peer.recv_close().await.0, 1000);
            // What was on its way is dropped.
            peer.send(FIN | BINARY, b"too late").await;
            peer.send(FIN | CLOSE, &1000_u16.to_be_bytes()).await;
            if !peer.masks {
                // The server ends the pipe first (RFC 6455 §7.1.1).
                peer.pipe.shutdown().await.unwrap();
            }
            assert!(peer.recv().await.is_err());
        };
        join!(link, peer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_is_answered_and_said_why() {
    for role in ROLES {
        for (code, reason, is_order) in [
            (1000, "", true),
            (1000, "bye", true),
            (1001, "away", false),
            (1011, "", false),
            (1012, "service restart", false),
            (4000, "own", false),
        ] {
            let (mut link, mut peer) = pair(role, 1000);
            let frame = [&u16::to_be_bytes(code)[..], reason.as_bytes()].concat();
            peer.send(FIN | CLOSE, &frame).await;
            match recv(&mut link).await {
                Ok(None) => assert!(is_order, "{code}"),
                Err(LinkError::Ended(text)) => {
                    assert!(
                        !is_order && text.contains(&code.to_string()) && text.contains(reason),
                        "{text}"
                    );
                }
                other => panic!("{code}: {other:?}"),
            }
            assert!(matches!(recv(&mut link).await, Ok(None)), "{code}");
            assert_eq!(peer.recv_close().await.0, code);
            // Nothing may follow, and nothing does.
            send(&mut link, b"too late").await.unwrap();
            let (closed, ()) = join!(close(&mut link), async {
                assert!(peer.recv().await.is_err());
            });
            closed.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_without_a_code_is_answered() {
    for role in ROLES {
        let (mut link, mut peer) = pair(role, 1000);
        peer.send(FIN | CLOSE, b"").await;
        assert!(matches!(recv(&mut link).await, Ok(None)));
        assert_eq!(peer.recv().await.unwrap(), (FIN | CLOSE, vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipe_that_ends_is_a_loss() {
    for role in ROLES {
        for known in 0..10 {
            let (mut link, mut peer) = pair(role, 1000);
            let begun = frame(FIN | BINARY, peer.masks, b"never whole");
            peer.send_raw(&begun[..known]).await;
            drop(peer);
            let error = recv(&mut link).await.unwrap_err();
            assert!(matches!(error, LinkError::Io(_)), "{error:?}");
            assert!(matches!(recv(&mut link).await, Ok(None)));
        }
    }
}

/// A peer that breaks the rules is read to its end, so that what it was told is not lost with the socket.
#[tokio::test(start_paused = true)]
async fn after_an_error_the_rest_is_read_and_dropped() {
    for role in ROLES {
        let (mut link, mut peer) = pair(role, 100);
        peer.send(FIN | TEXT, b"x").await;
        recv(&mut link).await.unwrap_err();
        let (closed, ()) = join!(close(&mut link), async {
            peer.send_raw(&[0; 10_000]).await;
            assert_eq!(peer.recv_close().await.0, 1003);
            assert!(peer.recv().await.is_err(), "nothing follows");
            drop(peer);
        });
        closed.unwrap();
    }
}

/// A long message before the end must not make the link forget that it has begun to close.
#[tokio::test(start_paused = true)]
async fn the_close_is_said_once() {
    for role in ROLES {
        let (mut link, mut peer) = pair(role, 200_000);
        peer.send(FIN | BINARY, &bytes(100_000)).await;
        let link = async {
            assert!(
                timeout(Duration::from_secs(1), close(&mut link)).await.is_err(),
                "it waits"
            );
            stays_quiet(&mut link).await;
            timeout(Duration::from_secs(1), close(&mut link)).await
        };
        let (closed, told) = join!(link, async {
            let told = peer.recv_close().await;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            peer.send(FIN | CLOSE, &1000_u16.to_be_bytes()).await;
            peer.pipe.shutdown().await.unwrap();
            assert!(peer.recv().await.is_err(), "nothing follows");
            told
        });
        closed.unwrap().unwrap();
        assert_eq!(told.0, 1000);
    }
}
