//! The table of carriers: what a `--carrier` URL of a server and a `--server` URL of an agent make.

use std::{net::SocketAddr, sync::Arc};

use anyhow::bail;
use tunnel_core::{Carrier, Listener};
use tunnel_tls::{ClientTls, ServerTls};

use crate::{
    cli::{KeepaliveArgs, QuicArgs},
    url,
};

/// The port on which every carrier listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 8091;

/// The settings of carriers, as far as flags have them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How dead paths are noticed.
    pub keepalive: KeepaliveArgs,
    /// How many streams the peer may have open at once.
    pub max_streams: u32,
    /// The QUIC carrier.
    pub quic: QuicArgs,
}

/// A `--carrier` that was understood.
#[derive(Clone, Debug)]
pub struct ListenSpec {
    scheme: Scheme,
    addr: SocketAddr,
}

/// One URL of a `--server` that was understood.
#[derive(Clone, Debug)]
pub struct DialSpec {
    scheme: Scheme,
    remote: tunnel_core::HostPort,
}

/// One line for each carrier.
#[derive(Clone, Copy, Debug)]
enum Scheme {
    Quic,
}

impl Scheme {
    fn parse(name: &str) -> anyhow::Result<Self> {
        match name {
            "quic" if cfg!(feature = "quic") => Ok(Self::Quic),
            "quic" => bail!("the carrier quic is not compiled in: build with the cargo feature `quic`"),
            _ => bail!("{name:?} is no carrier; there is quic"),
        }
    }
}

impl ListenSpec {
    /// Understands a carrier's name or URL; a name alone means all addresses, or loopback in development.
    pub fn parse(carrier: &str, default: std::net::IpAddr) -> anyhow::Result<Self> {
        if !carrier.contains("://") {
            return Ok(Self {
                scheme: Scheme::parse(carrier)?,
                addr: SocketAddr::new(default, DEFAULT_PORT),
            });
        }
        let (scheme, rest) = url::split(carrier)?;
        Ok(Self {
            scheme: Scheme::parse(scheme)?,
            addr: url::listen_addr(carrier, rest)?,
        })
    }

    /// Checks the settings, as far as this carrier has any; nothing is bound yet.
    pub fn check(&self, settings: &Settings) -> anyhow::Result<()> {
        match self.scheme {
            Scheme::Quic => quic::check(settings),
        }
    }

    /// Binds it.
    pub fn listen(&self, tls: &ServerTls, settings: &Settings) -> anyhow::Result<Box<dyn Listener>> {
        match self.scheme {
            Scheme::Quic => quic::listen(self.addr, tls, settings),
        }
    }
}

impl DialSpec {
    /// Understands one URL.
    pub fn parse(server: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = url::split(server)?;
        Ok(Self {
            scheme: Scheme::parse(scheme)?,
            remote: url::dial_authority(server, rest, DEFAULT_PORT)?,
        })
    }

    /// Makes the carrier; nothing is dialled yet.
    pub fn carrier(&self, tls: &ClientTls, settings: &Settings) -> anyhow::Result<Arc<dyn Carrier>> {
        match self.scheme {
            Scheme::Quic => quic::carrier(&self.remote, tls, settings),
        }
    }
}

#[cfg(feature = "quic")]
mod quic {
    use std::{net::SocketAddr, sync::Arc};

    use anyhow::Context as _;
    use carrier_quic::{Congestion, QuicCarrier, QuicConfig, QuicListener};
    use tunnel_core::{Carrier, HostPort, Keepalive, Listener};
    use tunnel_tls::{ClientTls, ServerTls};

    use super::Settings;

    pub(super) fn listen(addr: SocketAddr, tls: &ServerTls, settings: &Settings) -> anyhow::Result<Box<dyn Listener>> {
        let listener = QuicListener::bind(addr, tls, config(settings)?)
            .with_context(|| format!("cannot listen on quic://{addr} (UDP)"))?;
        Ok(Box::new(listener))
    }

    pub(super) fn carrier(remote: &HostPort, tls: &ClientTls, settings: &Settings) -> anyhow::Result<Arc<dyn Carrier>> {
        Ok(Arc::new(QuicCarrier::new(remote.clone(), tls, config(settings)?)?))
    }

    pub(super) fn check(settings: &Settings) -> anyhow::Result<()> {
        config(settings).map(drop)
    }

    fn config(settings: &Settings) -> anyhow::Result<QuicConfig> {
        let quic = &settings.quic;
        let config = QuicConfig::builder()
            .keepalive(Keepalive {
                interval: settings.keepalive.keepalive_interval,
                timeout: settings.keepalive.keepalive_timeout,
            })
            .max_streams(settings.max_streams)
            .stream_window(u32::try_from(quic.quic_stream_window).context("--quic-stream-window is too large")?)
            .receive_budget(quic.quic_receive_budget)
            .congestion(if quic.quic_congestion == "bbr" {
                Congestion::Bbr
            } else {
                Congestion::Cubic
            })
            .initial_mtu(quic.quic_initial_mtu)
            .max_mtu(quic.quic_max_mtu)
            .segmentation_offload(!quic.quic_no_gso);
        config.build().context("the settings of the QUIC carrier")
    }
}

#[cfg(not(feature = "quic"))]
mod quic {
    use std::{net::SocketAddr, sync::Arc};

    use anyhow::bail;
    use tunnel_core::{Carrier, HostPort, Listener};
    use tunnel_tls::{ClientTls, ServerTls};

    use super::Settings;

    pub(super) fn check(_: &Settings) -> anyhow::Result<()> {
        Ok(())
    }

    pub(super) fn listen(addr: SocketAddr, _: &ServerTls, _: &Settings) -> anyhow::Result<Box<dyn Listener>> {
        bail!("cannot listen on quic://{addr}: the carrier is not compiled in")
    }

    pub(super) fn carrier(remote: &HostPort, _: &ClientTls, _: &Settings) -> anyhow::Result<Arc<dyn Carrier>> {
        bail!("cannot dial quic://{remote}: the carrier is not compiled in")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "quic")]
    #[test]
    fn a_name_alone_means_the_default_address() {
        let spec = ListenSpec::parse("quic", [0, 0, 0, 0].into()).unwrap();
        assert_eq!(spec.addr.to_string(), "0.0.0.0:8091");
        let spec = ListenSpec::parse("quic://[::1]:443", [0, 0, 0, 0].into()).unwrap();
        assert_eq!(spec.addr.to_string(), "[::1]:443");
    }

    #[test]
    fn an_unknown_carrier_is_named() {
        for wrong in ["smoke", "smoke://gw.example"] {
            let error = ListenSpec::parse(wrong, [0, 0, 0, 0].into()).unwrap_err();
            assert!(error.to_string().contains("\"smoke\" is no carrier"), "{error}");
        }
    }

    #[cfg(not(feature = "quic"))]
    #[test]
    fn a_carrier_that_is_not_compiled_in_names_its_feature() {
        let error = ListenSpec::parse("quic", [0, 0, 0, 0].into()).unwrap_err();
        assert!(error.to_string().contains("the cargo feature `quic`"), "{error}");
    }
}
