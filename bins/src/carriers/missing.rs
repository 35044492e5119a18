//! In place of a carrier that is not compiled in. Its name was refused when it was read, so nothing comes this far.

use std::sync::Arc;

use anyhow::bail;
use tunnel_core::{Carrier, Listener};
use tunnel_tls::{ClientTls, ServerTls};

use super::{DialSpec, ListenSpec, Settings};

const MISSING: &str = "the carrier is not compiled in";

pub(super) fn check(_: &ListenSpec, _: &Settings) -> anyhow::Result<()> {
    bail!(MISSING)
}

pub(super) fn listen(_: &ListenSpec, _: Option<&ServerTls>, _: &Settings) -> anyhow::Result<Box<dyn Listener>> {
    bail!(MISSING)
}

pub(super) fn carrier(_: &DialSpec, _: Option<&ClientTls>, _: &Settings) -> anyhow::Result<Arc<dyn Carrier>> {
    bail!(MISSING)
}
