//! What can be set, and what it costs.

use http::{HeaderName, HeaderValue, header};
use tunnel_core::{Keepalive, StreamLimits, mux::MuxConfig, proto::mux::InvalidConfig};

use super::{CONNECT, HBONE};
use crate::config::Tuning;

/// Which protocol is spoken. They are one on the wire: HBONE is CONNECT with a port of its own, with certificates that
/// hold SPIFFE IDs, and with a word about the workload that asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// CONNECT of HTTP/2 (RFC 9113 §8.5), as proxies such as Envoy speak it.
    #[default]
    Connect,
    /// HBONE, as Istio's ambient mesh speaks it (ztunnel, waypoints).
    Hbone,
}

impl Dialect {
    /// The name of carriers that speak it, as on metrics: [`CONNECT`] or [`HBONE`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => CONNECT,
            Self::Hbone => HBONE,
        }
    }
}

/// What a listener calls itself unless it is told.
const NAME: &str = "tunnel";

/// The settings of a [`ForwardListener`](super::ForwardListener) or a [`ForwardCarrier`](super::ForwardCarrier) and its
/// connections. Made by [`ForwardConfig::builder`]; the default is plain CONNECT with what is right for most networks.
///
/// Memory is as for a [`H2Config`](crate::H2Config).
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    pub(super) tuning: Tuning,
    pub(super) dialect: Dialect,
    pub(super) name: String,
    pub(super) tells_client: bool,
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
}

/// Collects and checks the parts of a [`ForwardConfig`].
#[derive(Clone, Debug)]
pub struct ForwardConfigBuilder {
    config: ForwardConfig,
    /// As they were given.
    fields: Vec<(String, String)>,
}

impl Default for ForwardConfig {
    fn default() -> Self {
        Self {
            tuning: Tuning::unfitted(),
            dialect: Dialect::default(),
            name: NAME.to_owned(),
            tells_client: true,
            fields: Vec::new(),
        }
    }
}

impl ForwardConfig {
    /// Starts from the defaults.
    #[must_use]
    pub fn builder() -> ForwardConfigBuilder {
        ForwardConfigBuilder {
            config: ForwardConfig::default(),
            fields: Vec::new(),
        }
    }

    /// The largest number of streams that a listener lets one connection have open at once.
    #[must_use]
    pub fn limits(&self) -> StreamLimits {
        self.tuning.mux.proto.limits()
    }

    /// How a dead path is noticed.
    #[must_use]
    pub fn keepalive(&self) -> Keepalive {
        self.tuning.mux.proto.keepalive()
    }

    /// Which protocol is spoken.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }
}

impl ForwardConfigBuilder {
    /// Which protocol is spoken. Default [`Dialect::Connect`].
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.config.dialect = dialect;
        self
    }

    /// How streams are carried, as [`H2ConfigBuilder::mux`](crate::H2ConfigBuilder::mux) says. The limit on streams is
    /// the listener's SETTINGS_MAX_CONCURRENT_STREAMS; a carrier keeps to that of the proxy, whatever this one is.
    #[must_use]
    pub fn mux(mut self, mux: MuxConfig) -> Self {
        self.config.tuning.mux = mux;
        self
    }

    /// How many bytes the peer may send over all streams before their readers have taken them, as
    /// [`H2ConfigBuilder::connection_window`](crate::H2ConfigBuilder::connection_window) says. Default 2 GiB − 1.
    #[must_use]
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.config.tuning.connection_window = bytes;
        self
    }

    /// What a listener calls itself in `Proxy-Status` (RFC 9209), such as the agent's id. Default `tunnel`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// Whether the address of the client travels: a carrier sends it in `Forwarded` (RFC 7239), and a listener takes it
    /// from there or from `X-Forwarded-For`. Default yes.
    ///
    /// A listener believes what it is told by whomever it lets in, so let in only whom you believe, or say no. Without
    /// it, a stream has no [`client`](tunnel_core::StreamHead::client).
    #[must_use]
    pub fn tells_client(mut self, tells: bool) -> Self {
        self.config.tells_client = tells;
        self
    }

    /// What a carrier says of the workload that asks, in the field `baggage` (W3C Baggage), for example
    /// `k8s.cluster.name=main,k8s.namespace.name=tunnels,service.name=gateway`. Default nothing. It takes the place of
    /// what a stream's metadata has under `baggage`.
    #[must_use]
    pub fn baggage(self, baggage: impl Into<String>) -> Self {
        self.header("baggage", baggage)
    }

    /// A header field that a carrier adds to every request, such as `Proxy-Authorization`. May be called repeatedly.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Checks that the settings can work together.
    pub fn build(self) -> Result<ForwardConfig, InvalidConfig> {
        let Self { mut config, fields } = self;
        config.tuning.check()?;
        if config.name.is_empty() {
            return Err(InvalidConfig {
                setting: "name",
                problem: "must not be empty",
            });
        }
        config.fields = fields
            .iter()
            .map(|(name, value)| field(name, value))
            .collect::<Result<_, _>>()?;
        Ok(config)
    }
}

/// A field that requests may have beside those that belong to each stream.
fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), InvalidConfig> {
    let invalid = |problem| {
        Err(InvalidConfig {
            setting: "header",
            problem,
        })
    };
    let Ok(name) = HeaderName::try_from(name) else {
        return invalid("must have the name of a header field");
    };
    // Those of a connection do not exist in HTTP/2 (RFC 9113 §8.2.2), and CONNECT has no body.
    let unfit = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        header::HOST,
        header::CONTENT_LENGTH,
        header::FORWARDED,
    ];
    if unfit.contains(&name) || ["keep-alive", "proxy-connection", "traceparent", "tracestate"].contains(&name.as_str())
    {
        return invalid("must not be a field that belongs to the connection or to each stream");
    }
    let Ok(mut value) = HeaderValue::try_from(value) else {
        return invalid("must have the value of a header field");
    };
    value.set_sensitive([header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE].contains(&name));
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_named() {
        let builder = ForwardConfig::builder;
        for (builder, setting) in [
            (builder().name(""), "name"),
            (builder().connection_window(1), "connection_window"),
            (builder().header("a b", "c"), "header"),
            (builder().header("", "c"), "header"),
            (builder().header(":path", "/"), "header"),
            (builder().header("Connection", "close"), "header"),
            (builder().header("TraceParent", "x"), "header"),
            (builder().baggage("a=b\nc=d"), "header"),
        ] {
            assert_eq!(builder.build().unwrap_err().setting, setting);
        }
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let config = ForwardConfig::builder().header("Proxy-Authorization", "Basic c2VjcmV0");
        assert!(!format!("{:?}", config.build().unwrap()).contains("c2VjcmV0"));
    }
}
