//! How a server says no in HTTP.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request};
use http_body_util::Full;
use tunnel_core::{CloseCode, ConnectionError, HandshakeError, Rejection};

use super::fields::{REJECTION, encode};

/// The status of a rejection. An agent reads the frame; the status is for everybody else on the way.
fn status(code: CloseCode) -> StatusCode {
    match code {
        CloseCode::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
        CloseCode::FORBIDDEN => StatusCode::FORBIDDEN,
        CloseCode::CONFLICT => StatusCode::CONFLICT,
        CloseCode::VERSION => StatusCode::UPGRADE_REQUIRED,
        CloseCode::PROTOCOL => StatusCode::BAD_REQUEST,
        CloseCode::FLOOD => StatusCode::TOO_MANY_REQUESTS,
        CloseCode::TIMEOUT => StatusCode::REQUEST_TIMEOUT,
        CloseCode::INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
        code if code.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    }
}

/// A rejection as a response. `protocol` is what an agent upgrades to.
#[must_use]
pub fn rejected(rejection: &Rejection, protocol: &'static str) -> Response<Full<Bytes>> {
    let status = status(rejection.code);
    let mut response = sentence(status, &rejection.to_string());
    let headers = response.headers_mut();
    headers.insert(REJECTION, encode(&rejection.encode()));
    match status {
        // RFC 9110 §11.6.1 and §15.5.22 ask for these.
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
        }
        _ => {}
    }
    if let Some(wait) = rejection.not_before {
        // In whole seconds, and not before (RFC 9110 §10.2.3).
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A response of one line, after which the connection is closed.
#[must_use]
pub fn sentence(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A request that is no upgrade to the tunnel, or an upgrade that was judged.
#[derive(Debug)]
pub struct Refused {
    /// What to answer.
    pub response: Box<Response<Full<Bytes>>>,
    /// What the handshake ends with.
    pub error: HandshakeError,
}

impl Refused {
    /// An agent is told in a way that it understands. `protocol` is what it upgrades to.
    #[must_use]
    pub fn rejection(rejection: Rejection, protocol: &'static str) -> Self {
        Self {
            response: Box::new(rejected(&rejection, protocol)),
            error: HandshakeError::Rejected(rejection),
        }
    }

    /// Something that asks for the tunnel in a wrong way is told in words.
    #[must_use]
    pub fn malformed(status: StatusCode, detail: &str) -> Self {
        Self {
            response: Box::new(sentence(status, detail)),
            error: HandshakeError::Protocol {
                detail: detail.to_owned(),
            },
        }
    }

    /// Somebody who is no agent is told in words.
    #[must_use]
    pub fn stranger(request: &request::Parts, status: StatusCode, text: &str) -> Self {
        Self {
            response: Box::new(sentence(status, text)),
            error: stranger(request, status),
        }
    }

    /// The same with another header field.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        self
    }
}

/// An ordinary request, as health checks and browsers make them.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} was answered with {status}: no agent")]
struct NoAgent {
    method: Method,
    path: String,
    status: StatusCode,
}

/// What the handshake of somebody ends with who is no agent, and was answered with `status`.
#[must_use]
pub fn stranger(request: &request::Parts, status: StatusCode) -> HandshakeError {
    HandshakeError::Lost(ConnectionError::transport(NoAgent {
        method: request.method.clone(),
        path: request.uri.path().chars().take(100).collect(),
        status,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_rejection_has_its_status() {
        for (code, status) in [
            (CloseCode::UNAUTHORIZED, 401),
            (CloseCode::FORBIDDEN, 403),
            (CloseCode::CONFLICT, 409),
            (CloseCode::VERSION, 426),
            (CloseCode::PROTOCOL, 400),
            (CloseCode::FLOOD, 429),
            (CloseCode::OVERLOADED, 503),
            (CloseCode::SHUTDOWN, 503),
            (CloseCode::INTERNAL, 500),
        ] {
            let response = rejected(&Rejection::new(code, "no"), "x");
            assert_eq!(response.status().as_u16(), status, "{code}");
            assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), status == 401);
            assert_eq!(response.headers().contains_key(header::UPGRADE), status == 426);
        }
    }

    #[test]
    fn the_wait_is_rounded_up() {
        let mut rejection = Rejection::new(CloseCode::OVERLOADED, "no");
        rejection.not_before = Some(Duration::from_millis(1001));
        assert_eq!(rejected(&rejection, "x").headers()[header::RETRY_AFTER], "2");
    }
}
