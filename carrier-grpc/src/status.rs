//! The status of a call.

use http::HeaderMap;
use tonic::{Code, Status};
use tunnel_core::{CloseCode, Text};

/// The status that goes with a rejection, for those who cannot read the rejection itself.
pub(crate) fn code(code: CloseCode) -> Code {
    match code {
        CloseCode::DONE => Code::Cancelled,
        CloseCode::SHUTDOWN | CloseCode::DRAINED => Code::Unavailable,
        CloseCode::REPLACED => Code::Aborted,
        CloseCode::PROTOCOL => Code::InvalidArgument,
        CloseCode::VERSION => Code::FailedPrecondition,
        CloseCode::UNAUTHORIZED => Code::Unauthenticated,
        CloseCode::FORBIDDEN => Code::PermissionDenied,
        CloseCode::CONFLICT => Code::AlreadyExists,
        CloseCode::OVERLOADED | CloseCode::FLOOD => Code::ResourceExhausted,
        CloseCode::TIMEOUT => Code::DeadlineExceeded,
        CloseCode::INTERNAL => Code::Internal,
        _ => Code::Unknown,
    }
}

/// The status in headers or trailers, if there is one.
pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Status> {
    if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        // tonic panics when they are not base64, and nothing here needs them.
        let mut headers = headers.clone();
        headers.remove(Status::GRPC_STATUS_DETAILS);
        return Status::from_header_map(&headers);
    }
    Status::from_header_map(headers)
}

/// Trailers that say that all is well.
pub(crate) fn ok() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
    trailers
}

/// Trailers of another status, which has no metadata.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Words are percent-encoded, so nothing is left that could not stand there.
    let _ = status.add_header(&mut trailers);
    trailers
}

/// A status as the end of a sentence.
pub(crate) fn words(status: &Status) -> String {
    let name = name(status.code());
    let message = Text::new(status.message());
    if message.is_empty() {
        name.to_owned()
    } else {
        format!("{name}, {message}")
    }
}

/// The name of a code in the gRPC specification.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
