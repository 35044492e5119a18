//! What every protocol over CONNECT (RFC 9113 §8.5) says alike.

use http::{HeaderValue, Method, Request, Uri, uri::Authority};
use tunnel_core::{Refusal, proto::ProxyStatus};

/// The field that says who refused a stream and why (RFC 9209).
pub(crate) const PROXY_STATUS: &str = "proxy-status";

/// A request that opens a stream.
pub(crate) fn connect(authority: Authority) -> Request<()> {
    let mut parts = http::uri::Parts::default();
    parts.authority = Some(authority);
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    // An authority alone is what CONNECT wants.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

/// The refusal by `name` for people and tools, as far as ASCII can say it.
pub(crate) fn proxy_status(name: &str, refusal: &Refusal) -> HeaderValue {
    let status = ProxyStatus {
        refused_by: name,
        passed_on_by: None,
        kind: refusal.kind,
        details: refusal.text.as_str(),
    };
    HeaderValue::try_from(status.to_string()).unwrap_or(HeaderValue::from_static("tunnel"))
}
