//! The request head, sans I/O: which requests are taken and what they mean.
//!
//! What RFC 9110 §9.3.6 and RFC 9112 leave open is decided thus:
//!
//! - The request target alone says where the tunnel ends. `Host` is never used: clients send anything there
//!   (kube-apiserver sends `127.0.0.1`). So a missing one is tolerated, but two are refused (RFC 9112 §3.2), because
//!   somebody may be playing proxies against each other.
//! - A CONNECT has no content: the bytes behind the head belong to the tunnel. A client or a proxy that announces
//!   content would see that otherwise, so any `Transfer-Encoding`, and any `Content-Length` but `0`, is refused.
//! - Every other field that is not named here is ignored.

use httparse::{EMPTY_HEADER, Status};
use tunnel_core::{AgentId, Labels, RefusalKind, Secret, Selector, Target, proto::TraceContext};

use crate::response::RefusalResponse;

/// Names the agent that is to carry the tunnel, by its id.
pub const AGENT_HEADER: &str = "Tunnel-Agent";
/// Names the agents that may carry the tunnel, by labels that they all must have: `region=eu,tier=edge`.
pub const AGENT_LABELS_HEADER: &str = "Tunnel-Agent-Labels";

/// A CONNECT request that is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) selector: Selector,
    pub(crate) trace: Option<TraceContext>,
    /// The value of `Proxy-Authorization`.
    pub(crate) authorization: Option<Secret>,
}

/// What the first bytes of a connection amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The head is not complete.
    Partial,
    /// A request, and how many bytes its head has.
    Request(Request, usize),
    /// No request that can be served.
    Refused(RefusalResponse),
}

/// Reads the request head at the start of `bytes`. However the bytes arrive, the outcome is the same as soon as there
/// is one.
pub(crate) fn parse(bytes: &[u8], max_headers: usize) -> Parsed {
    let mut headers = vec![EMPTY_HEADER; max_headers];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(bytes) {
        Ok(Status::Partial) => Parsed::Partial,
        Ok(Status::Complete(len)) => match interpret(&head) {
            Ok(request) => Parsed::Request(request, len),
            Err(refused) => Parsed::Refused(refused),
        },
        Err(error) => Parsed::Refused(malformed(error, bytes, max_headers)),
    }
}

/// The refusal of a request that is not served in this form.
fn bad(text: impl Into<String>) -> RefusalResponse {
    RefusalResponse::of_kind(RefusalKind::HttpRequestError, text.into())
}

