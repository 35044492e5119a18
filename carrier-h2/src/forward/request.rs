//! Heads as requests.

use h2::ext::Protocol as Extended;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header::FORWARDED, request, uri::Authority,
};
use tunnel_core::{Refusal, RefusalKind, StreamHead, Target, proto::TraceContext};

use super::fields;
use crate::http2;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The field, and the name in metadata.
const BAGGAGE: &str = "baggage";

/// A request that opens no stream, and what to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

/// Opens a stream. `extra` are the fields that every request has.
pub(super) fn write(
    head: &StreamHead,
    extra: &[(HeaderName, HeaderValue)],
    tells_client: bool,
) -> Result<Request<()>, Refusal> {
    let unfit = |text: String| Err(Refusal::new(RefusalKind::HttpRequestError, text));
    let target = &head.target;
    let Target::Tcp(server) = target else {
        return unfit(format!("{target} cannot be reached by CONNECT, which is for TCP"));
    };
    let Ok(authority) = Authority::try_from(server.to_string()) else {
        return unfit(format!("{target} cannot be named in a CONNECT"));
    };
    let mut request = http2::connect(authority);
    let headers = request.headers_mut();
    if let Some(trace) = &head.trace {
        insert(headers, TRACEPARENT, trace.parent());
        if !trace.state().is_empty() {
            insert(headers, TRACESTATE, trace.state());
        }
    }
    if let Some(client) = head.client.filter(|_| tells_client)
        && let Some(value) = fields::forwarded(client)
    {
        headers.insert(FORWARDED, value);
    }
    if let Some(baggage) = head.metadata.get(BAGGAGE) {
        insert(headers, HeaderName::from_static(BAGGAGE), baggage);
    }
    let mut seen = HeaderMap::new();
    for (name, value) in extra {
        if !seen.contains_key(name) {
            headers.remove(name);
        }
        seen.insert(name, HeaderValue::from_static(""));
        headers.append(name, value.clone());
    }
    Ok(request)
}

/// A field that does not fit is left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Reads a request.
pub(super) fn read(request: &request::Parts, tells_client: bool) -> Result<StreamHead, Unfit> {
    let unfit = |status, text: String| Err(Unfit { status, text });
    if request.method != Method::CONNECT {
        let text = format!("this port serves CONNECT, not {}", request.method);
        return unfit(StatusCode::METHOD_NOT_ALLOWED, text);
    }
    if let Some(protocol) = request.extensions.get::<Extended>() {
        let text = format!(
            "extended CONNECT is not served, nor is its protocol {}",
            protocol.as_str()
        );
        return unfit(StatusCode::NOT_IMPLEMENTED, text);
    }
    let authority = request.uri.authority().map(Authority::as_str).unwrap_or_default();
    let target = match Target::from_authority(authority) {
        Ok(target) => target,
        Err(error) => {
            let text = format!("{authority:?} is not a host and a port: {error}");
            return unfit(StatusCode::BAD_REQUEST, text);
        }
    };
    let headers = &request.headers;
    let mut head = StreamHead::new(target);
    head.trace = trace(headers);
    head.client = fields::client(headers).filter(|_| tells_client);
    if let Some(baggage) = list(headers, BAGGAGE)
        && !head.metadata.push(BAGGAGE, &baggage)
    {
        tracing::debug!("a field baggage does not fit into metadata, and is left out");
    }
    Ok(head)
}

fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let parent = headers.get(TRACEPARENT)?.to_str().ok()?;
    let state = list(headers, TRACESTATE.as_str()).unwrap_or_default();
    // A state that is too long or malformed must not take the parent with it (Trace Context §3.3.1.2).
    TraceContext::new(parent, &state).or_else(|_| parent.parse()).ok()
}

