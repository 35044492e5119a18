//! The agent's side of the exchange.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, response};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tunnel_core::{ConnectionError, DialError};

use super::recover::recover;
use crate::{BoxIo, explain_tls};

/// The longest head of a response.
const MAX_HEAD: usize = 64 * 1024;
/// The most header fields of a response.
const MAX_FIELDS: usize = 64;

/// Asks for an upgrade: what `judge` has made of the response, the pipe, and what was read beyond the response.
///
/// `remote` names the server in errors, and `secure` is what a URL begins with that means TLS, if there is none here.
///
/// # Errors
///
/// What `judge` says of a response that is no upgrade, and what went wrong before there was one.
///
/// # Cancel safety
///
/// Dropping the future drops the pipe.
pub async fn ask<T>(
    io: BoxIo,
    request: Request<Empty<Bytes>>,
    remote: &str,
    secure: Option<&str>,
    judge: impl FnOnce(&response::Parts) -> Result<T, DialError>,
) -> Result<(T, (BoxIo, Bytes)), DialError> {
    let failed = |error| failure(remote, secure, error);
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
    let (mut sender, connection) = http.handshake(TokioIo::new(io)).await.map_err(failed)?;
    // The connection has to be polled for anything to happen, and ends when it has been upgraded.
    let mut connection = pin!(connection.with_upgrades());
    let mut response = pin!(sender.send_request(request));
    let mut end = None;
    let response = loop {
        tokio::select! {
            biased;
            response = &mut response => break response,
            ended = &mut connection, if end.is_none() => end = Some(ended),
        }
    };
    let has_ended = end.is_some();
    let response = match (response, end) {
        // It may have come before the request was sent as a whole, which then failed.
        (Ok(response), _) => response,
        (Err(_), Some(Err(error))) | (Err(error), _) => return Err(failed(error)),
    };
    let (head, body) = response.into_parts();
    let judged = judge(&head)?;
    let upgrade = hyper::upgrade::on(Response::from_parts(head, body));
    if !has_ended {
        connection.await.map_err(failed)?;
    }
    Ok((judged, recover(upgrade.await.map_err(failed)?)))
}

/// What it means when HTTP itself fails, in words for people.
fn failure(remote: &str, secure: Option<&str>, error: hyper::Error) -> DialError {
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
        let hint = match secure {
            Some(secure) => format!(": does it expect TLS, and so {secure}?"),
            None => String::new(),
        };
        let detail = format!("its answer is not HTTP/1.1{hint}");
        return DialError::Protocol { remote, detail };
    }
    DialError::Lost {
        remote,
        source: ConnectionError::transport(error),
    }
}
