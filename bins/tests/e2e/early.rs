//! Clients that speak before they have read the 200, over every carrier.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

use crate::support::{Pki, Tunnel, read_to_end, soon, target};

/// What fits beside a head, what is more than goes with it, and what is more than a proxy holds before its answer.
const SIZES: [usize; 3] = [500, 20_000, 300_000];

fn bytes(size: usize) -> Vec<u8> {
    (0..251).cycle().take(size).collect()
}

/// A client that has said all of this. It has not read a byte.
async fn pipelines(tunnel: &Tunnel, target: SocketAddr, said: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(tunnel.server.proxy).await.unwrap();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let all = [request.as_bytes(), said].concat();
    soon("everything is said", socket.write_all(&all)).await.unwrap();
    socket
}

async fn serves_who_does_not_wait(tunnel: &Tunnel) {
    for size in SIZES {
        let (heard, mut hears) = mpsc::channel(1);
        let target = target::serve(move |mut socket| {
            let heard = heard.clone();
            async move {
                let mut question = vec![0; size];
                socket.read_exact(&mut question).await?;
                heard.send(question).await.map_err(std::io::Error::other)?;
                socket.write_all(b"answer").await?;
                socket.shutdown().await
            }
        })
        .await;
        let mut client = pipelines(tunnel, target, &bytes(size)).await;
        let question = soon("the target hears the question", hears.recv()).await;
        assert!(question.unwrap() == bytes(size), "{size} bytes arrive as they were");
        let answer = read_to_end(&mut client).await;
        assert_eq!(answer, "HTTP/1.1 200 Connection established\r\n\r\nanswer");
    }
}

async fn tells_who_does_not_wait_why_not(tunnel: &Tunnel) {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = closed.local_addr().unwrap();
    drop(closed);
    for size in SIZES {
        let mut client = pipelines(tunnel, target, &bytes(size)).await;
        let answer = read_to_end(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(answer.contains("error=connection_refused"), "{answer}");
    }
}

/// Makes a test for each way in which a carrier is spoken.
macro_rules! over_each {
    ($($name:ident $scheme:literal;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let tunnel = Tunnel::over($scheme, Pki::new(), &[], &[]).await;
                serves_who_does_not_wait(&tunnel).await;
                tells_who_does_not_wait_why_not(&tunnel).await;
                // Nothing of it stands in the way of the next.
                serves_who_does_not_wait(&tunnel).await;
            }
        )*
    };
}

over_each! {
    quic "quic";
    h2 "h2";
    h2c "h2c";
    wss "wss";
    ws "ws";
    grpc "grpc";
    grpc_plain "grpc+plain";
}
