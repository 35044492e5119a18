//! The table of carriers: what a `--carrier` URL of a server and a `--server` URL of an agent make.

#[cfg(feature = "h2")]
pub(crate) mod forward;
#[cfg(not(feature = "h2"))]
#[path = "forward_missing.rs"]
pub(crate) mod forward;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "h2")]
mod h2;
#[cfg(any(feature = "grpc", feature = "h2", feature = "ws"))]
mod links;
#[cfg(not(all(feature = "grpc", feature = "h2", feature = "quic", feature = "ws")))]
mod missing;
#[cfg(feature = "quic")]
mod quic;
#[cfg(feature = "ws")]
mod ws;

use std::{fmt, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, bail};
use tunnel_core::{Carrier, Keepalive, Listener, proto::mux::Budget};
use tunnel_tcp::{Proxies, SocketOptions};
use tunnel_tls::{ClientTls, ServerTls};

#[cfg(not(feature = "grpc"))]
use self::missing as grpc;
#[cfg(not(feature = "h2"))]
use self::missing as h2;
#[cfg(not(feature = "quic"))]
use self::missing as quic;
#[cfg(not(feature = "ws"))]
use self::missing as ws;
use crate::{
    cli::{QuicArgs, TcpArgs},
    url,
    values::Hidden,
};

/// The port on which every carrier listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 8091;

/// The path of the tunnel unless told otherwise, for carriers that begin with a request.
const DEFAULT_PATH: &str = "/tunnel";

/// The settings of carriers, as far as flags have them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How dead paths are noticed.
    pub keepalive: Keepalive,
    /// How many streams the peer may have open at once.
    pub max_streams: u32,
    /// The QUIC carrier.
    pub quic: QuicArgs,
    /// The carriers over TCP.
    pub tcp: TcpArgs,
    /// The sockets of the carriers over TCP.
    pub sockets: SocketOptions,
    /// What all connections of the carriers over TCP may hold.
    pub budget: Budget,
    /// The way out of an agent's network.
    pub proxies: Proxies,
    /// More header fields of an agent's request for a WebSocket, each `Name: value`.
    pub ws_headers: Vec<Hidden>,
}

/// One line for each way in which a carrier is spoken: its scheme, its name, and the feature that brings it.
const SCHEMES: &[(&str, Scheme, &str, bool)] = &[
    ("quic", Scheme::Quic, "quic", cfg!(feature = "quic")),
    ("h2", Scheme::H2 { secure: true }, "h2", cfg!(feature = "h2")),
    ("h2c", Scheme::H2 { secure: false }, "h2", cfg!(feature = "h2")),
    ("wss", Scheme::Ws { secure: true }, "ws", cfg!(feature = "ws")),
    ("ws", Scheme::Ws { secure: false }, "ws", cfg!(feature = "ws")),
    ("grpc", Scheme::Grpc { secure: true }, "grpc", cfg!(feature = "grpc")),
    (
        "grpc+plain",
        Scheme::Grpc { secure: false },
        "grpc",
        cfg!(feature = "grpc"),
    ),
];

/// How a carrier is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Quic,
    H2 { secure: bool },
    Ws { secure: bool },
    Grpc { secure: bool },
}

/// A `--carrier` that was understood.
#[derive(Clone, Debug)]
pub struct ListenSpec {
    scheme: Scheme,
    addr: SocketAddr,
    path: Option<String>,
}

/// One URL of a `--server` that was understood.
#[derive(Clone, Debug)]
pub struct DialSpec {
    scheme: Scheme,
    remote: tunnel_core::HostPort,
    path: Option<String>,
}

impl Scheme {
    /// The scheme of a URL.
    fn of_url(scheme: &str) -> anyhow::Result<Self> {
        let Some((_, found, feature, compiled)) = SCHEMES.iter().find(|(name, ..)| *name == scheme) else {
            let known: Vec<_> = SCHEMES.iter().map(|(name, ..)| format!("{name}://")).collect();
            bail!("{scheme:?} is no carrier; there is {}", known.join(", "));
        };
        found.if_compiled(feature, *compiled)
    }

    /// The carrier of this name, with TLS: clear text has to be asked for by its URL.
    fn of_name(name: &str) -> anyhow::Result<Self> {
        let secure = SCHEMES
            .iter()
            .find(|(_, scheme, carrier, _)| *carrier == name && scheme.is_secure());
        let Some((_, found, feature, compiled)) = secure else {
            let mut known: Vec<_> = SCHEMES.iter().map(|(_, _, carrier, _)| *carrier).collect();
            known.dedup();
            bail!("{name:?} is no carrier; there is {}", known.join(", "));
        };
        found.if_compiled(feature, *compiled)
    }

