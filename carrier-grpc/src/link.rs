//! One call as a link of the mux.

use std::task::{Context, Poll};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tunnel_core::{
    mux::{Link, LinkError},
    proto::mux::Message,
};

use crate::{inlet::Inlet, outlet::Outlet, status, tasks::Tasks};

/// One call, from either end. Dropping it before it was closed resets the call.
#[derive(Debug)]
pub(crate) struct GrpcLink {
    pub(crate) inlet: Inlet,
    pub(crate) outlet: Outlet,
    /// An agent has a HTTP/2 connection of its own for the call; a server's may serve several.
    pub(crate) connection: Option<Http2>,
}

/// The HTTP/2 connection of an agent.
#[derive(Debug)]
pub(crate) struct Http2 {
    pub(crate) _tasks: Tasks,
    /// Cancelled when its server, which may be a proxy, has said that it will end it.
    pub(crate) goaway: CancellationToken,
}

impl Link for GrpcLink {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.outlet.poll_ready(cx).map(Ok)
    }

    fn send(&mut self, message: Message) -> Result<(), LinkError> {
        self.outlet.send(message);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.outlet.poll_flush(cx).map(Ok)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        self.inlet.poll_recv(cx)
    }

    /// An agent's half ends with its last packet, a server's with the status of the call.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let trailers = || self.connection.is_none().then(status::ok);
        self.outlet.poll_close(trailers, cx).map(Ok)
    }

    /// A server hears nothing of the kind: calls end when the client wants it.
    fn ending(&self) -> CancellationToken {
        let goaway = self.connection.as_ref().map(|http2| http2.goaway.clone());
        goaway.unwrap_or_default()
    }
}
