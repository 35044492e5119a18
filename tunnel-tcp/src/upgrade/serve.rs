//! The server's side of the exchange.

use std::{
    convert::Infallible,
    io,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tunnel_core::{ConnectionError, HandshakeError};

use super::{recover::recover, refuse::Refused};
use crate::BoxIo;

/// The longest head of a request. The longest claim fits, though few proxies would let it through.
const MAX_HEAD: usize = 128 * 1024;
/// The most header fields of a request.
const MAX_FIELDS: usize = 64;

/// Serves the one request that a connection may have: what came of it, the pipe, and what was read beyond the request.
///
/// `answer` is given the request's head and whether it has a body. Its response is to be a 101, or one that closes the
/// connection. There is no timer but the caller's, which bounds how slowly a request may come, too.
///
/// # Errors
///
/// What `answer` says of a request that was refused, once it has been refused; and what went wrong before.
///
/// # Cancel safety
///
/// Dropping the future drops the pipe.
pub async fn serve<T, F, A>(io: BoxIo, answer: F) -> Result<(T, (BoxIo, Bytes)), HandshakeError>
where
    F: Fn(request::Parts, bool) -> A,
    A: Future<Output = Result<(Response<Full<Bytes>>, T), Refused>>,
{
    let outcome = Mutex::new(None);
    let service = service_fn(async |mut request: Request<Incoming>| {
        let upgrade = hyper::upgrade::on(&mut request);
        let has_body = !request.body().is_end_stream();
        let (response, came_of_it) = match answer(request.into_parts().0, has_body).await {
            Ok((response, agreed)) => (response, Ok((agreed, upgrade))),
            Err(refused) => (*refused.response, Err(refused.error)),
        };
        *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(came_of_it);
        Ok::<_, Infallible>(response)
    });
    let mut http = http1::Builder::new();
    http.header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS);
    let served = http.serve_connection(TokioIo::new(io), service).with_upgrades().await;
    let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (agreed, upgrade) = match (outcome, served) {
        (Some(outcome), Ok(())) => outcome?,
        (Some(Err(refused)), Err(_)) => return Err(refused),
        (_, Err(error)) => return Err(failure(error)),
        (None, Ok(())) => return Err(lost(io::Error::from(io::ErrorKind::UnexpectedEof))),
    };
    Ok((agreed, recover(upgrade.await.map_err(lost)?)))
}

fn lost(error: impl std::error::Error + Send + Sync + 'static) -> HandshakeError {
    HandshakeError::Lost(ConnectionError::transport(error))
}

fn failure(error: hyper::Error) -> HandshakeError {
    if error.is_parse() {
        return HandshakeError::Protocol {
            detail: format!("it sent no request of HTTP/1.1: {error}"),
        };
    }
    lost(error)
}
