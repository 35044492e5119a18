//! Proxies on the way out.

mod connect;
mod exempt;
mod socks;
mod url;

use std::{env, io};

use tunnel_core::{DialError, HostPort};

pub use self::url::{InvalidProxy, Proxy};
pub(crate) use self::{
    connect::connect,
    socks::{Destination, Refused, socks},
    url::Scheme,
};
use self::{exempt::Exempt, url::Credentials};

/// The variables that name a proxy, most wanted first.
const PROXY: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The variables that list what is reached without it.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Which servers are reached through which proxy.
///
/// Servers on this machine, `localhost` and the loopback addresses, are never reached through a proxy, for which they
/// would be other servers.
///
/// # Exceptions
///
/// A list of exceptions is read as Go's `httpproxy` package reads `NO_PROXY`: entries between commas (and white space,
/// too), without regard to case. An entry is
///
/// - `*`: everything;
/// - `example.com`: this name and all below it;
/// - `.example.com` or `*.example.com`: the names below it, but not this name itself;
/// - `192.0.2.7` or `2001:db8::7`: this address;
/// - `192.0.2.0/24` or `2001:db8::/32`: the addresses of this network.
///
/// All but networks may be followed by a colon and a port, and then mean that port alone; an IPv6 address is in
/// brackets then. Names are not resolved for it: an address or network exempts servers that are given as addresses.
/// Anything else exempts nothing.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    proxy: Option<Proxy>,
    exempt: Exempt,
}

/// A variable of the environment does not name a proxy that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variable {variable} does not name a proxy that can be used")]
pub struct InvalidVariable {
    /// The name of the variable.
    pub variable: &'static str,
    /// What is wrong with its value.
    pub source: InvalidProxy,
}

impl Proxies {
    /// No server is reached through a proxy.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every server is reached through this proxy, but those of [`Proxies::except`].
    #[must_use]
    pub fn one(proxy: Proxy) -> Self {
        Self {
            proxy: Some(proxy),
            exempt: Exempt::default(),
        }
    }

    /// Adds exceptions, in the form described above.
    #[must_use]
    pub fn except(mut self, list: &str) -> Self {
        self.exempt.add(list);
        self
    }

    /// The proxy of the environment: the first of `HTTPS_PROXY`, `https_proxy`, `ALL_PROXY` and `all_proxy` that is
    /// set and not empty, with the exceptions of `NO_PROXY` or `no_proxy`. Upper case goes first, as in Go.
    ///
    /// `HTTPS_PROXY` counts with and without TLS, for either is a tunnel through the proxy, which is what that variable
    /// is about. `HTTP_PROXY` does not count: it names a proxy that forwards single requests, and may come from
    /// one (the CGI variable of a request header `Proxy`).
    pub fn from_env() -> Result<Self, InvalidVariable> {
        Self::from_variables(|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidVariable> {
        let first = |names: &[&'static str]| {
            let set = |name: &&'static str| Some((*name, get(name).filter(|value| !value.trim().is_empty())?));
            names.iter().find_map(set)
        };
        let Some((variable, url)) = first(&PROXY) else {
            return Ok(Self::none());
        };
        let proxy = url.parse().map_err(|source| InvalidVariable { variable, source })?;
        let proxies = Self::one(proxy);
        Ok(match first(&NO_PROXY) {
            Some((_, list)) => proxies.except(&list),
            None => proxies,
        })
    }

    /// The proxy through which a server is reached, if it is reached through one.
    #[must_use]
    pub fn proxy_for(&self, server: &HostPort) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| !self.exempt.covers(server))
    }
}

/// Why a proxy did not make a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What it did not do and why; the proxy is the subject of the sentence.
    pub(crate) explanation: String,
    pub(crate) is_retryable: bool,
}

impl Failure {
    /// As an error of dialling.
    pub(crate) fn of(self, proxy: &Proxy) -> DialError {
        DialError::Proxy {
            proxy: proxy.to_string(),
            explanation: self.explanation,
            is_retryable: self.is_retryable,
        }
    }

    fn temporary(explanation: impl Into<String>) -> Self {
        Self {
            explanation: explanation.into(),
            is_retryable: true,
        }
    }

    fn lasting(explanation: impl Into<String>) -> Self {
        Self {
            explanation: explanation.into(),
            is_retryable: false,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::temporary(match error.kind() {
            io::ErrorKind::UnexpectedEof => "closed the connection before it answered".to_owned(),
            _ => format!("did not answer: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, InvalidVariable> {
        Proxies::from_variables(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn chosen(variables: &[(&str, &str)], server: &str) -> Option<String> {
        let proxies = proxies(variables).unwrap();
        proxies.proxy_for(&server.parse().unwrap()).map(ToString::to_string)
    }

    #[test]
    fn the_first_variable_that_is_set_counts() {
        let all = [
            ("all_proxy", "four"),
            ("ALL_PROXY", "three"),
            ("https_proxy", "two"),
            ("HTTPS_PROXY", "one"),
        ];
        for (set, expected) in [(4, "one"), (3, "two"), (2, "three"), (1, "four")] {
            let expected = format!("http://{expected}:80");
            assert_eq!(chosen(&all[..set], "gw.example:443"), Some(expected));
        }
        assert_eq!(
            chosen(&[("HTTPS_PROXY", " "), ("ALL_PROXY", "x")], "gw.example:1").unwrap(),
            "http://x:80"
        );
        assert_eq!(
            chosen(&[("HTTP_PROXY", "x"), ("http_proxy", "x")], "gw.example:1"),
            None
        );
        assert_eq!(chosen(&[], "gw.example:1"), None);
    }

    #[test]
    fn exceptions_of_the_environment_count() {
        let upper = [("HTTPS_PROXY", "x"), ("NO_PROXY", "gw.example"), ("no_proxy", "*")];
        assert_eq!(chosen(&upper, "gw.example:1"), None);
        assert_eq!(chosen(&upper, "other.example:1").unwrap(), "http://x:80");
        let lower = [("HTTPS_PROXY", "x"), ("NO_PROXY", ""), ("no_proxy", "gw.example")];
        assert_eq!(chosen(&lower, "gw.example:1"), None);
    }

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        let proxies = Proxies::one("http://proxy.example".parse().unwrap());
        for here in [
            "localhost:1",
            "LocalHost.:1",
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(proxies.proxy_for(&here.parse().unwrap()).is_none(), "{here}");
        }
        for elsewhere in ["localhost.example:1", "128.0.0.1:1", "[::2]:1", "0.0.0.0:1"] {
            assert!(proxies.proxy_for(&elsewhere.parse().unwrap()).is_some(), "{elsewhere}");
        }
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_named_without_its_value() {
        let error = proxies(&[("ALL_PROXY", "ftp://me:hunter2@proxy.example")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the variable ALL_PROXY does not name a proxy that can be used"
        );
        assert!(!format!("{error:?} {}", error.source).contains("hunter2"));
    }
}
