//! What the carriers over TCP have in common.

use std::sync::Arc;

use tunnel_core::proto::mux::Windows;
use tunnel_tcp::{Accept, Dial, SocketOptions, TcpAcceptor, TcpDialer};

use super::{ListenSpec, Settings};

pub(super) fn dialer(settings: &Settings) -> Arc<dyn Dial> {
    Arc::new(TcpDialer::new(socket_options(settings), settings.proxies.clone()))
}

pub(super) fn acceptor(spec: &ListenSpec, settings: &Settings) -> anyhow::Result<Box<dyn Accept>> {
    Ok(Box::new(TcpAcceptor::bind(spec.addr, socket_options(settings))?))
}

/// The windows of streams, up to the ceiling that is set.
pub(super) fn windows(settings: &Settings) -> Windows {
    let (defaults, ceiling) = (Windows::default(), settings.tcp.tcp_stream_window);
    Windows {
        floor: defaults.floor.min(ceiling),
        start: defaults.start.min(ceiling),
        ceiling,
    }
}

fn socket_options(settings: &Settings) -> SocketOptions {
    let mut options = SocketOptions::default();
    options.congestion.clone_from(&settings.tcp.tcp_congestion);
    options
}
