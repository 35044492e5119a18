//! The tunnel's own protocol on HTTP/2 (`docs/wire.md` §12): what comes after the upgrade.
//!
//! `streams` is how they are opened, answered and ended, `remote` what is done about what the peer says, `control` the
//! control stream, `messages` requests and responses.

mod control;
mod messages;
mod remote;
mod streams;

use std::sync::Arc;

use tunnel_core::{
    Capabilities, CloseCode, Connection, Peer, PeerRole, Text,
    proto::{VarInt, mux::StreamId},
};

use self::control::Control;
use crate::{
    config::H2Config,
    http2::{Driver, H2Connection, Hub, Pipe, Session},
};

/// What a driver has for this protocol.
#[derive(Debug)]
pub(crate) struct Native {
    control: Control,
    /// The number of the next stream that is asked for.
    next_asked: u64,
    drain_sent: bool,
    /// How the peer has closed the connection.
    closed_by_peer: Option<(CloseCode, Text)>,
    max_streams: u32,
}

/// Begins to carry streams over a pipe whose ends have agreed on claim and welcome.
///
/// # Cancel safety
///
/// Dropping the future closes the pipe.
pub(crate) async fn start(pipe: Pipe, peer: Peer, config: &H2Config) -> Result<Arc<dyn Connection>, h2::Error> {
    let tuning = &config.tuning;
    let (sight, account) = (pipe.sight(), pipe.account());
    let own = tuning.mux.proto.limits().max_streams;
    let (session, places) = match &peer.role {
        PeerRole::Server(welcome) => {
            let limit = welcome.limits.max_streams;
            let session = Session::server(pipe, tuning.knobs(room_for(own, limit))).await?;
            (session, usize::try_from(limit).unwrap_or(usize::MAX))
        }
        // An agent says how many it takes with the control stream, which is all that is sent before its SETTINGS.
        PeerRole::Agent(_) | PeerRole::Foreign => (Session::client(pipe, tuning.knobs(1)).await?, 0),
    };
    let places = places.min(tokio::sync::Semaphore::MAX_PERMITS);
    let hub = Hub::new(account, tuning.mux.proto.send_queue(), places, own);
    let native = Native {
        control: Control::default(),
        next_asked: 0,
        drain_sent: false,
        closed_by_peer: None,
        max_streams: own,
    };
    tokio::spawn(Driver::new(native, Arc::clone(&hub), session, sight, tuning).run());
    Ok(Arc::new(H2Connection {
        hub,
        peer,
        capabilities: Capabilities::NATIVE,
    }))
}

/// How many streams HTTP/2 is to let through: those of both ends and the control stream, twice, because one end may
/// take a stream for over of which the other has not heard that yet. The exact limits are kept by `hub` and `arrivals`.
fn room_for(own: u32, peers: u32) -> u32 {
    own.saturating_add(peers).saturating_add(1).saturating_mul(2)
}

/// A stream's number in frames.
fn stream_id(key: u64) -> StreamId {
    StreamId::from_value(VarInt::saturating_from_u64(key))
}
