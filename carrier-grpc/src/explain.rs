//! What an answer means that is not a welcome.

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, SERVER},
};
use tonic::Code;
use tunnel_core::{CloseCode, DialError, Rejection, Text};

use crate::{SERVICE, body::GRPC, metadata, status};

/// Somebody before the server, or the server itself, does not put the call through at the moment.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotPutThrough(String);

/// The headers of an answer without a welcome, as an error. The server's own words count before those of anybody on
/// the way, and the status of the call before that of HTTP.
pub(crate) fn answer(remote: String, http: StatusCode, headers: &HeaderMap) -> DialError {
    if let Some(rejection) = metadata::rejection(headers) {
        return DialError::Rejected { remote, rejection };
    }
    let who = match headers.get(SERVER).and_then(|name| name.to_str().ok()) {
        Some(name) => Text::new(name).as_str().to_owned(),
        None => "something on the way".to_owned(),
    };
    let Some(status) = status::of_headers(headers) else {
        return without_status(remote, http, headers, &who);
    };
    let words = status::words(&status);
    match status.code() {
        Code::Unimplemented => DialError::Protocol {
            detail: format!("there is no service {SERVICE} ({words})"),
            remote,
        },
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled => {
            not_put_through(remote, words)
        }
        Code::Unauthenticated => rejected(remote, CloseCode::UNAUTHORIZED, &words),
        Code::PermissionDenied => rejected(remote, CloseCode::FORBIDDEN, &words),
        _ => DialError::Protocol { remote, detail: words },
    }
}

/// An answer that is not of gRPC at all.
fn without_status(remote: String, http: StatusCode, headers: &HeaderMap, who: &str) -> DialError {
    let answered = format!("{who} answered {http}");
    match http {
        StatusCode::OK => {
            let detail = match headers.get(CONTENT_TYPE) {
                Some(kind) if kind.as_bytes().starts_with(GRPC.as_bytes()) => {
                    "it answered the call without a welcome".to_owned()
                }
                Some(kind) => {
                    let kind = String::from_utf8_lossy(kind.as_bytes());
                    format!("{who} answered with {} instead of gRPC", Text::new(&kind))
                }
                None => format!("{who} answered with something else than gRPC"),
            };
            DialError::Protocol { remote, detail }
        }
        StatusCode::UNAUTHORIZED => rejected(remote, CloseCode::UNAUTHORIZED, &answered),
        StatusCode::FORBIDDEN => rejected(remote, CloseCode::FORBIDDEN, &answered),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            DialError::Protocol {
                detail: format!("{answered}; if it is a proxy, it does not pass on calls of {SERVICE}"),
                remote,
            }
        }
        StatusCode::BAD_GATEWAY => not_put_through(remote, format!("{answered}; it cannot reach the tunnel server")),
        StatusCode::GATEWAY_TIMEOUT => not_put_through(
            remote,
            format!("{answered}; the tunnel server did not answer it in time"),
        ),
        http if http == StatusCode::TOO_MANY_REQUESTS || http.is_server_error() => not_put_through(remote, answered),
        _ => DialError::Protocol {
            remote,
            detail: answered,
        },
    }
}

fn not_put_through(remote: String, words: String) -> DialError {
    DialError::Unreachable {
        remote,
        source: std::sync::Arc::new(NotPutThrough(words)),
    }
}

fn rejected(remote: String, code: CloseCode, words: &str) -> DialError {
    DialError::Rejected {
        remote,
        rejection: Rejection::new(code, words),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use http::HeaderValue;

    use super::*;

    fn explained(http: u16, headers: &[(&'static str, &'static str)]) -> DialError {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        answer(
            "gw.example:443".to_owned(),
            StatusCode::from_u16(http).unwrap(),
            &headers,
        )
    }

    fn whole(error: &DialError) -> String {
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn what_proxies_answer_is_said_in_words() {
        let nginx = ("server", "nginx/1.22.1");
        let html = ("content-type", "text/html");
        let cases: [(u16, &[_], &str, &str); 8] = [
            (
                502,
                &[nginx, html],
                "unreachable",
                "cannot reach gw.example:443: nginx/1.22.1 answered 502 Bad Gateway; it cannot reach the tunnel server",
            ),
            (
                504,
                &[nginx, html],
                "unreachable",
                "cannot reach gw.example:443: nginx/1.22.1 answered 504 Gateway Timeout; the tunnel server did not \
                 answer it in time",
            ),
            (
                503,
                &[],
                "unreachable",
                "cannot reach gw.example:443: something on the way answered 503 Service Unavailable",
            ),
            (
                404,
                &[nginx, html],
                "protocol",
                "gw.example:443 does not speak the tunnel protocol: nginx/1.22.1 answered 404 Not Found; if it is a \
                 proxy, it does not pass on calls of tunnel.v1.Tunnel",
            ),
            (
                200,
                &[nginx, html],
                "protocol",
                "gw.example:443 does not speak the tunnel protocol: nginx/1.22.1 answered with text/html instead of \
                 gRPC",
            ),
            (
                403,
                &[html],
                "forbidden",
                "gw.example:443 rejected this agent: something on the way answered 403 Forbidden (forbidden (0x7))",
            ),
            (
                200,
                &[("grpc-status", "12"), ("grpc-message", "unknown%20service")],
                "protocol",
                "gw.example:443 does not speak the tunnel protocol: there is no service tunnel.v1.Tunnel \
                 (UNIMPLEMENTED, unknown service)",
            ),
            (
                200,
                &[("grpc-status", "14"), ("grpc-message", "no healthy upstream")],
                "unreachable",
                "cannot reach gw.example:443: UNAVAILABLE, no healthy upstream",
            ),
        ];
        for (http, headers, label, words) in cases {
            let error = explained(http, headers);
            assert_eq!((error.label(), whole(&error).as_str()), (label, words));
        }
    }

    #[test]
    fn the_servers_own_rejection_counts_first() {
        let mut rejection = Rejection::new(CloseCode::CONFLICT, "the name is taken");
        rejection.not_before = Some(std::time::Duration::from_secs(30));
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("14"));
        metadata::put_rejection(&rejection, &mut headers);
        let error = answer("gw".to_owned(), StatusCode::OK, &headers);
        assert!(matches!(error, DialError::Rejected { rejection: seen, .. } if seen == rejection));
    }

    #[test]
    fn details_that_are_not_base64_do_no_harm() {
        let error = explained(200, &[("grpc-status", "13"), ("grpc-status-details-bin", "*")]);
        assert_eq!(error.label(), "protocol");
    }
}
