//! The WebSocket carrier.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use carrier_ws::{WsCarrier, WsConfig, WsConfigBuilder, WsListener};
use tunnel_core::{Carrier, Listener};
use tunnel_tls::{ClientTls, ServerTls};

use super::{DialSpec, ListenSpec, Settings, links};
use crate::values::Hidden;

/// What an error about the settings is about.
const CONFIG: &str = "the settings of the WebSocket carrier";

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
    let config = with_headers(builder(settings)?, &settings.ws_headers)?;
    let carrier = WsCarrier::new(url, tls, links::dialer(settings), config.build().context(CONFIG)?)?;
    Ok(Arc::new(carrier))
}

/// Adds header fields. None of them is repeated in an error: it may be a secret, and nothing but that if it is mistaken.
fn with_headers(mut config: WsConfigBuilder, fields: &[Hidden]) -> anyhow::Result<WsConfigBuilder> {
    let fields = fields.iter().map(|Hidden(field)| field.trim());
    for (at, field) in fields.filter(|field| !field.is_empty()).enumerate() {
        let number = at + 1;
        let Some((name, value)) = field.split_once(':') else {
            bail!("--ws-header number {number} is not NAME: VALUE");
        };
        let (name, value) = (name.trim_end(), value.trim_start());
        let alone = WsConfig::builder().header(name, value).build();
        alone.with_context(|| format!("--ws-header number {number}"))?;
        config = config.header(name, value);
    }
    Ok(config)
}

pub(super) fn check(spec: &ListenSpec, settings: &Settings) -> anyhow::Result<()> {
    config(settings, spec.path.as_deref()).map(drop)
}

fn config(settings: &Settings, path: Option<&str>) -> anyhow::Result<WsConfig> {
    let mut config = builder(settings)?;
    if let Some(path) = path {
        config = config.path(path);
    }
    config.build().context(CONFIG)
}

fn builder(settings: &Settings) -> anyhow::Result<WsConfigBuilder> {
    Ok(WsConfig::builder().mux(links::mux(settings).context(CONFIG)?))
}