/// The value of a field that may be repeated.
fn list(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn request(method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn connect(fields: &[(&str, &str)]) -> StreamHead {
        read(&request("CONNECT", "db.internal:5432", fields), true).unwrap()
    }

    #[test]
    fn what_opens_no_stream_is_answered_in_words() {
        for (method, uri, status) in [
            ("GET", "http://gw/", 405),
            ("POST", "http://gw/tunnel", 405),
            ("CONNECT", "db.internal", 400),
            ("CONNECT", "db.internal:0", 400),
            ("CONNECT", "db.internal:70000", 400),
            ("CONNECT", "user@db.internal:1", 400),
            ("CONNECT", "/", 400),
        ] {
            let unfit = read(&request(method, uri, &[]), true).unwrap_err();
            assert_eq!(unfit.status.as_u16(), status, "{method} {uri}: {}", unfit.text);
        }
        let mut extended = request("CONNECT", "https://db.internal:1/chat", &[]);
        extended.extensions.insert(Extended::from_static("websocket"));
        assert_eq!(read(&extended, true).unwrap_err().status.as_u16(), 501);
    }

    #[test]
    fn fields_become_the_head() {
        let head = connect(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("forwarded", "for=\"192.0.2.1:7\""),
            ("baggage", "k8s.namespace.name=default"),
            ("baggage", "service.name=web"),
            ("cookie", "secret"),
        ]);
        assert_eq!(head.target.to_string(), "tcp://db.internal:5432");
        let trace = head.trace.unwrap();
        assert_eq!((trace.parent(), trace.state()), (PARENT, "a=1,b=2"));
        assert_eq!(head.client, Some("192.0.2.1:7".parse().unwrap()));
        let metadata: Vec<_> = head.metadata.iter().collect();
        assert_eq!(metadata, [("baggage", "k8s.namespace.name=default,service.name=web")]);
    }

    #[test]
    fn fields_that_are_malformed_are_no_reason_to_refuse() {
        let head = connect(&[("traceparent", "00-nonsense"), ("forwarded", "for=?")]);
        assert_eq!((head.trace, head.client), (None, None));
        let long = "x=".repeat(500);
        let head = connect(&[("traceparent", PARENT), ("tracestate", &long)]);
        assert_eq!(head.trace.unwrap().state(), "");
        let head = connect(&[("baggage", &"x".repeat(5000))]);
        assert!(head.metadata.is_empty());
    }

    #[test]
    fn a_client_is_told_only_where_that_is_wanted() {
        let parts = request("CONNECT", "db:1", &[("x-forwarded-for", "192.0.2.1")]);
        assert_eq!(read(&parts, false).unwrap().client, None);
        let mut head = read(&parts, true).unwrap();
        assert!(write(&head, &[], true).unwrap().headers().contains_key(FORWARDED));
        assert!(!write(&head, &[], false).unwrap().headers().contains_key(FORWARDED));
        head.client = None;
        assert!(!write(&head, &[], true).unwrap().headers().contains_key(FORWARDED));
    }

    #[test]
    fn fields_of_the_configuration_come_before_those_of_the_stream() {
        let mut head = connect(&[]);
        assert!(head.metadata.push("baggage", "of=stream"));
        let field = |value| (HeaderName::from_static("baggage"), HeaderValue::from_static(value));
        let request = write(&head, &[field("a=1"), field("b=2")], true).unwrap();
        assert_eq!(list(request.headers(), "baggage").unwrap(), "a=1,b=2");
        assert_eq!(
            list(write(&head, &[], true).unwrap().headers(), "baggage").unwrap(),
            "of=stream"
        );
    }

    #[test]
    fn targets_that_connect_has_no_name_for_are_refused() {
        for target in ["udp://dns.test:53", "unix:///run/app.sock"] {
            let refusal = write(&StreamHead::new(target.parse().unwrap()), &[], true).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::HttpRequestError);
            assert!(refusal.text.as_str().contains(target), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            host in prop_oneof![
                "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z]{2,5}){1,2}",
                any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
                any::<std::net::Ipv6Addr>().prop_map(|ip| format!("[{}]", ip)),
            ],
            port in 1..u16::MAX,
            client in prop::option::of(any::<std::net::SocketAddrV4>()),
            state in prop::option::of("[a-z]{1,5}=[a-z0-9]{1,40}"),
            baggage in prop::option::of("[a-z]{1,9}=[ -~&&[^\"]]{0,40}[!-~]"),
        ) {
            let mut head = StreamHead::new(Target::from_authority(&format!("{host}:{port}")).unwrap());
            head.client = client.map(Into::into);
            head.trace = state.map(|state| TraceContext::new(PARENT, &state).unwrap());
            if let Some(baggage) = baggage {
                prop_assert!(head.metadata.push("baggage", &baggage));
            }
            let written = write(&head, &[], true).unwrap().into_parts().0;
            prop_assert_eq!(read(&written, true).unwrap(), head);
        }
    }
}
