//! How a server says no in HTTP.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use tunnel_core::{CloseCode, Rejection};

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
