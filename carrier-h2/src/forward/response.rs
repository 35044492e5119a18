//! Answers as responses.

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tunnel_core::{Refusal, RefusalKind, Text, proto::ProxyError};

use crate::http2::{PROXY_STATUS, proxy_status};

/// How much of a body is looked at for its first line.
const MOST: usize = 512;

/// Accepts a stream.
pub(super) fn accepted() -> Response<()> {
    Response::new(())
}

/// Answers that a stream is not opened, in the name of `name`. If it cannot be sent, the stream is over.
pub(super) fn refuse(respond: SendResponse<Bytes>, name: &str, refusal: &Refusal) {
    let status = StatusCode::from_u16(refusal.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer(respond, name, status, refusal);
}

/// Answers a request that opens no stream.
pub(super) fn turn_away(respond: SendResponse<Bytes>, name: &str, status: StatusCode, text: &str) {
    answer(
        respond,
        name,
        status,
        &Refusal::new(RefusalKind::HttpRequestError, text),
    );
}

fn answer(mut respond: SendResponse<Bytes>, name: &str, status: StatusCode, refusal: &Refusal) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(PROXY_STATUS, proxy_status(name, refusal));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("CONNECT"));
    }
    if let Ok(mut body) = respond.send_response(response, false) {
        let _ = body.send_data(format!("{name}: {}\n", refusal.text).into(), true);
    }
}

/// A refusal of a proxy, as far as its head says what it is.
#[derive(Debug)]
pub(super) struct Refusing {
    kind: RefusalKind,
    /// Who answered what.
    begin: String,
    /// Why, in the proxy's own words, if the head has them.
    details: Option<Text>,
    /// The beginning of the body.
    body: Vec<u8>,
}

impl Refusing {
    /// Reads the head of a response other than 2xx from `proxy`.
    pub(super) fn new(proxy: &str, status: StatusCode, headers: &HeaderMap) -> Self {
        let fields: Vec<_> = headers
            .get_all(PROXY_STATUS)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let error = ProxyError::parse(&fields.join(","));
        let kind = error.as_ref().and_then(|error| error.kind).unwrap_or(kind(status));
        let mut begin = format!("{proxy} answered {}", status.as_u16());
        let mut details = None;
        if let Some(error) = error {
            begin = format!("{begin} ({})", error.proxy);
            details = Some(error.details).filter(|details| !details.is_empty());
        } else if let Some(reason) = status.canonical_reason() {
            begin = format!("{begin} {reason}");
        }
        Self {
            kind,
            begin,
            details,
            body: Vec::new(),
        }
    }

    /// Takes some of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = MOST.saturating_sub(self.body.len());
        self.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether more of the body adds nothing.
    pub(super) fn is_whole(&self) -> bool {
        self.details.is_some() || self.body.len() >= MOST || self.first_line().1
    }

    /// The first line that is not empty, and whether it is whole.
    fn first_line(&self) -> (&[u8], bool) {
        let start = self.body.iter().position(|byte| !byte.is_ascii_whitespace());
        let text = &self.body[start.unwrap_or(self.body.len())..];
        match text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(end) => (&text[..end], true),
            None => (text, false),
        }
    }

    /// The refusal.
    pub(super) fn into_refusal(self) -> Refusal {
        let text = match &self.details {
            Some(details) => format!("{}: {details}", self.begin),
            None => match String::from_utf8_lossy(self.first_line().0).trim_end() {
                "" => self.begin,
                line => format!("{}: {line}", self.begin),
            },
        };
        Refusal::new(self.kind, text)
    }
}

/// What a status says of the reason, where nothing else does. What the client cannot change is blamed on the proxy.
fn kind(status: StatusCode) -> RefusalKind {
    match status.as_u16() {
        401 | 403 => RefusalKind::HttpRequestDenied,
        404 | 410 => RefusalKind::DestinationNotFound,
        // This side lacks a credential.
        407 => RefusalKind::ProxyConfigurationError,
        408 | 504 => RefusalKind::ConnectionTimeout,
        429 => RefusalKind::ConnectionLimitReached,
        400..=499 => RefusalKind::HttpRequestError,
        502 => RefusalKind::ConnectionTerminated,
        503 => RefusalKind::DestinationUnavailable,
        508 => RefusalKind::ProxyLoopDetected,
        500..=599 => RefusalKind::ProxyInternalError,
        // A redirect, or nothing that answers a CONNECT.
        _ => RefusalKind::ProxyConfigurationError,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(status: u16, proxy_status: &str, body: &[&str]) -> (RefusalKind, String) {
        let mut headers = HeaderMap::new();
        if !proxy_status.is_empty() {
            headers.insert(PROXY_STATUS, HeaderValue::try_from(proxy_status).unwrap());
        }
        let mut refusing = Refusing::new("gw:15008", StatusCode::from_u16(status).unwrap(), &headers);
        for piece in body {
            refusing.push(piece.as_bytes());
        }
        let refusal = refusing.into_refusal();
        (refusal.kind, refusal.text.as_str().to_owned())
    }

    #[test]
    fn a_refusal_says_who_answered_what_and_why() {
        use RefusalKind as Kind;
        for (status, proxy_status, body, kind, text) in [
            (
                502,
                "node-7; error=connection_refused; details=\"10.0.0.7:443 refused\"",
                &["node-7: 10.0.0.7:443 refused\n"][..],
                Kind::ConnectionRefused,
                "gw:15008 answered 502 (node-7): 10.0.0.7:443 refused",
            ),
            (
                503,
                "",
                &["upstream connect ", "error\nmore"],
                Kind::DestinationUnavailable,
                "gw:15008 answered 503 Service Unavailable: upstream connect error",
            ),
            (
                503,
                "envoy;error=dns_error",
                &[],
                Kind::DnsError,
                "gw:15008 answered 503 (envoy)",
            ),
            (
                401,
                "",
                &["\r\n\r\n"],
                Kind::HttpRequestDenied,
                "gw:15008 answered 401 Unauthorized",
            ),
            (
                407,
                "squid;error=of_tomorrow",
                &[],
                Kind::ProxyConfigurationError,
                "gw:15008 answered 407 (squid)",
            ),
            (599, "", &[], Kind::ProxyInternalError, "gw:15008 answered 599"),
        ] {
            assert_eq!(refusal(status, proxy_status, body), (kind, text.to_owned()));
        }
    }

    #[test]
    fn no_more_of_a_body_is_kept_than_is_told() {
        let mut refusing = Refusing::new("gw:1", StatusCode::BAD_GATEWAY, &HeaderMap::new());
        assert!(!refusing.is_whole());
        refusing.push(&[b'x'; 10_000]);
        assert!(refusing.is_whole());
        assert_eq!(refusing.body.len(), MOST);
    }

    proptest! {
        #[test]
        fn every_status_is_a_kind(status in 100..1000u16, at in 0..RefusalKind::ALL.len()) {
            let _ = kind(StatusCode::from_u16(status).unwrap());
            let meant = RefusalKind::ALL[at];
            let mut headers = HeaderMap::new();
            headers.insert(PROXY_STATUS, proxy_status("node", &Refusal::new(meant, "because")));
            let seen = Refusing::new("gw:1", StatusCode::from_u16(meant.status()).unwrap(), &headers);
            prop_assert_eq!(seen.into_refusal().kind, meant);
        }
    }
}
