//! Streams that agents open towards the server.

use std::fmt;

use async_trait::async_trait;
use tunnel_proto::{Refusal, RefusalKind};

use crate::carrier::{Inbound, Peer};

/// Takes the streams that agents open towards the server.
#[async_trait]
pub trait InboundHandler: fmt::Debug + Send + Sync {
    /// Answers a stream and carries it to its end. Each runs in a task of its own, which ends with the server.
    async fn handle(&self, inbound: Box<dyn Inbound>, agent: &Peer);
}

/// Refuses every stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefuseInbound;

#[async_trait]
impl InboundHandler for RefuseInbound {
    async fn handle(&self, inbound: Box<dyn Inbound>, _: &Peer) {
        inbound.refuse(Refusal::new(
            RefusalKind::HttpRequestDenied,
            "this server takes no streams from agents",
        ));
    }
}
