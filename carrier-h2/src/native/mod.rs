//! The tunnel's own protocol on HTTP/2 (`docs/wire.md` §12): what comes after the upgrade.
//!
//! - `driver`: the one task that knows HTTP/2. `visit` is what it does about a stream, `remote` about what the peer says,
//!   `memory` when the budget is short. `wire` is a stream as it sees it, `control` the control stream, `messages` requests
//!   and responses, `window` how large windows should be, `pulse` whether the peer is alive.
//! - `stream`: one stream as the application sees it, through its `halves`; `opening` and `inbound` are how it begins.
//! - `hub`: what these and the handle (`connection`) share; `arrivals` are streams that nobody has looked at.

mod arrivals;
mod connection;
mod control;
mod driver;
mod halves;
mod hub;
mod inbound;
mod memory;
mod messages;
mod opening;
mod pulse;
mod remote;
mod stream;
mod visit;
mod window;
mod wire;

use std::sync::Arc;

use tunnel_core::{Connection, Peer, PeerRole};

use self::{connection::H2Connection, driver::Driver, hub::Hub};
use crate::{
    config::H2Config,
    http2::{Pipe, Session},
};

/// Begins to carry streams over a pipe whose ends have agreed on claim and welcome.
///
/// # Cancel safety
///
/// Dropping the future closes the pipe.
pub(crate) async fn start(pipe: Pipe, peer: Peer, config: &H2Config) -> Result<Arc<dyn Connection>, h2::Error> {
    let sight = pipe.sight();
    let own = config.mux.proto.limits().max_streams;
    let (session, places) = match &peer.role {
        PeerRole::Server(welcome) => {
            let limit = welcome.limits.max_streams;
            let session = Session::server(pipe, config.knobs(room_for(own, limit))).await?;
            (session, usize::try_from(limit).unwrap_or(usize::MAX))
        }
        // An agent says how many it takes with the control stream.
        PeerRole::Agent(_) => (Session::client(pipe, config.knobs(0)).await?, 0),
    };
    let places = places.min(tokio::sync::Semaphore::MAX_PERMITS);
    let hub = Hub::new(config.mux.budget.account(), config.mux.proto.send_queue(), places, own);
    tokio::spawn(Driver::new(Arc::clone(&hub), session, sight, config).run());
    Ok(Arc::new(H2Connection { hub, peer }))
}

/// How many streams HTTP/2 is to let through: those of both ends and the control stream, twice, because one end may
/// take a stream for over of which the other has not heard that yet. The exact limits are kept by `hub` and `arrivals`.
fn room_for(own: u32, peers: u32) -> u32 {
    own.saturating_add(peers).saturating_add(1).saturating_mul(2)
}