fn malformed(error: httparse::Error, bytes: &[u8], max_headers: usize) -> RefusalResponse {
    /// The content type of a TLS record that holds a handshake (RFC 8446 §5.1).
    const TLS_HANDSHAKE: u8 = 0x16;
    let kind = RefusalKind::HttpRequestError;
    match error {
        httparse::Error::TooManyHeaders => RefusalResponse::new(
            431,
            kind,
            format!("the request has more than {max_headers} header fields"),
        ),
        httparse::Error::Version => RefusalResponse::new(505, kind, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
        _ if bytes.first() == Some(&TLS_HANDSHAKE) => {
            bad("the client started a TLS handshake, but this port speaks HTTP without TLS")
        }
        error => bad(format!("the request is malformed: {error}")),
    }
}

fn interpret(head: &httparse::Request<'_, '_>) -> Result<Request, RefusalResponse> {
    // A complete head has them.
    let (Some(method), Some(authority)) = (head.method, head.path) else {
        return Err(bad("the request has no request line"));
    };
    if method != "CONNECT" {
        let mut refused = RefusalResponse::new(
            405,
            RefusalKind::HttpRequestError,
            "this proxy only tunnels: use the method CONNECT (curl: add --proxytunnel)",
        );
        refused.bodiless = method == "HEAD";
        return Err(refused);
    }
    refuse_content(head.headers)?;
    single(head.headers, "Host")?;
    Ok(Request {
        target: Target::from_authority(authority).map_err(|invalid| bad(invalid.to_string()))?,
        selector: selector(head.headers)?,
        trace: trace(head.headers),
        authorization: authorization(head.headers)?,
    })
}

fn authorization(headers: &[httparse::Header<'_>]) -> Result<Option<Secret>, RefusalResponse> {
    let value = single(headers, "Proxy-Authorization")?;
    value
        .map(Secret::new)
        .transpose()
        .map_err(|_| bad("Proxy-Authorization is empty or too long"))
}

fn refuse_content(headers: &[httparse::Header<'_>]) -> Result<(), RefusalResponse> {
    let encoded = values(headers, "Transfer-Encoding").next().is_some();
    if encoded || single(headers, "Content-Length")?.is_some_and(|length| length != b"0") {
        return Err(bad(
            "a CONNECT request has no content: Transfer-Encoding, and Content-Length other than 0, are refused",
        ));
    }
    Ok(())
}

fn selector(headers: &[httparse::Header<'_>]) -> Result<Selector, RefusalResponse> {
    let agent = single(headers, AGENT_HEADER)?;
    let labels = single(headers, AGENT_LABELS_HEADER)?;
    match (agent, labels) {
        (None, None) => Ok(Selector::Any),
        (Some(agent), None) => parse_text::<AgentId>(agent)
            .map(Selector::Agent)
            .ok_or_else(|| bad(format!("{AGENT_HEADER} is not an agent id"))),
        (None, Some(labels)) => parse_labels(labels).map(Selector::Labels).ok_or_else(|| {
            bad(format!(
                "{AGENT_LABELS_HEADER} is not a list of labels such as region=eu,tier=edge"
            ))
        }),
        (Some(_), Some(_)) => Err(bad(format!(
            "{AGENT_HEADER} and {AGENT_LABELS_HEADER} exclude each other"
        ))),
    }
}

/// Labels as `name=value,name=value`, with white space around the commas; at least one, and no name twice.
fn parse_labels(value: &[u8]) -> Option<Labels> {
    let mut labels = Labels::default();
    for pair in std::str::from_utf8(value).ok()?.split(',') {
        let (name, value) = pair.trim_matches([' ', '\t']).split_once('=')?;
        if labels.get(name).is_some() || !labels.insert(name, value) {
            return None;
        }
    }
    Some(labels)
}

/// The trace context, if there is a valid one; a bad one is dropped, not refused (Trace Context §4.3).
fn trace(headers: &[httparse::Header<'_>]) -> Option<TraceContext> {
    let mut parents = values(headers, "traceparent");
    let parent = std::str::from_utf8(parents.next()?).ok()?;
    if parents.next().is_some() {
        return None;
    }
    let states: Vec<_> = values(headers, "tracestate").collect();
    let state = String::from_utf8(states.join(&b','));
    state
        .ok()
        .and_then(|state| TraceContext::new(parent, &state).ok())
        .or_else(|| parent.parse().ok())
}

/// The values of all fields with this name, in order.
fn values<'a>(headers: &'a [httparse::Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = move |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
    headers.iter().filter(named).map(|header| header.value)
}

/// The value of the field with this name, if there is one; two are refused.
fn single<'a>(headers: &'a [httparse::Header<'_>], name: &'a str) -> Result<Option<&'a [u8]>, RefusalResponse> {
    let mut values = values(headers, name);
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(bad(format!("the request has the field {name} twice"))),
    }
}

fn parse_text<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_HEADERS: usize = 8;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes(), MAX_HEADERS) {
            Parsed::Request(request, len) => {
                assert_eq!(len, text.len(), "{text:?}");
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(text: impl AsRef<[u8]>, status: u16, words: &str) {
        let text = text.as_ref();
        match parse(text, MAX_HEADERS) {
            Parsed::Refused(response) => {
                let shown = String::from_utf8_lossy(text);
                assert_eq!(response.status, status, "{shown:?}: {response:?}");
                assert!(response.text.as_str().contains(words), "{shown:?}: {response:?}");
            }
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(text)),
        }
    }

    #[test]
    fn the_request_target_decides_and_host_does_not() {
        for text in [
            "CONNECT 10.0.0.1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "CONNECT 10.0.0.1:10250 HTTP/1.1\r\n\r\n",
            "CONNECT 10.0.0.1:10250 HTTP/1.0\r\n\r\n",
            "\r\nCONNECT 10.0.0.1:10250 HTTP/1.1\r\nHost: evil.example:1\r\n\r\n",
            "CONNECT 10.0.0.1:10250 HTTP/1.1\r\ncontent-length: 0\r\nUser-Agent: x\r\nHost:\r\n\r\n",
            "CONNECT 10.0.0.1:10250 HTTP/1.1\nHost: 127.0.0.1\n\n",
        ] {
            let request = request(text);
            assert_eq!(request.target.to_string(), "tcp://10.0.0.1:10250");
            assert_eq!(request.selector, Selector::Any);
        }
    }

    #[test]
    fn every_form_of_host_is_a_target() {
        for (authority, target) in [
            ("a.example:443", "tcp://a.example:443"),
            ("[2001:DB8::7]:443", "tcp://[2001:db8::7]:443"),
            ("node_7.:1", "tcp://node_7.:1"),
        ] {
            let request = request(&format!("CONNECT {authority} HTTP/1.1\r\n\r\n"));
            assert_eq!(request.target.to_string(), target);
        }
    }

    #[test]
    fn bad_targets_are_refused_with_the_reason() {
        for (authority, words) in [
            ("a.example", "port"),
            ("a.example:0", "port"),
            ("a.example:65536", "port"),
            ("a.example:+1", "port"),
            (":443", "no host"),
            ("2001:db8::7:443", "brackets"),
            ("[fe80::1%25eth0]:443", "brackets"),
            ("127.1:80", "IPv4"),
            ("a..b:80", "DNS name"),
            ("user@a.example:80", "DNS name"),
            ("http://a.example:80/", "port"),
            ("/", "port"),
            ("*", "port"),
        ] {
            refused(format!("CONNECT {authority} HTTP/1.1\r\n\r\n"), 400, words);
        }
        refused("CONNECT h\u{e9}.example:80 HTTP/1.1\r\n\r\n", 400, "");
        refused(format!("CONNECT {}:1 HTTP/1.1\r\n\r\n", "a".repeat(256)), 400, "255");
    }

    #[test]
    fn other_methods_are_not_allowed() {
        for method in ["GET", "HEAD", "POST", "OPTIONS", "connect", "CONNECTX"] {
            let text = format!("{method} http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n");
            refused(text, 405, "CONNECT");
        }
    }

    #[test]
    fn other_versions_are_not_supported() {
        refused("CONNECT a.example:1 HTTP/1.2\r\n\r\n", 505, "HTTP/1.1");
        refused("CONNECT a.example:1 HTTP/2.0\r\n\r\n", 505, "HTTP/1.1");
        refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1");
    }

    #[test]
    fn announced_content_is_refused() {
        for field in [
            "Transfer-Encoding: chunked",
            "transfer-encoding: identity",
            "Content-Length: 5",
            "Content-Length: 00",
            "Content-Length: 0, 0",
            "Content-Length: 0\r\nContent-Length: 0",
        ] {
            refused(
                format!("CONNECT a.example:1 HTTP/1.1\r\n{field}\r\n\r\n"),
                400,
                "Content-Length",
            );
        }
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        for (head, words) in [
            ("Host: a\r\nHost: b", "twice"),
            ("Host : a", "malformed"),
            ("Host: a\r\n folded", "malformed"),
            ("X: a\rb", "malformed"),
            ("X: a\0b", "malformed"),
            (": a", "malformed"),
            (
                "Proxy-Authorization: Basic YTpi\r\nProxy-Authorization: Basic YTpj",
                "twice",
            ),
        ] {
            refused(format!("CONNECT a.example:1 HTTP/1.1\r\n{head}\r\n\r\n"), 400, words);
        }
        refused(" CONNECT a.example:1 HTTP/1.1\r\n\r\n", 400, "malformed");
        refused("CONNECT  a.example:1 HTTP/1.1\r\n\r\n", 400, "malformed");
    }

    #[test]
    fn garbage_is_refused() {
        refused([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], 400, "TLS");
        refused([5, 1, 0], 400, "malformed");
        refused([0xff; 20], 400, "malformed");
    }

    #[test]
    fn too_many_fields_are_refused() {
        let fields = |n| format!("CONNECT a.example:1 HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(n));
        request(&fields(MAX_HEADERS));
        refused(fields(MAX_HEADERS + 1), 431, "more than 8");
    }

    #[test]
    fn a_header_chooses_the_agent() {
        let with = |fields: &str| request(&format!("CONNECT a.example:1 HTTP/1.1\r\n{fields}\r\n\r\n")).selector;
        assert_eq!(with("tunnel-agent: node-7"), Selector::Agent("node-7".parse().unwrap()));
        let mut labels = Labels::default();
        assert!(labels.insert("region", "eu") && labels.insert("example.com/tier", ""));
        assert_eq!(
            with("Tunnel-Agent-Labels: region=eu ,\texample.com/tier="),
            Selector::Labels(labels)
        );
        for field in [
            "Tunnel-Agent:",
            "Tunnel-Agent: a b",
            "Tunnel-Agent: a\r\nTunnel-Agent: a",
            "Tunnel-Agent: a\r\nTunnel-Agent-Labels: a=b",
            "Tunnel-Agent-Labels:",
            "Tunnel-Agent-Labels: a",
            "Tunnel-Agent-Labels: =b",
            "Tunnel-Agent-Labels: a=b,",
            "Tunnel-Agent-Labels: a=b,a=c",
            "Tunnel-Agent-Labels: a=b=c",
        ] {
            refused(
                format!("CONNECT a.example:1 HTTP/1.1\r\n{field}\r\n\r\n"),
                400,
                "Tunnel-Agent",
            );
        }
    }

    #[test]
    fn a_valid_trace_context_is_kept_and_a_bad_one_dropped() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let with = |fields: &str| request(&format!("CONNECT a.example:1 HTTP/1.1\r\n{fields}\r\n\r\n")).trace;
        let trace = with(&format!("TraceParent: {parent}\r\ntracestate: a=1\r\ntracestate: b=2")).unwrap();
        assert_eq!((trace.parent(), trace.state()), (parent, "a=1,b=2"));
        let long = with(&format!("traceparent: {parent}\r\ntracestate: a={}", "x".repeat(600))).unwrap();
        assert_eq!((long.parent(), long.state()), (parent, ""));
        assert_eq!(with("traceparent: 00-zz-b7ad6b7169203331-01"), None);
        assert_eq!(with(&format!("traceparent: {parent}\r\ntraceparent: {parent}")), None);
        assert_eq!(with("tracestate: a=1"), None);
    }
}
