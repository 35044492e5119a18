//! What a connection on the mux achieves over simulated paths, to the tick: speed, fairness, delay and memory.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy exempts only functions marked as tests"
)]

mod delay;
mod memory;
mod speed;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    join,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tunnel_core::{
    Claim, Connection, Duplex, Generation, Identity, Peer, PeerRole, RecvStream, SendStream, StreamHead, Target,
    Welcome,
    mux::{MuxConfig, start},
    proto::mux::{Budget, Config},
};
use tunnel_testkit::sim::{Net, Profile};

/// 1 Gbit/s in bytes per second.
const GIGABIT: u64 = 125_000_000;
const CHUNK: usize = 64 * 1024;

/// A connection over a path of its own.
struct World {
    /// Opens streams and sends.
    server: Arc<dyn Connection>,
    agent: Arc<dyn Connection>,
    server_memory: Budget,
    agent_memory: Budget,
}

impl World {
    /// 1 Gbit/s with this round-trip time.
    fn gigabit(round_trip: Duration) -> Self {
        Self::new(round_trip, Budget::default(), Budget::default())
    }

    fn new(round_trip: Duration, server_memory: Budget, agent_memory: Budget) -> Self {
        let net = Net::new(Profile::new(round_trip / 2, GIGABIT));
        let (agent_link, server_link) = net.link_pair();
        let config = |memory: &Budget| MuxConfig::new(Config::default(), memory.clone());
        let claim = Claim::new("agent".parse().unwrap(), Generation(1));
        let welcome = Welcome::new("server".parse().unwrap());
        Self {
            agent: start(
                Box::new(agent_link),
                peer(PeerRole::Server(Box::new(welcome))),
                config(&agent_memory),
            ),
            server: start(
                Box::new(server_link),
                peer(PeerRole::Agent(Box::new(claim))),
                config(&server_memory),
            ),
            server_memory,
            agent_memory,
        }
    }

    /// A new stream: the server's end and the agent's.
    async fn stream(&self) -> (Duplex, Duplex) {
        let head = StreamHead::new(Target::from_authority("target.test:80").unwrap());
        let (near, far) = join!(self.server.open(head), async {
            self.agent.accept().await.unwrap().accept().await
        });
        (near.unwrap(), far.unwrap())
    }
}

fn peer(role: PeerRole) -> Peer {
    Peer {
        carrier: "sim",
        identity: Identity::anonymous(),
        role,
        remote_addr: ([192, 0, 2, 1], 1).into(),
    }
}

/// Streams that move bytes from the server to the agent for as long as this lives, as fast as they can.
struct Bulk {
    moved: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Bulk {
    async fn start(world: &World, streams: usize) -> Self {
        let moved = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..streams {
            let (near, far) = world.stream().await;
            tasks.spawn(send(near.tx));
            tasks.spawn(count(far.rx, Arc::clone(&moved)));
        }
        Self { moved, _tasks: tasks }
    }

    /// Bytes per second during this time from now.
    async fn speed(&self, during: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.moved.load(Ordering::Relaxed));
        sleep(during).await;
        let moved = self.moved.load(Ordering::Relaxed) - before;
        moved as f64 / start.elapsed().as_secs_f64()
    }
}

async fn send(mut tx: Box<dyn SendStream>) {
    let chunk = Bytes::from(vec![7; CHUNK]);
    while tx.send_all(chunk.clone()).await.is_ok() {}
}

async fn count(mut rx: Box<dyn RecvStream>, moved: Arc<AtomicU64>) {
    while let Ok(Some(bytes)) = rx.recv(4 * CHUNK).await {
        moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// Sends until nothing has been taken for a second, and says how much was.
async fn fill(tx: &mut dyn SendStream) -> u64 {
    const PIECE: usize = 4096;
    let mut taken = 0;
    let piece = Bytes::from(vec![7; PIECE]);
    while let Ok(Ok(())) = timeout(Duration::from_secs(1), tx.send_all(piece.clone())).await {
        taken += PIECE as u64;
    }
    taken
}
