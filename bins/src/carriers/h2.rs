//! The HTTP/2 carrier.

use std::sync::Arc;

use anyhow::Context as _;
use carrier_h2::{ALPN, H2Carrier, H2Config, H2Listener};
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
    let config = config(settings, spec.path.as_deref())?;
    let accept = links::acceptor(spec.addr, settings)?;
    Ok(Box::new(H2Listener::new(accept, security, config)))
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
    let config = config(settings, spec.path.as_deref())?;
    let dialer = links::dialer(settings);
    Ok(Arc::new(H2Carrier::new(spec.remote.clone(), security, dialer, config)))
}

pub(super) fn check(spec: &ListenSpec, settings: &Settings) -> anyhow::Result<()> {
    config(settings, spec.path.as_deref()).map(drop)
}

fn config(settings: &Settings, path: Option<&str>) -> anyhow::Result<H2Config> {
    let context = "the settings of the HTTP/2 carrier";
    let mut config = H2Config::builder().mux(links::mux(settings).context(context)?);
    if let Some(path) = path {
        config = config.path(path);
    }
    config.build().context(context)
}
