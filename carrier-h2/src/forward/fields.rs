//! Who the client is: `Forwarded` (RFC 7239) and `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

/// What proxies without RFC 7239 send.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The value of `Forwarded` for a client.
pub(super) fn forwarded(client: SocketAddr) -> Option<HeaderValue> {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    HeaderValue::try_from(format!("for=\"{client}\"")).ok()
}

/// The client that the fields name: the first one, who is the farthest (RFC 7239 §4). Port 0 if only its IP address is
/// named; none if that is not, or hidden.
pub(super) fn client(headers: &HeaderMap) -> Option<SocketAddr> {
    if let Some(forwarded) = headers.get(FORWARDED) {
        return of_forwarded(forwarded.to_str().ok()?);
    }
    let first = headers.get(X_FORWARDED_FOR)?.to_str().ok()?.split(',').next()?;
    address(first.trim())
}

fn of_forwarded(value: &str) -> Option<SocketAddr> {
    let element = until(value, ',').0;
    let mut rest = element;
    while !rest.is_empty() {
        let (pair, after) = until(rest, ';');
        rest = after;
        if let Some((name, node)) = pair.split_once('=')
            && name.trim().eq_ignore_ascii_case("for")
        {
            let node = node.trim();
            let quoted = node.strip_prefix('"').and_then(|node| node.strip_suffix('"'));
            return address(quoted.unwrap_or(node));
        }
    }
    None
}

/// What stands before the first such character that is not in quotes, and what behind it.
fn until(text: &str, end: char) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == end && !quoted => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

/// An address with or without a port, and with or without brackets.
fn address(node: &str) -> Option<SocketAddr> {
    if let Ok(ip) = node.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip.to_canonical(), 0));
    }
    let (ip, port) = match node.strip_prefix('[') {
        Some(node) => node.split_once(']')?,
        None => node.split_once(':').unwrap_or((node, "")),
    };
    // A port may be hidden though the address is not (RFC 7239 §6.3).
    let port = port.strip_prefix(':').unwrap_or(port).parse().unwrap_or(0);
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(name: &str, value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::try_from(value).unwrap(),
        );
        client(&headers).map(|client| client.to_string())
    }

    #[test]
    fn the_first_client_counts() {
        for (value, client) in [
            ("for=\"192.0.2.43:4711\"", Some("192.0.2.43:4711")),
            ("for=192.0.2.43", Some("192.0.2.43:0")),
            (
                "For=\"[2001:db8:cafe::17]:4711\";host=x",
                Some("[2001:db8:cafe::17]:4711"),
            ),
            ("proto=http;by=203.0.113.43; for=192.0.2.60", Some("192.0.2.60:0")),
            (
                "host=\"a;for=1.2.3.4\";for=192.0.2.60, for=198.51.100.17",
                Some("192.0.2.60:0"),
            ),
            ("for=\"192.0.2.43:_port\"", Some("192.0.2.43:0")),
            ("for=\"[::ffff:192.0.2.43]:7\"", Some("192.0.2.43:7")),
            ("for=_hidden, for=192.0.2.1", None),
            ("for=unknown", None),
            ("for=\"", None),
            ("for", None),
            ("", None),
        ] {
            assert_eq!(of("forwarded", value).as_deref(), client, "{value}");
        }
        for (value, client) in [
            ("203.0.113.195, 198.51.100.178", Some("203.0.113.195:0")),
            ("2001:db8::1", Some("[2001:db8::1]:0")),
            ("[2001:db8::1]:80", Some("[2001:db8::1]:80")),
            ("somebody", None),
        ] {
            assert_eq!(of("x-forwarded-for", value).as_deref(), client, "{value}");
        }
    }

    #[test]
    fn the_standard_comes_before_the_custom() {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"));
        headers.insert(FORWARDED, HeaderValue::from_static("for=unknown"));
        assert_eq!(client(&headers), None);
    }

    proptest! {
        #[test]
        fn what_is_sent_is_understood(addr in any::<SocketAddr>()) {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED, forwarded(addr).unwrap());
            let seen = client(&headers).unwrap();
            prop_assert_eq!(seen, SocketAddr::new(addr.ip().to_canonical(), addr.port()));
        }

        #[test]
        fn anything_may_come(value in "[ -~]{0,60}") {
            of("forwarded", &value);
            of("x-forwarded-for", &value);
        }
    }
}
