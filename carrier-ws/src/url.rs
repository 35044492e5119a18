//! Where a server is.

use std::{fmt, str::FromStr};

use http::uri::PathAndQuery;
use tunnel_core::HostPort;

use crate::DEFAULT_PATH;

/// The URL of a tunnel: `ws://` or `wss://`, host, port and path (RFC 6455 §3). The port is 80 or 443 if none is named,
/// and the path [`DEFAULT_PATH`].
///
/// ```
/// use carrier_ws::WsUrl;
///
/// let url: WsUrl = "wss://gw.example".parse()?;
/// assert_eq!(url.to_string(), "wss://gw.example:443/tunnel");
/// assert!(url.is_secure());
/// # Ok::<(), carrier_ws::InvalidUrl>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsUrl {
    secure: bool,
    server: HostPort,
    path: PathAndQuery,
}

/// The text is not the URL of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {problem}")]
pub struct InvalidUrl {
    text: String,
    problem: String,
}

impl WsUrl {
    /// Whether there is TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// What a URL begins with that means TLS, if this one does not.
    pub(crate) fn secure_instead(&self) -> Option<&'static str> {
        (!self.secure).then_some("wss://")
    }

    /// Host and port.
    #[must_use]
    pub fn server(&self) -> &HostPort {
        &self.server
    }

    /// The path, with the query if there is one.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// What goes into the field Host: without the port if it is the scheme's (RFC 6455 §4.1).
    pub(crate) fn authority(&self) -> String {
        let whole = self.server.to_string();
        if self.server.port() == default_port(self.secure)
            && let Some((host, _)) = whole.rsplit_once(':')
        {
            return host.to_owned();
        }
        whole
    }
}

const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl FromStr for WsUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let invalid = |problem: &str| InvalidUrl {
            text: text.to_owned(),
            problem: problem.to_owned(),
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid("does not begin with ws:// or wss://"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return Err(invalid("does not begin with ws:// or wss://")),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(InvalidUrl {
                // A password must not get into logs.
                text: format!("{scheme}://…"),
                problem: "must not hold a user or a password".to_owned(),
            });
        }
        if path.contains('#') {
            return Err(invalid("must not hold a fragment (RFC 6455 §3)"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let server = if has_port {
            authority.parse()
        } else {
            format!("{authority}:{}", default_port(secure)).parse()
        };
        let server = server.map_err(|error| invalid(&format!("does not name a server: {error}")))?;
        let path = match path {
            "" => DEFAULT_PATH,
            path if path.starts_with('?') => return Err(invalid("has a query and no path")),
            path => path,
        };
        let path = path
            .parse()
            .map_err(|error| invalid(&format!("has a path that HTTP cannot carry: {error}")))?;
        Ok(Self { secure, server, path })
    }
}

impl fmt::Display for WsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.server, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_can_be_named() {
        for (text, whole, authority) in [
            ("ws://gw.example", "ws://gw.example:80/tunnel", "gw.example"),
            ("WSS://gw.example", "wss://gw.example:443/tunnel", "gw.example"),
            ("wss://gw.example/", "wss://gw.example:443/", "gw.example"),
            (
                "wss://gw.example:8443/a/b?c=d",
                "wss://gw.example:8443/a/b?c=d",
                "gw.example:8443",
            ),
            ("ws://gw.example:443", "ws://gw.example:443/tunnel", "gw.example:443"),
            ("ws://192.0.2.1:8091", "ws://192.0.2.1:8091/tunnel", "192.0.2.1:8091"),
            ("wss://[2001:db8::1]", "wss://[2001:db8::1]:443/tunnel", "[2001:db8::1]"),
            (
                "wss://[2001:db8::1]:91/x",
                "wss://[2001:db8::1]:91/x",
                "[2001:db8::1]:91",
            ),
        ] {
            let url: WsUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.authority().as_str()), (whole, authority));
            assert_eq!(whole.parse(), Ok(url));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, problem) in [
            ("gw.example", "does not begin with ws://"),
            ("https://gw.example", "does not begin with ws://"),
            ("ws://", "does not name a server"),
            ("ws://gw.example:0", "does not name a server"),
            ("ws://gw.example:x", "does not name a server"),
            ("ws://gw.example/a b", "HTTP cannot carry"),
            ("ws://gw.example/#x", "fragment"),
            ("ws://gw.example?x", "query and no path"),
        ] {
            let error = text.parse::<WsUrl>().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = "wss://me:hunter2@gw.example".parse::<WsUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
