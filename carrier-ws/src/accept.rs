//! From a request to a connection, at the server.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Response, request};
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use tungstenite::protocol::Role;
use tunnel_core::{
    Admission, Admitted, Arrival, Connection, Identity, Peer,
    mux::{self, MuxConfig},
};

use crate::{
    NAME,
    link::WsLink,
    offer::{Offer, Refused},
    upgraded::recover,
};

/// An upgrade that was admitted.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) response: Response<Full<Bytes>>,
    pub(crate) peer: Peer,
}

/// Reads a request to the tunnel's path and asks `admission` about the claim.
pub(crate) async fn judge(
    request: &request::Parts,
    has_body: bool,
    (remote_addr, identity): (SocketAddr, Identity),
    admission: &dyn Admission,
) -> Result<Agreed, Refused> {
    let offer = Offer::read(request, has_body)?;
    let arrival = Arrival::new(NAME, remote_addr, identity, offer.claim.clone());
    let Admitted { identity, welcome } = admission.admit(&arrival).await.map_err(Refused::rejection)?;
    Ok(Agreed {
        response: offer.accept(&welcome),
        peer: arrival.into_peer(identity),
    })
}

/// Begins to carry streams, after the response was sent.
pub(crate) fn start(upgraded: Upgraded, peer: Peer, config: &MuxConfig) -> Arc<dyn Connection> {
    let (io, ahead) = recover(upgraded);
    let link = WsLink::new(io, &ahead, Role::Server);
    mux::start(Box::new(link), peer, config.clone())
}