    fn if_compiled(self, feature: &str, compiled: bool) -> anyhow::Result<Self> {
        if !compiled {
            bail!("the carrier {feature} is not compiled in: build with the cargo feature `{feature}`");
        }
        Ok(self)
    }

    /// Whether the wire is encrypted.
    fn is_secure(self) -> bool {
        match self {
            Self::Quic => true,
            Self::H2 { secure } | Self::Ws { secure } | Self::Grpc { secure } => secure,
        }
    }

    /// Whether it runs over TCP, and so through proxies.
    fn is_tcp(self) -> bool {
        self != Self::Quic
    }

    /// The port to dial when the URL names none: a WebSocket's is that of HTTP (RFC 6455 §3).
    fn dial_port(self) -> u16 {
        match self {
            Self::Ws { secure: true } => 443,
            Self::Ws { secure: false } => 80,
            Self::Quic | Self::H2 { .. } | Self::Grpc { .. } => DEFAULT_PORT,
        }
    }

    /// Takes the path off the rest of a URL, where the scheme has one.
    fn split_path(self, rest: &str) -> (&str, Option<String>) {
        match self {
            Self::H2 { .. } | Self::Ws { .. } => match rest.split_once('/') {
                Some((authority, path)) if !path.is_empty() => (authority, Some(format!("/{path}"))),
                Some((authority, _)) => (authority, Some(DEFAULT_PATH.to_owned())),
                None => (rest, Some(DEFAULT_PATH.to_owned())),
            },
            Self::Quic | Self::Grpc { .. } => (rest, None),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SCHEMES.iter().find(|(_, scheme, ..)| scheme == self);
        f.write_str(name.map_or("", |(name, ..)| *name))
    }
}

impl ListenSpec {
    /// Understands a carrier's name or URL; a name alone means all addresses, or loopback in development.
    pub fn parse(carrier: &str, default: std::net::IpAddr) -> anyhow::Result<Self> {
        let (scheme, rest) = if carrier.contains("://") {
            let (scheme, rest) = url::split(carrier)?;
            (Scheme::of_url(scheme)?, rest.to_owned())
        } else {
            let scheme = Scheme::of_name(carrier)?;
            (scheme, SocketAddr::new(default, DEFAULT_PORT).to_string())
        };
        let (authority, path) = scheme.split_path(&rest);
        Ok(Self {
            scheme,
            addr: url::listen_addr(carrier, authority)?,
            path,
        })
    }

    /// Whether it needs a certificate.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.scheme.is_secure()
    }

    /// Whether whoever is on the network can reach it.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !self.addr.ip().is_loopback()
    }

    /// The URL by which it is reached at an authority.
    #[must_use]
    pub fn url(&self, authority: &str) -> String {
        format!(
            "{}://{authority}{}",
            self.scheme,
            self.path.as_deref().unwrap_or_default()
        )
    }

    /// Checks the settings, as far as this carrier has any; nothing is bound yet.
    pub fn check(&self, settings: &Settings) -> anyhow::Result<()> {
        match self.scheme {
            Scheme::Quic => quic::check(self, settings),
            Scheme::H2 { .. } => h2::check(self, settings),
            Scheme::Ws { .. } => ws::check(self, settings),
            Scheme::Grpc { .. } => grpc::check(self, settings),
        }
    }

    /// Binds it. `tls` has to be there for one that is secure.
    pub fn listen(&self, tls: Option<&ServerTls>, settings: &Settings) -> anyhow::Result<Box<dyn Listener>> {
        let tls = tls.filter(|_| self.is_secure());
        let listened = match self.scheme {
            Scheme::Quic => quic::listen(self, tls, settings),
            Scheme::H2 { .. } => h2::listen(self, tls, settings),
            Scheme::Ws { .. } => ws::listen(self, tls, settings),
            Scheme::Grpc { .. } => grpc::listen(self, tls, settings),
        };
        let protocol = if self.scheme.is_tcp() { "TCP" } else { "UDP" };
        listened.with_context(|| format!("cannot listen on {self} ({protocol})"))
    }
}

impl fmt::Display for ListenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url(&self.addr.to_string()))
    }
}

impl DialSpec {
    /// Understands one URL.
    pub fn parse(server: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = url::split(server)?;
        let scheme = Scheme::of_url(scheme)?;
        let (authority, path) = scheme.split_path(rest);
        Ok(Self {
            scheme,
            remote: url::dial_authority(server, authority, scheme.dial_port())?,
            path,
        })
    }

