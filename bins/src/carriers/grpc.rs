//! The gRPC carrier.

use std::sync::Arc;

use anyhow::Context as _;
use carrier_grpc::{ALPN, GrpcCarrier, GrpcConfig, GrpcListener};
use tunnel_core::{Carrier, Listener};
use tunnel_tcp::{ClientSecurity, ServerSecurity};
use tunnel_tls::{ClientTls, ServerTls};

use super::{DialSpec, ListenSpec, Settings, links};

pub(super) fn listen(
    spec: &ListenSpec,
    tls: Option<&ServerTls>,
    settings: &Settings,
) -> anyhow::Result<Box<dyn Listener>> {
    let security = tls.map_or(ServerSecurity::Plain, |tls| ServerSecurity::tls(tls, &[ALPN]));
    let accept = links::acceptor(spec.addr, settings)?;
    Ok(Box::new(GrpcListener::new(accept, security, config(settings)?)))
}

pub(super) fn carrier(
    spec: &DialSpec,
    tls: Option<&ClientTls>,
    settings: &Settings,
) -> anyhow::Result<Arc<dyn Carrier>> {
    let security = match tls {
        Some(tls) => ClientSecurity::tls(tls, spec.remote.host(), &[ALPN])?,
        None => ClientSecurity::Plain,
    };
    let dialer = links::dialer(settings);
    let carrier = GrpcCarrier::new(spec.remote.clone(), security, dialer, config(settings)?)?;
    Ok(Arc::new(carrier))
}

pub(super) fn check(_: &ListenSpec, settings: &Settings) -> anyhow::Result<()> {
    config(settings).map(drop)
}

fn config(settings: &Settings) -> anyhow::Result<GrpcConfig> {
    let context = "the settings of the gRPC carrier";
    let config = GrpcConfig::builder().mux(links::mux(settings).context(context)?);
    config.build().context(context)
}
