//! The URLs of carriers and frontends: `SCHEME://ADDRESS`, no more general than that.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};

/// Splits `scheme://rest`.
pub fn split(url: &str) -> anyhow::Result<(&str, &str)> {
    match url.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Ok((scheme, rest)),
        _ => bail!("{url:?} is not a URL such as quic://ADDRESS:PORT"),
    }
}

/// The address to listen on: numbers only, because a name could mean several.
pub fn listen_addr(url: &str, rest: &str) -> anyhow::Result<SocketAddr> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    rest.parse().with_context(|| {
        format!("{url:?} does not name an address and a port to listen on, as in 0.0.0.0:8091 or [::]:8091")
    })
}

/// The parameters of a query, `KEY=VALUE` joined by `&`, with percent-encoding in the values undone.
pub fn query(query: &str) -> anyhow::Result<Vec<(String, String)>> {
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let parameter = |parameter: &str| {
        let Some((key, value)) = parameter.split_once('=') else {
            bail!("the parameter {parameter:?} is not KEY=VALUE");
        };
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
        let decoded = decoded.ok().filter(|_| is_percent_encoded(value));
        let decoded = decoded.with_context(|| format!("the value of {key:?} is not percent-encoded UTF-8"))?;
        Ok((key.to_owned(), decoded.into_owned()))
    };
    parameters.map(parameter).collect()
}

/// Whether every `%` has its two digits.
fn is_percent_encoded(value: &str) -> bool {
    value.split('%').skip(1).all(|rest| {
        let digits = rest.bytes().take(2).filter(u8::is_ascii_hexdigit);
        digits.count() == 2
    })
}

/// Host and port to dial, with the carrier's port if the URL names none.
pub fn dial_authority(url: &str, rest: &str, default_port: u16) -> anyhow::Result<tunnel_core::HostPort> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        // A password must not get into logs.
        bail!("the URL has a user or a password, and this one must not: proof is given by certificate or token");
    }
    if rest.contains('/') {
        bail!("{url:?} has a path, and this carrier knows none: give host and port alone");
    }
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let authority = if has_port {
        rest.to_owned()
    } else {
        format!("{rest}:{default_port}")
    };
    authority
        .parse()
        .with_context(|| format!("{url:?} does not name a host and a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_be_left_out_where_there_is_a_default() {
        for (rest, authority) in [
            ("gw.example", "gw.example:8091"),
            ("gw.example:443/", "gw.example:443"),
            ("[2001:db8::7]", "[2001:db8::7]:8091"),
            ("[2001:db8::7]:443", "[2001:db8::7]:443"),
        ] {
            assert_eq!(dial_authority("", rest, 8091).unwrap().to_string(), authority);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_url_in_the_text() {
        for url in ["quic", "://x", "quic://"] {
            assert!(split(url).unwrap_err().to_string().contains(url));
        }
        let dialled = |rest| dial_authority("grpc://…", rest, 1).unwrap_err().to_string();
        assert!(dialled("gw.example/path").contains("has a path"));
        assert!(!dialled("me:hunter2@gw.example").contains("hunter2"));
        assert!(
            listen_addr("quic://gw.example:1", "gw.example:1")
                .unwrap_err()
                .to_string()
                .contains("gw.example")
        );
        assert!(
            dial_authority("quic://a b", "a b", 1)
                .unwrap_err()
                .to_string()
                .contains("a b")
        );
    }
}