    /// Whether it needs something to trust.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.scheme.is_secure()
    }

    /// Whether it goes through a proxy, where there is one.
    #[must_use]
    pub fn takes_proxies(&self) -> bool {
        self.scheme.is_tcp()
    }

    /// Whether it begins with a request that can have more header fields.
    #[must_use]
    pub fn takes_ws_headers(&self) -> bool {
        matches!(self.scheme, Scheme::Ws { .. })
    }

    /// Makes the carrier; nothing is dialled yet. `tls` has to be there for one that is secure.
    pub fn carrier(&self, tls: Option<&ClientTls>, settings: &Settings) -> anyhow::Result<Arc<dyn Carrier>> {
        let tls = tls.filter(|_| self.is_secure());
        let carrier = match self.scheme {
            Scheme::Quic => quic::carrier(self, tls, settings),
            Scheme::H2 { .. } => h2::carrier(self, tls, settings),
            Scheme::Ws { .. } => ws::carrier(self, tls, settings),
            Scheme::Grpc { .. } => grpc::carrier(self, tls, settings),
        };
        carrier.with_context(|| format!("cannot dial {self}"))
    }
}

impl fmt::Display for DialSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}{}",
            self.scheme,
            self.remote,
            self.path.as_deref().unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(carrier: &str) -> String {
        let spec = ListenSpec::parse(carrier, [0, 0, 0, 0].into());
        spec.map_or_else(|error| error.to_string(), |spec| spec.to_string())
    }

    fn dial(server: &str) -> String {
        DialSpec::parse(server).map_or_else(|error| error.to_string(), |spec| spec.to_string())
    }

    #[cfg(all(feature = "quic", feature = "h2", feature = "ws", feature = "grpc"))]
    #[test]
    fn what_a_url_leaves_out_is_filled_in() {
        for (carrier, meaning) in [
            ("quic", "quic://0.0.0.0:8091"),
            ("h2", "h2://0.0.0.0:8091/tunnel"),
            ("ws", "wss://0.0.0.0:8091/tunnel"),
            ("grpc", "grpc://0.0.0.0:8091"),
            ("quic://[::1]:443", "quic://[::1]:443"),
            ("h2c://127.0.0.1:80/t", "h2c://127.0.0.1:80/t"),
            ("ws://127.0.0.1:80", "ws://127.0.0.1:80/tunnel"),
            ("wss://127.0.0.1:443/a/b", "wss://127.0.0.1:443/a/b"),
            ("grpc+plain://127.0.0.1:1", "grpc+plain://127.0.0.1:1"),
        ] {
            assert_eq!(listen(carrier), meaning);
        }
        for (server, meaning) in [
            ("quic://gw.example", "quic://gw.example:8091"),
            ("h2://gw.example", "h2://gw.example:8091/tunnel"),
            ("wss://gw.example", "wss://gw.example:443/tunnel"),
            ("ws://gw.example/", "ws://gw.example:80/tunnel"),
            ("wss://gw.example:8091/t", "wss://gw.example:8091/t"),
            ("grpc://gw.example", "grpc://gw.example:8091"),
        ] {
            assert_eq!(dial(server), meaning);
        }
    }

    #[test]
    fn clear_text_has_to_be_asked_for() {
        for name in ["wss", "h2c", "grpc+plain"] {
            assert!(listen(name).contains("is no carrier; there is quic, h2, ws, grpc"));
        }
        for (url, secure) in [
            ("quic", true),
            ("h2", true),
            ("h2c", false),
            ("wss", true),
            ("ws", false),
            ("grpc", true),
            ("grpc+plain", false),
        ] {
            let (_, scheme, ..) = SCHEMES.iter().find(|(name, ..)| *name == url).unwrap();
            assert_eq!(scheme.is_secure(), secure);
        }
    }

    #[test]
    fn an_unknown_carrier_is_named() {
        for wrong in ["smoke", "smoke://gw.example"] {
            assert!(listen(wrong).contains("\"smoke\" is no carrier"));
        }
        assert!(
            dial("smoke://gw.example")
                .contains("there is quic://, h2://, h2c://, wss://, ws://, grpc://, grpc+plain://")
        );
    }

    #[test]
    fn a_carrier_that_is_not_compiled_in_names_its_feature() {
        for (scheme, _, feature, compiled) in SCHEMES {
            let said = dial(&format!("{scheme}://gw.example"));
            assert_eq!(
                said.contains(&format!("the cargo feature `{feature}`")),
                !compiled,
                "{said}"
            );
        }
    }
}
