//! What it means when something answers that is not a tunnel-server, in words for people.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header, response};
use tunnel_core::{
    CloseCode, ConnectionError, DialError, Rejection,
    proto::{FrameKind, Message},
};
use tunnel_tcp::explain_tls;

use crate::{
    WsUrl,
    headers::{REJECTION, decode},
    request::Ask,
};

/// The longest wait that somebody who is not a tunnel-server can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// From this length on, the head of a request may be why somebody does not understand it: the strictest proxies allow
/// 4 KiB.
const SUSPICIOUS: usize = 4096;
/// How much of a field that somebody else wrote gets into a sentence.
const EXCERPT: usize = 200;

/// A response that is no upgrade.
pub(crate) fn response(url: &WsUrl, remote: &str, ask: &Ask, response: &response::Parts) -> DialError {
    let remote = remote.to_owned();
    // The server's own words, whatever has happened to the status on the way.
    if let Ok(Message::Rejection(rejection)) = decode(&response.headers, &REJECTION, &[FrameKind::Rejection]) {
        return DialError::Rejected { remote, rejection };
    }
    let status = response.status;
    let answered = format!("it answered {status} to the WebSocket upgrade at {}", url.path());
    if let Some(wait) = retry_after(&response.headers)
        && matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    {
        let mut rejection = Rejection::new(CloseCode::OVERLOADED, answered);
        rejection.not_before = Some(wait.min(LONGEST_WAIT));
        return DialError::Rejected { remote, rejection };
    }
    let advice = match status.as_u16() {
        502..=504 => {
            let text = format!("{answered}: a proxy is there, and cannot reach the tunnel-server behind it");
            return DialError::Unreachable {
                remote,
                source: Arc::new(Answered(text)),
            };
        }
        200..=299 => {
            "something that is not a tunnel-server answers there, or a proxy on the way drops the upgrade".into()
        }
        300..=399 => match excerpt(&response.headers, &header::LOCATION) {
            Some(location) => format!("a redirect to {location}, which is not followed: name the right URL"),
            None => "a redirect, which is not followed: name the right URL".to_owned(),
        },
        400 if ask.head_length < SUSPICIOUS && !url.is_secure() => "does it expect TLS, and so wss://?".into(),
        400 if ask.head_length < SUSPICIOUS => "is a tunnel-server behind it, and the path right?".into(),
        400 | 413 | 414 | 431 => format!(
            "the request may be too long for something on the way: its head has about {} bytes, {} of them in the claim, \
             and proxies allow 8 to 16 KiB; fewer or shorter labels, or a shorter credential, make it shorter",
            ask.head_length, ask.claim_length
        ),
        401 | 403 | 407 => {
            "something before the tunnel-server wants to know who asks, or does not let this agent through".into()
        }
        404 | 405 | 410 => "is the path right, is a tunnel-server behind it?".into(),
        426 => "something on the way does not let upgrades through".into(),
        429 => "something on the way takes no more requests at the moment".into(),
        _ => "is a tunnel-server behind it?".into(),
    };
    DialError::Protocol {
        remote,
        detail: format!("{answered}: {advice}"),
    }
}

/// An error of HTTP before there was a response.
pub(crate) fn failure(url: &WsUrl, remote: &str, error: hyper::Error) -> DialError {
    let remote = remote.to_owned();
    // With TLS 1.3 a server looks at the agent's certificate when the agent is through already.
    if let Some(explanation) = explain_tls(&error) {
        return DialError::Tls {
            remote,
            explanation,
            source: Arc::new(error),
        };
    }
    if error.is_parse_too_large() {
        let detail = "its answer is longer than any answer to an upgrade".to_owned();
        return DialError::Protocol { remote, detail };
    }
    if error.is_parse() {
        let hint = if url.is_secure() {
            ""
        } else {
            ": does it expect TLS, and so wss://?"
        };
        let detail = format!("its answer is not HTTP/1.1{hint}");
        return DialError::Protocol { remote, detail };
    }
    DialError::Lost {
        remote,
        source: ConnectionError::transport(error),
    }
}

/// What something on the way said, as the cause of an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Answered(String);

/// How long to stay away, if that is said in seconds; a date would need this machine's clock to be right.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn excerpt(headers: &HeaderMap, name: &http::HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.chars().take(EXCERPT).collect())
}
