//! What can be set, and what it costs.

use http::{HeaderMap, HeaderName, HeaderValue};
use tunnel_core::{Keepalive, StreamLimits, mux::MuxConfig, proto::mux::InvalidConfig};

use crate::DEFAULT_PATH;

/// The settings of a WebSocket end and its connections. Made by [`WsConfig::builder`]; the default is right for most
/// networks.
///
/// # Memory
///
/// Streams hold what the [mux](WsConfigBuilder::mux) lets them. Beside that an idle connection takes about 32 KiB, half of it for reading, and,
/// only while they are under way, a message of at most 128 KiB comes in and 80 KiB go out.
#[derive(Clone, Debug)]
pub struct WsConfig {
    pub(crate) mux: MuxConfig,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// Collects and checks the parts of a [`WsConfig`].
#[derive(Clone, Debug)]
pub struct WsConfigBuilder {
    mux: MuxConfig,
    path: String,
    headers: HeaderMap,
    problem: Option<&'static str>,
}

impl Default for WsConfig {
    fn default() -> Self {
        Self {
            mux: MuxConfig::default(),
            path: DEFAULT_PATH.to_owned(),
            headers: HeaderMap::new(),
        }
    }
}

impl WsConfig {
    /// Starts from the defaults.
    #[must_use]
    pub fn builder() -> WsConfigBuilder {
        let config = Self::default();
        WsConfigBuilder {
            mux: config.mux,
            path: config.path,
            headers: config.headers,
            problem: None,
        }
    }

    /// The largest number of streams that the peer may have open at once; a server announces it in its welcome.
    #[must_use]
    pub fn limits(&self) -> StreamLimits {
        self.mux.proto.limits()
    }

    /// How a dead path is noticed.
    #[must_use]
    pub fn keepalive(&self) -> Keepalive {
        self.mux.proto.keepalive()
    }
}

/// The fields that make the upgrade what it is.
fn is_ours(name: &HeaderName) -> bool {
    let ours = [
        "connection",
        "content-length",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "tunnel-claim",
        "upgrade",
    ];
    ours.contains(&name.as_str())
}

impl WsConfigBuilder {
    /// How streams are carried: their windows and their number, the keepalive, and the memory that all connections of the
    /// process may hold together. The keepalive also keeps the connection alive in proxies, which cut one that is silent:
    /// nginx after 60 s unless told otherwise.
    #[must_use]
    pub fn mux(mut self, mux: MuxConfig) -> Self {
        self.mux = mux;
        self
    }

    /// A server's: the path of the tunnel, without a query. Default [`DEFAULT_PATH`]. Other paths are answered by the
    /// listener's [fallback](crate::WsListener::with_fallback).
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// An agent's: adds a header field to the request, for something on the way: `Host` replaces the name of the URL
    /// (a virtual host, a proxy that is dialled by another name), `Authorization` or `Cookie` satisfy a proxy that
    /// wants to know who asks. With an `Authorization` the credential of the claim travels inside the claim. The
    /// fields of the upgrade itself cannot be set.
    ///
    /// A value does not show in `Debug` output.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            (Ok(name), _) if is_ours(&name) => self.problem = Some("must not be one of the upgrade itself"),
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                self.headers.append(name, value);
            }
            (Err(_), _) => self.problem = Some("must have a name of letters, digits and `-`"),
            (_, Err(_)) => self.problem = Some("must have a value of visible ASCII characters, spaces and tabs"),
        }
        self
    }

    /// Checks the whole.
    pub fn build(self) -> Result<WsConfig, InvalidConfig> {
        let invalid = |setting, problem| Err(InvalidConfig { setting, problem });
        if let Some(problem) = self.problem {
            return invalid("header", problem);
        }
        let as_path = self.path.parse::<http::uri::PathAndQuery>();
        if !self.path.starts_with('/') || as_path.is_err() {
            return invalid("path", "must begin with / and hold only what a path may");
        }
        if self.path.contains(['?', '#']) {
            return invalid("path", "must not hold a query or a fragment");
        }
        Ok(WsConfig {
            mux: self.mux,
            path: self.path,
            headers: self.headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let builder = WsConfig::builder;
        for (builder, setting) in [
            (builder().path("tunnel"), "path"),
            (builder().path("/a b"), "path"),
            (builder().path("/a?b"), "path"),
            (builder().header("Upgrade", "h2c"), "header"),
            (builder().header("Tunnel-Claim", "x"), "header"),
            (builder().header("a b", "x"), "header"),
            (builder().header("x", "a\nb"), "header"),
        ] {
            assert_eq!(builder.build().unwrap_err().setting, setting);
        }
        assert!(builder().path("/").header("Host", "gw").build().is_ok());
    }

    #[test]
    fn a_header_does_not_show() {
        let config = WsConfig::builder().header("Cookie", "hunter2").build().unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
