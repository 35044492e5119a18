//! The driver over a wire in memory, in virtual time.

mod accepting;
mod agreeing;
mod closing;
mod interleaving;
mod moving;
mod opening;
mod wire;

use std::{sync::Arc, time::Duration};

use tunnel_proto::{
    Claim, Generation, Identity, StreamHead, Target, Welcome,
    mux::{Budget, Config, ConfigBuilder},
};

use self::wire::{Wire, WireLink};
use super::{MuxConfig, start};
use crate::{
    carrier::{Connection, Peer, PeerRole},
    stream::Duplex,
};

/// Long enough for everything that does not wait for time.
const PROMPT: Duration = Duration::from_millis(50);

/// Two ends of a connection.
struct World {
    agent: Arc<dyn Connection>,
    server: Arc<dyn Connection>,
    wire: Wire,
}

impl World {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let proto = change(Config::builder()).build().unwrap();
        let (wire, agent, server) = Wire::new(16);
        Self {
            agent: agent_end(agent, MuxConfig::new(proto.clone(), Budget::default())),
            server: server_end(server, MuxConfig::new(proto, Budget::default())),
            wire,
        }
    }

    /// A stream of the agent that the server has accepted: the agent's end first.
    async fn stream(&self) -> (Duplex, Duplex) {
        let (near, far) = tokio::join!(self.agent.open(head("stream")), async {
            self.server.accept().await.unwrap().accept().await
        });
        (near.unwrap(), far.unwrap())
    }
}

fn agent_end(link: WireLink, config: MuxConfig) -> Arc<dyn Connection> {
    let welcome = Welcome::new("gw".parse().unwrap());
    start(Box::new(link), peer(PeerRole::Server(Box::new(welcome))), config)
}

fn server_end(link: WireLink, config: MuxConfig) -> Arc<dyn Connection> {
    start(Box::new(link), peer(PeerRole::Agent(Box::new(claim()))), config)
}

fn peer(role: PeerRole) -> Peer {
    Peer {
        carrier: "wire",
        identity: Identity::anonymous(),
        role,
        remote_addr: ([192, 0, 2, 1], 1).into(),
    }
}

fn claim() -> Claim {
    Claim::new("node-1".parse().unwrap(), Generation(1))
}

fn head(name: &str) -> StreamHead {
    let target: Target = format!("tcp://{name}:80").parse().unwrap();
    StreamHead::new(target)
}

/// Lets everything happen that does not wait for time.
async fn settle() {
    tokio::time::sleep(PROMPT).await;
}
