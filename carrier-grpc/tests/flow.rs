//! The mux's credit is what slows a sender down, never HTTP/2's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_grpc::GrpcConfig;
use common::World;
use tokio::time::Instant;
use tunnel_core::{
    Connection, Identity, Peer, PeerRole, Welcome,
    mux::{self, MuxConfig},
    proto::mux::{Config, Windows},
};
use tunnel_testkit::{
    ends::{Ends, claim, head},
    sim::{AGENT, Net, Profile, SERVER},
};

/// What the mux lets a peer send, over all streams.
const WINDOW: u32 = 4 * 1024 * 1024;
/// Room for all of it in one stream.
const STREAM: Windows = Windows::fixed(16 * 1024 * 1024);
const BYTES: usize = 8 * WINDOW as usize;

/// A path that seven tenths of the window fill: the mux leaves three quarters to a sender at any time, and HTTP/2 would
/// leave two thirds of the same window.
fn far() -> Profile {
    let latency = Duration::from_millis(100);
    Profile::new(latency, u64::from(WINDOW) * 7 / 10 * 1000 / 200)
}

fn mux_config() -> MuxConfig {
    let config = Config::builder().connection_window(WINDOW.into()).stream_window(STREAM);
    config.build().unwrap().into()
}

/// How long it takes to send that much.
async fn time(from: &Arc<dyn Connection>, to: &Arc<dyn Connection>) -> Duration {
    let (near, far) = tokio::join!(from.open(head()), async {
        to.accept().await.unwrap().accept().await.unwrap()
    });
    let (mut tx, mut rx) = (near.unwrap().tx, far.rx);
    let since = Instant::now();
    let send = async {
        let chunk = Bytes::from(vec![7; 64 * 1024]);
        for _ in 0..BYTES / chunk.len() {
            tx.send_all(chunk.clone()).await.unwrap();
        }
        tx.finish().await.unwrap();
    };
    let receive = async {
        let mut received = 0;
        while let Some(bytes) = rx.recv(usize::MAX).await.unwrap() {
            received += bytes.len();
        }
        assert_eq!(received, BYTES);
    };
    tokio::join!(send, receive);
    since.elapsed()
}

/// The two ends of a mux with nothing between it and the pipe.
fn bare() -> [Arc<dyn Connection>; 2] {
    let config = mux_config();
    let (near, far) = Net::new(far()).link_pair();
    let peer = |role, addr: std::net::IpAddr| Peer {
        carrier: "bare",
        identity: Identity::anonymous(),
        role,
        remote_addr: (addr, 1).into(),
    };
    let welcome = Welcome::new("server-1".parse().unwrap());
    [
        mux::start(
            Box::new(near),
            peer(PeerRole::Server(Box::new(welcome)), SERVER),
            config.clone(),
        ),
        mux::start(Box::new(far), peer(PeerRole::Agent(Box::new(claim())), AGENT), config),
    ]
}

#[tokio::test(start_paused = true)]
async fn http_2_takes_nothing_away_from_what_the_mux_allows() {
    let config = GrpcConfig::builder().mux(mux_config()).build().unwrap();
    let mut world = World::new(far(), config);
    let (agent, server) = world.connect().await;
    let [bare_agent, bare_server] = bare();
    for (ends, bare) in [
        ([&agent, &server], [&bare_agent, &bare_server]),
        ([&server, &agent], [&bare_server, &bare_agent]),
    ] {
        let took = time(ends[0], ends[1]).await;
        let best = time(bare[0], bare[1]).await;
        assert!(
            took.as_secs_f64() <= 1.02 * best.as_secs_f64(),
            "{took:?}, but {best:?} without HTTP/2"
        );
    }
}
