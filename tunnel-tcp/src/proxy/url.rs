//! A proxy and what it is called.

use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;
use tunnel_core::{Host, HostPort};

/// The longest user name and the longest password: SOCKS has a byte for their lengths (RFC 1929 §2).
const MAX_CREDENTIAL: usize = 255;

/// A proxy that makes connections for others.
///
/// The text form is a URL, `scheme://[user[:password]@]host[:port]`; without a scheme it is `http`. User and password
/// are percent-encoded where they hold characters that mean something in URLs, such as `@`, `:` and `/`. A path is
/// ignored. `Display` and `Debug` leave user and password out.
///
/// | scheme | what the proxy speaks | default port |
/// | --- | --- | --- |
/// | `http` | HTTP CONNECT (RFC 9110 §9.3.6), with Basic authentication (RFC 7617) | 80 |
/// | `socks5` | SOCKS 5 (RFC 1928, RFC 1929); this side resolves the server's name | 1080 |
/// | `socks5h` | the same; the proxy resolves it | 1080 |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    scheme: Scheme,
    at: HostPort,
    credentials: Option<Credentials>,
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Socks5,
    Socks5h,
}

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: Vec<u8>,
    pub(crate) password: Vec<u8>,
}

/// The text is not a proxy that can be used. The message does not quote it, for it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProxy {
    /// A proxy with TLS of its own.
    #[error("proxies that want TLS for themselves (https://) are not supported: most proxies take http:// as well")]
    Https,
    /// Another scheme.
    #[error("the URL of a proxy begins with http://, socks5:// or socks5h://")]
    Scheme,
    /// The host or the port is wrong.
    #[error(
        "the URL of a proxy needs a DNS name or an IP address (IPv6 in brackets) and may have a port from 1 to 65535"
    )]
    Host,
    /// The user name or the password cannot be sent.
    #[error(
        "the user name and the password of a proxy have at most 255 bytes each and are percent-encoded in its URL, and \
         the user name of a http:// proxy holds no colon"
    )]
    Credentials,
}

impl Proxy {
    /// Where the proxy is.
    #[must_use]
    pub fn host_port(&self) -> &HostPort {
        &self.at
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let text = text.trim();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.parse()?, rest),
            None => (Scheme::Http, text),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // What was meant as a password would be taken for a port.
        if path.contains('@') {
            return Err(InvalidProxy::Credentials);
        }
        let (user_info, host_port) = match authority.rsplit_once('@') {
            Some((user_info, host_port)) => (Some(user_info), host_port),
            None => (None, authority),
        };
        let credentials = user_info.filter(|text| !text.is_empty());
        let credentials = credentials.map(|text| Credentials::parse(text, scheme)).transpose()?;
        Ok(Self {
            scheme,
            at: host_and_port(host_port, scheme)?,
            credentials,
        })
    }
}

fn host_and_port(text: &str, scheme: Scheme) -> Result<HostPort, InvalidProxy> {
    let has_port = !text.ends_with(']') && text.contains(':');
    let parsed = if has_port {
        text.parse()
    } else {
        text.parse::<Host>()
            .and_then(|host| HostPort::new(host, scheme.default_port()))
    };
    parsed.map_err(|_| InvalidProxy::Host)
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.at)
    }
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks5 => "socks5",
            Self::Socks5h => "socks5h",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Socks5 | Self::Socks5h => 1080,
        }
    }
}

impl FromStr for Scheme {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        if text.eq_ignore_ascii_case("https") {
            return Err(InvalidProxy::Https);
        }
        let all = [Self::Http, Self::Socks5, Self::Socks5h];
        let scheme = all
            .into_iter()
            .find(|scheme| text.eq_ignore_ascii_case(scheme.as_str()));
        scheme.ok_or(InvalidProxy::Scheme)
    }
}

impl Credentials {
    fn parse(text: &str, scheme: Scheme) -> Result<Self, InvalidProxy> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decoded = |text| percent_decode_str(text).collect::<Vec<u8>>();
        let (user, password) = (decoded(user), decoded(password));
        // A colon ends the user name in Basic authentication (RFC 7617 §2).
        let is_ambiguous = scheme == Scheme::Http && user.contains(&b':');
        if is_ambiguous || user.len() > MAX_CREDENTIAL || password.len() > MAX_CREDENTIAL {
            return Err(InvalidProxy::Credentials);
        }
        Ok(Self { user, password })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxy(text: &str) -> Proxy {
        text.parse().unwrap()
    }

    #[test]
    fn a_url_says_what_is_spoken_and_where() {
        for (text, expected) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy.example", "http://proxy.example:80"),
            ("HTTP://proxy.example:3128/", "http://proxy.example:3128"),
            (" proxy.example:3128 ", "http://proxy.example:3128"),
            ("proxy.example", "http://proxy.example:80"),
            ("192.0.2.7:8080", "http://192.0.2.7:8080"),
            ("http://[2001:db8::7]", "http://[2001:db8::7]:80"),
            ("socks5://[2001:db8::7]:9", "socks5://[2001:db8::7]:9"),
            ("socks5h://proxy.example/a?b#c", "socks5h://proxy.example:1080"),
            ("user:p@ss@proxy.example:1", "http://proxy.example:1"),
        ] {
            assert_eq!(proxy(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let long = format!("http://{}@proxy.example", "x".repeat(256));
        for (text, expected) in [
            ("https://proxy.example", InvalidProxy::Https),
            ("ftp://proxy.example", InvalidProxy::Scheme),
            ("socks4://proxy.example", InvalidProxy::Scheme),
            ("://proxy.example", InvalidProxy::Scheme),
            ("", InvalidProxy::Host),
            ("http://", InvalidProxy::Host),
            ("http://user@", InvalidProxy::Host),
            ("http://proxy.example:0", InvalidProxy::Host),
            ("http://proxy.example:", InvalidProxy::Host),
            ("http://proxy.example:99999", InvalidProxy::Host),
            ("http://2001:db8::7", InvalidProxy::Host),
            ("http://a%3Ab:c@proxy.example", InvalidProxy::Credentials),
            ("http://me:12/3@proxy.example", InvalidProxy::Credentials),
            (&long, InvalidProxy::Credentials),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn user_and_password_are_decoded() {
        let parts = |text: &str| {
            let proxy = proxy(text);
            let credentials = proxy.credentials.unwrap();
            (credentials.user, credentials.password)
        };
        let expected = |user: &str, password: &str| (user.as_bytes().to_vec(), password.as_bytes().to_vec());
        assert_eq!(parts("http://me:hunter2@p"), expected("me", "hunter2"));
        assert_eq!(parts("http://me@p"), expected("me", ""));
        assert_eq!(parts("http://me:a:b@p"), expected("me", "a:b"));
        assert_eq!(parts("http://m%40e:a%2Fb%3a%25@p"), expected("m@e", "a/b:%"));
        assert_eq!(parts("http://me:100%@p"), expected("me", "100%"));
        assert_eq!(parts("socks5://a%3Ab:c@p"), expected("a:b", "c"));
        assert_eq!(proxy("http://@p").credentials, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_repeating_it(text: String) {
            let secret = "hunter2";
            for text in [text.clone(), format!("http://me:{secret}@{text}"), format!("{text}://{secret}:{secret}@p")] {
                let shown = match text.parse::<Proxy>() {
                    Ok(proxy) => format!("{proxy} {proxy:?}"),
                    Err(error) => format!("{error} {error:?}"),
                };
                prop_assert!(!shown.contains(secret), "{}", shown);
            }
        }
    }
}
