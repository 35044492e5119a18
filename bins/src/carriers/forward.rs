//! CONNECT over HTTP/2 with programs of others.

use std::sync::Arc;

use anyhow::Context as _;
use carrier_h2::forward::{ALPN, Dialect, ForwardCarrier, ForwardConfig, ForwardConfigBuilder, ForwardListener};
use tunnel_core::{AgentId, Carrier, Listener};
use tunnel_tcp::{ClientSecurity, ServerSecurity};
use tunnel_tls::{ClientTls, ServerTls};

use super::{Settings, links};
use crate::connect::{ForwardSpec, Scheme, UpstreamSpec};

pub(crate) fn listen(
    spec: &ForwardSpec,
    agent: &AgentId,
    tls: Option<&ServerTls>,
    settings: &Settings,
) -> anyhow::Result<Box<dyn Listener>> {
    let security = tls.map_or(ServerSecurity::Plain, |tls| ServerSecurity::tls(tls, &[ALPN]));
    let config = config(spec.scheme, settings)?.name(agent.as_str());
    let accept = links::acceptor(spec.addr, settings)?;
    Ok(Box::new(ForwardListener::new(accept, security, built(config)?)))
}

pub(crate) fn carrier(
    spec: &UpstreamSpec,
    tls: Option<&ClientTls>,
    settings: &Settings,
) -> anyhow::Result<Arc<dyn Carrier>> {
    let security = match tls {
        Some(tls) => ClientSecurity::tls(tls, spec.proxy.host(), &[ALPN])?,
        None => ClientSecurity::Plain,
    };
    let mut config = config(spec.scheme, settings)?;
    if let Some(baggage) = &spec.baggage {
        config = config.baggage(baggage);
    }
    let proxy = spec.proxy.clone();
    let dialer = links::dialer(settings);
    Ok(Arc::new(ForwardCarrier::new(proxy, security, dialer, built(config)?)))
}

pub(crate) fn check(scheme: Scheme, settings: &Settings) -> anyhow::Result<()> {
    built(config(scheme, settings)?).map(drop)
}

const CONTEXT: &str = "the settings of CONNECT over HTTP/2";

fn config(scheme: Scheme, settings: &Settings) -> anyhow::Result<ForwardConfigBuilder> {
    let dialect = if scheme.is_hbone() {
        Dialect::Hbone
    } else {
        Dialect::Connect
    };
    let mux = links::mux(settings).context(CONTEXT)?;
    Ok(ForwardConfig::builder().dialect(dialect).mux(mux))
}

fn built(config: ForwardConfigBuilder) -> anyhow::Result<ForwardConfig> {
    config.build().context(CONTEXT)
}
