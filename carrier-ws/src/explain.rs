//! What it means when HTTP itself fails, in words for people.

use std::sync::Arc;

use tunnel_core::{ConnectionError, DialError};
use tunnel_tcp::explain_tls;

use crate::WsUrl;

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
