//! The QUIC carrier.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use carrier_quic::{Congestion, QuicCarrier, QuicConfig, QuicListener};
use tunnel_core::{Carrier, Listener};
use tunnel_tls::{ClientTls, ServerTls};

use super::{DialSpec, ListenSpec, Settings};

pub(super) fn listen(
    spec: &ListenSpec,
    tls: Option<&ServerTls>,
    settings: &Settings,
) -> anyhow::Result<Box<dyn Listener>> {
    let tls = tls.ok_or_else(|| anyhow!("QUIC needs a certificate"))?;
    Ok(Box::new(QuicListener::bind(spec.addr, tls, config(settings)?)?))
}

pub(super) fn carrier(
    spec: &DialSpec,
    tls: Option<&ClientTls>,
    settings: &Settings,
) -> anyhow::Result<Arc<dyn Carrier>> {
    let tls = tls.ok_or_else(|| anyhow!("QUIC needs certificates to trust"))?;
    Ok(Arc::new(QuicCarrier::new(spec.remote.clone(), tls, config(settings)?)?))
}

pub(super) fn check(_: &ListenSpec, settings: &Settings) -> anyhow::Result<()> {
    config(settings).map(drop)
}

fn config(settings: &Settings) -> anyhow::Result<QuicConfig> {
    let quic = &settings.quic;
    let config = QuicConfig::builder()
        .keepalive(settings.keepalive)
        .max_streams(settings.max_streams)
        .stream_window(u32::try_from(quic.quic_stream_window).context("--quic-stream-window is too large")?)
        .receive_budget(quic.quic_receive_budget)
        .congestion(match &*quic.quic_congestion {
            "bbr" => Congestion::Bbr,
            "cubic" => Congestion::Cubic,
            _ => Congestion::Adaptive,
        })
        .initial_mtu(quic.quic_initial_mtu)
        .max_mtu(quic.quic_max_mtu)
        .segmentation_offload(!quic.quic_no_gso);
    config.build().context("the settings of the QUIC carrier")
}
