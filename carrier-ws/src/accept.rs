//! From a request to a connection, at the server.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Response, request};
use http_body_util::Full;
use tungstenite::protocol::Role;
use tunnel_core::{
    Admission, Admitted, Arrival, Connection, Identity, Peer,
    mux::{self, MuxConfig},
};
use tunnel_tcp::{BoxIo, upgrade::Refused};

use crate::{NAME, PROTOCOL, link::WsLink, offer::Offer};

/// Reads a request to the tunnel's path and asks `admission` about the claim.
pub(crate) async fn judge(
    request: &request::Parts,
    has_body: bool,
    (remote_addr, identity): (SocketAddr, Identity),
    admission: &dyn Admission,
) -> Result<(Response<Full<Bytes>>, Peer), Refused> {
    let offer = Offer::read(request, has_body)?;
    let arrival = Arrival::new(NAME, remote_addr, identity, offer.claim.clone());
    let Admitted { identity, welcome } = admission
        .admit(&arrival)
        .await
        .map_err(|rejection| Refused::rejection(rejection, PROTOCOL))?;
    Ok((offer.accept(&welcome), arrival.into_peer(identity)))
}

/// Begins to carry streams, after the response was sent, over a pipe of which `ahead` has been read.
pub(crate) fn start((io, ahead): (BoxIo, Bytes), peer: Peer, config: &MuxConfig) -> Arc<dyn Connection> {
    let link = WsLink::new(io, &ahead, Role::Server);
    mux::start(Box::new(link), peer, config.clone())
}
