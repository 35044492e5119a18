//! Streams that the other end opens, and who takes them.

use std::fmt;

use async_trait::async_trait;

use crate::carrier::{Inbound, Peer};

/// Takes the streams that the other end of a connection opens: agents towards a server, servers towards an agent.
#[async_trait]
pub trait InboundHandler: fmt::Debug + Send + Sync {
    /// Answers a stream and carries it to its end. Each runs in a task of its own, which ends with the server or the
    /// agent at the latest.
    async fn handle(&self, inbound: Box<dyn Inbound>, peer: &Peer);
}
