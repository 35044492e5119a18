//! `grpc.health.v1.Health`, by which load balancers and orchestrators find out whether this server takes calls
//! (gRPC health checking protocol).

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use http::Response;
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    SERVICE,
    body::{self, ServerBody},
    inlet::Inlet,
};

pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";
pub(crate) const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// How long a caller may take to say what it wants to know.
const PATIENCE: Duration = Duration::from_secs(10);

/// `HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug)]
enum Serving {
    Yes = 1,
    No = 2,
    Unknown = 3,
}

/// Whether this server takes calls, until `gone` is cancelled.
pub(crate) async fn check(request: Incoming, gone: &CancellationToken) -> Response<ServerBody> {
    match asked(request).await {
        Ok(true) => body::messages(now(gone).message(), None),
        Ok(false) => body::status(Status::not_found("there is no such service here")),
        Err(status) => body::status(status),
    }
}

/// The same, and again when it changes.
pub(crate) async fn watch(request: Incoming, gone: &CancellationToken) -> Response<ServerBody> {
    let is_known = match asked(request).await {
        Ok(is_known) => is_known,
        Err(status) => return body::status(status),
    };
    // The end of the stream says that the server is going; a watcher asks another one then.
    let (first, last) = if is_known {
        (now(gone), Serving::No)
    } else {
        (Serving::Unknown, Serving::Unknown)
    };
    let gone = gone.clone();
    let later = async move {
        gone.cancelled_owned().await;
        last.message()
    };
    body::messages(first.message(), Some(Box::pin(later)))
}

fn now(gone: &CancellationToken) -> Serving {
    if gone.is_cancelled() { Serving::No } else { Serving::Yes }
}

impl Serving {
    /// `HealthCheckResponse { status }` with gRPC's prefix: field 1, a varint.
    fn message(self) -> Bytes {
        Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 0x08, self as u8])
    }
}

/// Reads `HealthCheckRequest { string service = 1; }` and says whether the service is one of this server's.
async fn asked(request: Incoming) -> Result<bool, Status> {
    let mut request = Inlet::of_request(request);
    let Ok(message) = timeout(PATIENCE, poll_fn(|cx| request.poll_recv(cx))).await else {
        return Err(Status::deadline_exceeded("no request came"));
    };
    match message {
        Ok(Some(service)) => Ok(service.is_empty() || *service == *SERVICE.as_bytes()),
        Ok(None) => Err(Status::invalid_argument("no request came")),
        Err(error) => Err(Status::invalid_argument(error.to_string())),
    }
}
