//! In place of CONNECT over HTTP/2 where it is not compiled in. Its URLs were refused when they were read, so nothing
//! comes this far.

use std::sync::Arc;

use anyhow::bail;
use tunnel_core::{AgentId, Carrier, Listener};
use tunnel_tls::{ClientTls, ServerTls};

use super::Settings;
use crate::connect::{ForwardSpec, Scheme, UpstreamSpec};

const MISSING: &str = "CONNECT over HTTP/2 is not compiled in";

pub(crate) fn check(_: Scheme, _: &Settings) -> anyhow::Result<()> {
    bail!(MISSING)
}

pub(crate) fn listen(
    _: &ForwardSpec,
    _: &AgentId,
    _: Option<&ServerTls>,
    _: &Settings,
) -> anyhow::Result<Box<dyn Listener>> {
    bail!(MISSING)
}

pub(crate) fn carrier(_: &UpstreamSpec, _: Option<&ClientTls>, _: &Settings) -> anyhow::Result<Arc<dyn Carrier>> {
    bail!(MISSING)
}
