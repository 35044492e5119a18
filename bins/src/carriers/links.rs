//! What the carriers over TCP have in common.

use std::{net::SocketAddr, sync::Arc};

use tunnel_core::{
    mux::MuxConfig,
    proto::mux::{Config, InvalidConfig, Windows},
};
use tunnel_tcp::{Accept, Dial, TcpAcceptor, TcpDialer};

use super::Settings;

pub(super) fn dialer(settings: &Settings) -> Arc<dyn Dial> {
    Arc::new(TcpDialer::new(settings.sockets.clone(), settings.proxies.clone()))
}

pub(super) fn acceptor(addr: SocketAddr, settings: &Settings) -> anyhow::Result<Box<dyn Accept>> {
    Ok(Box::new(TcpAcceptor::bind(addr, settings.sockets.clone())?))
}

/// How streams are carried.
pub(super) fn mux(settings: &Settings) -> Result<MuxConfig, InvalidConfig> {
    let (defaults, ceiling) = (Windows::default(), settings.tcp.tcp_stream_window);
    let config = Config::builder()
        .keepalive(settings.keepalive)
        .max_streams(settings.max_streams)
        .stream_window(Windows {
            floor: defaults.floor.min(ceiling),
            start: defaults.start.min(ceiling),
            ceiling,
        });
    Ok(MuxConfig::new(config.build()?, settings.budget.clone()))
}
