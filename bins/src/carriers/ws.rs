//! The WebSocket carrier.

use std::sync::Arc;

use anyhow::Context as _;
use carrier_ws::{WsCarrier, WsConfig, WsListener};
use tunnel_core::{Carrier, Listener};
use tunnel_tls::{ClientTls, ServerTls};

use super::{DialSpec, ListenSpec, Settings, links};

pub(super) fn listen(
    spec: &ListenSpec,
    tls: Option<&ServerTls>,
    settings: &Settings,
) -> anyhow::Result<Box<dyn Listener>> {
    let config = config(settings, spec.path.as_deref())?;
    Ok(Box::new(WsListener::new(
        links::acceptor(spec.addr, settings)?,
        tls,
        config,
    )))
}

pub(super) fn carrier(
    spec: &DialSpec,
    tls: Option<&ClientTls>,
    settings: &Settings,
) -> anyhow::Result<Arc<dyn Carrier>> {
    let url = spec.to_string().parse()?;
    let carrier = WsCarrier::new(url, tls, links::dialer(settings), config(settings, None)?)?;
    Ok(Arc::new(carrier))
}

pub(super) fn check(spec: &ListenSpec, settings: &Settings) -> anyhow::Result<()> {
    config(settings, spec.path.as_deref()).map(drop)
}

fn config(settings: &Settings, path: Option<&str>) -> anyhow::Result<WsConfig> {
    let context = "the settings of the WebSocket carrier";
    let mut config = WsConfig::builder().mux(links::mux(settings).context(context)?);
    if let Some(path) = path {
        config = config.path(path);
    }
    config.build().context(context)
}
