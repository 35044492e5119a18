//! Who goes on when the peer takes little of all streams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_h2::H2Config;
use common::{World, raw};
use h2::{RecvStream, SendStream};
use tokio::time::{sleep, timeout};
use tunnel_core::{
    Connection, Duplex, StreamCode,
    mux::MuxConfig,
    proto::mux::{Budget, Config, Windows},
};
use tunnel_testkit::ends::head;

const PROMPT: Duration = Duration::from_secs(1);
/// What HTTP/2 lets be sent of all streams at first (RFC 9113 §6.9.2).
const INITIAL: usize = 65_535;

/// A server whose agent is played by the test: it takes streams and answers them, and returns no credit by itself.
struct Scene {
    server: Arc<dyn Connection>,
    arrivals: tokio::sync::mpsc::Receiver<RecvStream>,
    _world: World,
    _control: (h2::SendStream<Bytes>, RecvStream),
}

impl Scene {
    async fn new() -> Self {
        let mut world = World::plain(H2Config::default());
        let (io, server) = raw::agent(&mut world).await;
        let raw::RawAgent {
            mut connection,
            control_tx,
            control_rx,
        } = raw::begin_agent(io).await;
        let (arrived, arrivals) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            let mut answered = Vec::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                answered.push(respond.send_response(http::Response::new(()), false).unwrap());
                arrived.send(request.into_body()).await.unwrap();
            }
        });
        Self {
            server,
            arrivals,
            _world: world,
            _control: (control_tx, control_rx),
        }
    }

    /// A stream, and what the agent hears of it.
    async fn stream(&mut self) -> (Duplex, Heard) {
        let (stream, body) = tokio::join!(self.server.open(head()), self.arrivals.recv());
        let body = body.unwrap();
        (stream.unwrap(), Heard { body })
    }
}

/// What the agent hears of a stream.
struct Heard {
    body: RecvStream,
}

impl Heard {
    /// Takes what has come and returns no credit; gives how much it is.
    async fn look(&mut self) -> usize {
        let mut come = 0;
        while let Ok(Some(Ok(bytes))) = timeout(Duration::from_millis(1), self.body.data()).await {
            come += bytes.len();
        }
        come
    }

    /// Returns credit of up to so many bytes that have come; gives of how many.
    fn release(&mut self, most: usize) -> usize {
        let credit = self.body.flow_control();
        let bytes = credit.used_capacity().min(most);
        credit.release_capacity(bytes).unwrap();
        bytes
    }

    fn release_all(&mut self) {
        self.release(usize::MAX);
    }
}

/// Bulk that waits for credit leaves it to who has little to send, although it has waited for longer.
#[tokio::test(start_paused = true)]
async fn what_comes_last_and_is_little_goes_first() {
    let mut scene = Scene::new().await;
    let mut bulk = Vec::new();
    for _ in 0..4 {
        let (mut stream, heard) = scene.stream().await;
        stream.tx.send_all(vec![7; 120_000].into()).await.unwrap();
        sleep(PROMPT).await;
        bulk.push((stream, heard));
    }
    // Each has had a part of it, and wants more.
    for _ in 0..2 {
        assert_eq!(look_at_all(&mut bulk).await, INITIAL);
        for (_, heard) in &mut bulk {
            heard.release_all();
        }
        sleep(PROMPT).await;
    }
    let (mut small, mut small_heard) = scene.stream().await;
    small.tx.send_all(vec![7; 100].into()).await.unwrap();
    sleep(PROMPT).await;
    assert_eq!(look_at_all(&mut bulk).await, INITIAL);
    assert_eq!(small_heard.look().await, 0);
    // HTTP/2 tells the peer of half a window or more.
    let mut left = 40_000;
    for (_, heard) in &mut bulk {
        left -= heard.release(left);
    }
    sleep(PROMPT).await;
    assert_eq!(small_heard.look().await, 100);
    assert_eq!(look_at_all(&mut bulk).await, 40_000 - 100);
}

async fn look_at_all(streams: &mut [(Duplex, Heard)]) -> usize {
    let mut all = 0;
    for (_, heard) in streams {
        all += heard.look().await;
    }
    all
}

