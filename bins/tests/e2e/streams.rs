//! What flows through a tunnel arrives as it was sent, ends included.

use std::io::ErrorKind;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinSet,
};

use crate::support::{Tunnel, read_to_end, soon, target};

#[tokio::test]
async fn a_target_may_speak_first() {
    let tunnel = Tunnel::start().await;
    let target = target::greeting("220 ready\r\n").await;
    let mut stream = tunnel.server.connect(target).await.tunnel();
    let mut greeting = [0; 11];
    soon("the greeting", stream.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
}

#[tokio::test]
async fn a_client_may_end_its_half_and_read_on() {
    let tunnel = Tunnel::start().await;
    let mut stream = tunnel.server.connect(target::count().await).await.tunnel();
    stream.write_all(&vec![7; 3 << 20]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, (3 << 20).to_string());
}

#[tokio::test]
async fn a_target_may_end_its_half_and_read_on() {
    let tunnel = Tunnel::start().await;
    let (heard, mut hears) = mpsc::channel(1);
    let mut stream = tunnel
        .server
        .connect(target::half_closing("bye", heard).await)
        .await
        .tunnel();
    assert_eq!(read_to_end(&mut stream).await, "bye");
    stream.write_all(b"one thing more").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(soon("the rest", hears.recv()).await.unwrap(), "one thing more");
}

#[tokio::test]
async fn a_reset_of_the_target_is_a_reset_for_the_client() {
    let tunnel = Tunnel::start().await;
    let mut stream = tunnel.server.connect(target::resetting().await).await.tunnel();
    stream.write_all(b"x").await.unwrap();
    let error = soon("the reset", stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn a_target_that_refuses_is_a_502_with_the_reason() {
    let tunnel = Tunnel::start().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let text = tunnel.server.connect(closed).await.refusal(502).await;
    assert!(
        text.contains("Proxy-Status: node-7; error=connection_refused;"),
        "{text}"
    );
}

#[tokio::test]
async fn cloud_metadata_is_out_of_reach() {
    let tunnel = Tunnel::start().await;
    let text = tunnel
        .server
        .connect("169.254.169.254:80".parse().unwrap())
        .await
        .refusal(403)
        .await;
    assert!(text.contains("169.254.169.254 is a link-local address"), "{text}");
}

#[tokio::test]
async fn two_hundred_streams_at_once_keep_to_themselves() {
    const STREAMS: usize = 200;
    let tunnel = Tunnel::start().await;
    let target = target::echo().await;
    let mut open = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        open.push(tunnel.server.connect(target).await.tunnel());
    }
    let mut streams = JoinSet::new();
    for (number, mut stream) in open.into_iter().enumerate() {
        streams.spawn(async move {
            let text = format!("stream {number}, ").repeat(500);
            stream.write_all(text.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(read_to_end(&mut stream).await, text);
        });
    }
    while let Some(stream) = streams.join_next().await {
        stream.unwrap();
    }
    // Everything is given back. The last sockets are closed a moment after their ends are sent.
    let closed = async {
        while tunnel.server.open_files() > 60 || tunnel.agent.open_files() > 60 {
            tokio::task::yield_now().await;
        }
    };
    soon("the sockets are closed", closed).await;
}
