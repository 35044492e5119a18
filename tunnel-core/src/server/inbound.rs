//! Streams that agents open towards the server.

use async_trait::async_trait;
use tunnel_proto::{Refusal, RefusalKind};

use crate::{
    carrier::{Inbound, Peer},
    inbound::InboundHandler,
};

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
