//! What is written to the client: the 200, or a refusal with its reason.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use tunnel_core::{AgentId, OpenFailure, RefusalKind, ServerId, Text, proto::ProxyStatus};

use crate::{auth::Challenge, status};

/// The answer to a CONNECT that succeeded. It has no fields: RFC 9110 §9.3.6 forbids `Content-Length` and
/// `Transfer-Encoding`, and no client of a tunnel reads others.
pub(crate) const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// How long a client should wait before it tries again after a refusal that passes by itself.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An answer other than 200. The connection is closed behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusalResponse {
    pub(crate) status: u16,
    kind: RefusalKind,
    /// The agent that refused; the server itself if there is none.
    agent: Option<AgentId>,
    /// One sentence that says why.
    pub(crate) text: Text,
    /// For 407.
    challenges: Vec<Challenge>,
    /// Whether the request was a HEAD, to which a response has no body (RFC 9110 §9.3.2).
    pub(crate) bodiless: bool,
}

impl RefusalResponse {
    /// A refusal by this frontend whose status says more than the kind alone would.
    pub(crate) fn new(status: u16, kind: RefusalKind, text: impl Into<Text>) -> Self {
        Self {
            status,
            kind,
            agent: None,
            text: text.into(),
            challenges: Vec::new(),
            bodiless: false,
        }
    }

    /// A refusal by this frontend.
    pub(crate) fn of_kind(kind: RefusalKind, text: impl Into<Text>) -> Self {
        Self::new(kind.status(), kind, text)
    }

    /// The client has to prove who it is.
    pub(crate) fn unauthenticated(text: impl Into<Text>, challenges: Vec<Challenge>) -> Self {
        Self {
            challenges,
            ..Self::new(407, RefusalKind::HttpRequestDenied, text)
        }
    }

    /// The bytes of the response.
    pub(crate) fn render(&self, server: &ServerId) -> Bytes {
        let body = match &self.agent {
            Some(agent) => format!("agent {agent}: {}\n", self.text),
            None => format!("server {server}: {}\n", self.text),
        };
        let proxy_status = ProxyStatus {
            refused_by: self.agent.as_ref().map_or(server.as_str(), AgentId::as_str),
            passed_on_by: self.agent.as_ref().map(|_| server.as_str()),
            kind: self.kind,
            details: self.text.as_str(),
        };
        let mut out = format!(
            "HTTP/1.1 {} {}\r\n\
             Connection: close\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\
             Proxy-Status: {proxy_status}\r\n",
            self.status,
            status::reason_phrase(self.status),
            body.len(),
        );
        if self.status == 405 {
            out.push_str("Allow: CONNECT\r\n");
        }
        if matches!(self.status, 429 | 503) {
            // Writing to a string cannot fail.
            let _ = write!(out, "Retry-After: {}\r\n", RETRY_AFTER.as_secs());
        }
        for challenge in &self.challenges {
            let _ = write!(out, "Proxy-Authenticate: {challenge}\r\n");
        }
        out.push_str("\r\n");
        if !self.bodiless {
            out.push_str(&body);
        }
        out.into()
    }
}

impl From<OpenFailure> for RefusalResponse {
    fn from(failure: OpenFailure) -> Self {
        Self {
            agent: failure.agent,
            ..Self::of_kind(failure.refusal.kind, failure.refusal.text)
        }
    }
}

#[cfg(test)]
mod tests {
    use tunnel_core::Refusal;

    use super::*;

    fn rendered(response: &RefusalResponse) -> String {
        String::from_utf8(response.render(&"gw-1".parse().unwrap()).to_vec()).unwrap()
    }

    #[test]
    fn a_refusal_says_who_failed_and_why() {
        let response = RefusalResponse::from(OpenFailure {
            refusal: Refusal::new(RefusalKind::ConnectionRefused, "10.0.0.1:443 refused the connection"),
            agent: Some("node-7".parse().unwrap()),
        });
        assert_eq!(
            rendered(&response),
            "HTTP/1.1 502 Bad Gateway\r\n\
             Connection: close\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 50\r\n\
             Proxy-Status: node-7; error=connection_refused; details=\"10.0.0.1:443 refused the connection\", gw-1\r\n\
             \r\n\
             agent node-7: 10.0.0.1:443 refused the connection\n"
        );
    }

    #[test]
    fn a_text_from_afar_cannot_add_a_field() {
        let response = RefusalResponse::from(OpenFailure {
            refusal: Refusal::new(RefusalKind::ConnectionRefused, "x\r\nSet-Cookie: a=b\r\n\r\n<html>"),
            agent: None,
        });
        let text = rendered(&response);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("\nSet-Cookie"));
        assert_eq!(body.lines().count(), 1);
    }

    #[test]
    fn passing_troubles_say_when_to_come_back() {
        let busy = RefusalResponse::of_kind(RefusalKind::DestinationUnavailable, "no agent is connected");
        assert!(rendered(&busy).contains("\r\nRetry-After: 1\r\n"));
        let lasting = RefusalResponse::of_kind(RefusalKind::HttpRequestDenied, "no");
        assert!(!rendered(&lasting).contains("Retry-After"));
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let mut response = RefusalResponse::new(405, RefusalKind::HttpRequestError, "only CONNECT");
        response.bodiless = true;
        let text = rendered(&response);
        assert!(text.contains("Allow: CONNECT\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }
}
