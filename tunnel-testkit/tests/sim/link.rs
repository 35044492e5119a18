//! Messages over a pipe.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use tunnel_core::mux::{Link, LinkError};
use tunnel_testkit::sim::{Net, PipeLink, Profile};

use super::{MS, pair, transfer::profiles};

async fn send(link: &mut PipeLink, message: Bytes) -> Result<(), LinkError> {
    poll_fn(|cx| link.poll_ready(cx)).await?;
    link.send(message.into())
}

async fn flush(link: &mut PipeLink) -> Result<(), LinkError> {
    poll_fn(|cx| link.poll_flush(cx)).await
}

async fn recv(link: &mut PipeLink) -> Result<Option<Bytes>, LinkError> {
    poll_fn(|cx| link.poll_recv(cx)).await
}

#[tokio::test(start_paused = true)]
async fn a_message_takes_the_time_of_its_bytes() {
    let net = Net::new(Profile::new(10 * MS, 1_000_000));
    let (mut near, mut far) = net.link_pair();
    let start = Instant::now();
    for size in [996, 9_996] {
        send(&mut near, vec![7; size].into()).await.unwrap();
        flush(&mut near).await.unwrap();
    }
    for (size, expected) in [(996, 11), (9_996, 21)] {
        assert_eq!(recv(&mut far).await.unwrap().unwrap().len(), size);
        assert_eq!(start.elapsed(), expected * MS);
    }
    poll_fn(|cx| near.poll_close(cx)).await.unwrap();
    assert_eq!(recv(&mut far).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_messages_are_not_taken_takes_no_more() {
    let net = Net::new(Profile {
        buffer: 100_000,
        ..Profile::default()
    });
    let (mut near, mut far) = net.link_pair();
    let mut taken = 0;
    while timeout(Duration::from_secs(60), send(&mut near, vec![7; 9_996].into()))
        .await
        .is_ok()
    {
        taken += 1;
    }
    assert_eq!(taken, 21, "two buffers and one message");
    recv(&mut far).await.unwrap().unwrap();
    send(&mut near, Bytes::from_static(b"late")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cut_and_half_a_message_are_no_clean_end() {
    let net = Net::new(Profile::default());
    let (mut near, mut far) = net.link_pair();
    net.cut();
    assert!(matches!(recv(&mut far).await, Err(LinkError::Io(_))));
    assert!(matches!(flush(&mut near).await, Err(LinkError::Io(_))));

    for (bytes, is_protocol_error) in [
        (&[0, 0, 0, 2, 7][..], false),
        (&[0, 0, 0], false),
        (&[0, 2, 0, 1], true),
    ] {
        let (mut near, far) = pair(&net).await;
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let error = recv(&mut PipeLink::new(far)).await.unwrap_err();
        assert_eq!(matches!(error, LinkError::Protocol(_)), is_protocol_error, "{error:?}");
        near.read_to_end(&mut Vec::new()).await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn messages_arrive_whole_and_in_order(
        profile in profiles(),
        messages in prop::collection::vec((any::<u8>(), 0_usize..5_000), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let received = runtime.block_on(async {
            let (mut near, mut far) = Net::new(profile).link_pair();
            let mut received = Vec::new();
            tokio::join!(
                async {
                    for (byte, size) in &messages {
                        send(&mut near, vec![*byte; *size].into()).await.unwrap();
                    }
                    poll_fn(|cx| near.poll_close(cx)).await.unwrap();
                },
                async {
                    while let Some(message) = recv(&mut far).await.unwrap() {
                        assert!(message.iter().all(|byte| *byte == message[0]));
                        received.push(message.len());
                    }
                }
            );
            received
        });
        prop_assert_eq!(received, messages.iter().map(|(_, size)| *size).collect::<Vec<_>>());
    }
}
