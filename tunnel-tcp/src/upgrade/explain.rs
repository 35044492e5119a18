//! What it means when something answers that is not a tunnel-server, in words for people.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header, response};
use tunnel_core::{
    CloseCode, DialError, Rejection,
    proto::{FrameKind, Message},
};

use super::fields::{REJECTION, decode};

/// The longest wait that somebody who is not a tunnel-server can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// From this length on, the head of a request may be why somebody does not understand it: the strictest proxies allow
/// 4 KiB.
const SUSPICIOUS: usize = 4096;
/// How much of a field that somebody else wrote gets into a sentence.
const EXCERPT: usize = 200;

/// What was asked for, to explain the answer.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)] // made by carriers
pub struct Asked<'a> {
    /// What was asked for, such as "the WebSocket upgrade at /tunnel".
    pub what: &'a str,
    /// The protocol that the upgrade is to.
    pub protocol: &'a str,
    /// About how long the head of the request is, in bytes.
    pub head_length: usize,
    /// How long the claim in it is.
    pub claim_length: usize,
    /// What a URL begins with that means TLS, if it was asked for without.
    pub secure: Option<&'a str>,
}

/// The error that a response other than 101 means.
#[must_use]
pub fn response(remote: &str, asked: Asked<'_>, response: &response::Parts) -> DialError {
    let remote = remote.to_owned();
    // The server's own words, whatever has happened to the status on the way.
    if let Ok(Message::Rejection(rejection)) = decode(&response.headers, &REJECTION, &[FrameKind::Rejection]) {
        return DialError::Rejected { remote, rejection };
    }
    let status = response.status;
    let answered = format!("it answered {status} to {}", asked.what);
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
        400 if asked.head_length < SUSPICIOUS => match asked.secure {
            Some(secure) => format!("does it expect TLS, and so {secure}?"),
            None => "is a tunnel-server behind it, and the path right?".into(),
        },
        400 | 413 | 414 | 431 => format!(
            "the request may be too long for something on the way: its head has about {} bytes, {} of them in the claim, \
             and proxies allow 8 to 16 KiB; fewer or shorter labels, or a shorter credential, make it shorter",
            asked.head_length, asked.claim_length
        ),
        401 | 403 | 407 => {
            "something before the tunnel-server wants to know who asks, or does not let this agent through".into()
        }
        404 | 405 | 410 => "is the path right, is a tunnel-server behind it?".into(),
        // A server has to name what it wants (RFC 9110 §15.5.22).
        426 => match excerpt(&response.headers, &header::UPGRADE) {
            Some(other) if !other.eq_ignore_ascii_case(asked.protocol) => {
                format!("upgrades are to {other} there: is it the URL of another carrier?")
            }
            _ => "something on the way does not let upgrades through".into(),
        },
        429 => "something on the way takes no more requests at the moment".into(),
        _ => "is a tunnel-server behind it?".into(),
    };
    DialError::Protocol {
        remote,
        detail: format!("{answered}: {advice}"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn answer(status: u16, fields: &[(&'static str, &'static str)]) -> DialError {
        let mut parts = http::Response::new(()).into_parts().0;
        parts.status = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            parts.headers.insert(*name, HeaderValue::from_static(value));
        }
        let asked = Asked {
            what: "the upgrade at /tunnel",
            protocol: "tunnel",
            head_length: 9000,
            claim_length: 8000,
            secure: None,
        };
        response("gw", asked, &parts)
    }

    #[test]
    fn an_answer_of_somebody_else_says_what_to_look_at() {
        for (status, said) in [
            (200, "drops the upgrade"),
            (302, "a redirect"),
            (400, "9000 bytes, 8000"),
            (403, "who asks"),
            (404, "is the path right"),
            (426, "does not let upgrades"),
            (500, "is a tunnel-server behind"),
        ] {
            let error = answer(status, &[]);
            assert!(matches!(&error, DialError::Protocol { .. }), "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
        assert!(matches!(answer(502, &[]), DialError::Unreachable { .. }));
    }

    #[test]
    fn an_answer_that_wants_another_upgrade_names_it() {
        for (wanted, said) in [
            ("other", "upgrades are to other there"),
            ("Tunnel", "does not let upgrades"),
        ] {
            let error = answer(426, &[("upgrade", wanted)]);
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_wait_that_somebody_else_asks_for_is_bounded() {
        let error = answer(503, &[("retry-after", "7")]);
        assert_eq!(error.not_before(), Some(Duration::from_secs(7)));
        let error = answer(503, &[("retry-after", "86400")]);
        assert_eq!(error.not_before(), Some(LONGEST_WAIT));
    }
}