/// A clean end takes no credit, so it waits for none.
#[tokio::test(start_paused = true)]
async fn an_end_arrives_although_the_connection_takes_no_more() {
    let mut scene = Scene::new().await;
    let (mut bulk, mut bulk_heard) = scene.stream().await;
    let (mut other, mut other_heard) = scene.stream().await;
    bulk.tx.send_all(vec![7; 2 * INITIAL].into()).await.unwrap();
    sleep(PROMPT).await;
    assert_eq!(bulk_heard.look().await, INITIAL);
    other.tx.finish().await.unwrap();
    sleep(PROMPT).await;
    assert_eq!(other_heard.look().await, 0);
    assert!(other_heard.body.is_end_stream());
}

/// What was queued when its stream was given up has used no credit, and streams that are reset take none along.
#[tokio::test(start_paused = true)]
async fn credit_is_not_lost_with_streams_that_are_given_up() {
    let mut scene = Scene::new().await;
    let (mut kept, mut kept_heard) = scene.stream().await;
    for _ in 0..100 {
        let (mut stream, mut heard) = scene.stream().await;
        stream.tx.send_all(vec![7; 100_000].into()).await.unwrap();
        drop(stream);
        heard.look().await;
        heard.release_all();
        drop(heard);
    }
    sleep(PROMPT).await;
    kept.tx.send_all(vec![7; 60_000].into()).await.unwrap();
    sleep(PROMPT).await;
    let heard = kept_heard.look().await;
    assert!(heard > INITIAL / 2, "{heard}");
}

/// Sends all that HTTP/2 lets be sent; gives how much that is.
async fn send_what_may_be(tx: &mut SendStream<Bytes>) -> usize {
    let mut sent = 0;
    loop {
        tx.reserve_capacity(16 * 1024);
        let capacity = timeout(PROMPT, poll_fn(|cx| tx.poll_capacity(cx))).await;
        let Ok(Some(Ok(capacity))) = capacity else { return sent };
        tx.send_data(vec![7; capacity].into(), false).unwrap();
        sent += capacity;
    }
}

/// A peer that does not hear a STOP, or will not, has a window for what it still sends: nothing of that is kept, and it
/// takes nothing from the others.
#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_stop_is_a_window_at_most_and_is_discarded() {
    const WINDOW: usize = 64 * 1024;
    let windows = Config::builder().stream_window(Windows::fixed(WINDOW as u64));
    let budget = Budget::default();
    let mux = MuxConfig::new(windows.build().unwrap(), budget.clone());
    let config = H2Config::builder().mux(mux).build().unwrap();
    let (mut server, agent) = raw::begin_server(config).await;
    let mut open = Vec::new();
    // More than the connection's window, which is 1 MiB at first.
    for unread in [0, 100, WINDOW / 2, WINDOW].repeat(8) {
        let (response, mut tx) = server.requests.send_request(raw::open(&head()), false).unwrap();
        let mut stream = agent.accept().await.unwrap().accept().await.unwrap();
        tx.send_data(vec![7; unread].into(), false).unwrap();
        sleep(PROMPT).await;
        assert_eq!(budget.used(), unread as u64);
        stream.rx.stop(StreamCode::CANCELLED);
        sleep(PROMPT).await;
        assert_eq!(budget.used(), 0);
        let late = send_what_may_be(&mut tx).await;
        assert!(late >= WINDOW / 2, "HTTP/2 has no way to take credit back: {late}");
        assert!(late <= WINDOW, "{late} bytes");
        assert_eq!(budget.used(), 0, "nothing of it is kept");
        open.push((response, tx, stream));
    }
    // The other halves live, and there is credit for another stream.
    for (response, _tx, mut stream) in open {
        stream.tx.send_all("still here".into()).await.unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "still here");
    }
    let (_response, mut tx) = server.requests.send_request(raw::open(&head()), false).unwrap();
    let mut stream = agent.accept().await.unwrap().accept().await.unwrap();
    assert_eq!(send_what_may_be(&mut tx).await, WINDOW);
    tx.send_data(Bytes::new(), true).unwrap();
    let mut received = 0;
    while let Some(bytes) = stream.rx.recv(WINDOW).await.unwrap() {
        received += bytes.len();
    }
    assert_eq!(received, WINDOW);
}
