//! Bytes that a client has before its stream is answered: programs of others are shown none of them.

use std::time::Duration;

use bytes::Bytes;
use carrier_h2::forward::ForwardConfig;
use tunnel_testkit::{
    ends::{Ends, head, round_trips},
    sim::{Net, Profile},
};

use crate::world::{World, h2_proxy};

const LATENCY: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn they_save_no_round_trip() {
    let net = Net::new(Profile::new(LATENCY, 20_000_000));
    let mut world = World::on(&net, None, ForwardConfig::default());
    let (opener, acceptor) = world.connect().await;
    assert_eq!(round_trips(&opener, &acceptor, 2 * LATENCY).await, [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_sees_them_behind_its_answer() {
    let (_task, connection) = h2_proxy(h2::server::Builder::new(), ForwardConfig::default(), async |mut io| {
        let (request, mut respond) = io.accept().await.unwrap().unwrap();
        let mut body = request.into_body();
        let early = async {
            let first = body.data().await.unwrap().unwrap();
            assert_eq!(first, "more");
        };
        let silence = tokio::time::sleep(Duration::from_secs(1));
        tokio::pin!(early);
        tokio::select! {
            () = &mut early => panic!("bytes came before the answer"),
            () = silence => {}
            _ = io.accept() => panic!("another request"),
        }
        let _tx = respond.send_response(http::Response::new(()), false).unwrap();
        tokio::select! {
            () = early => {}
            _ = io.accept() => panic!("another request"),
        }
    })
    .await;
    let mut early = Bytes::from_static(b"more");
    let mut stream = connection.open_with(head(), &mut early).await.unwrap();
    assert_eq!(early, "more");
    stream.tx.send_all(early).await.unwrap();
    _task.await.unwrap();
}
