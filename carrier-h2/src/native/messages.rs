//! Heads and answers as requests and responses (`docs/wire.md` §12.4).

use h2::RecvStream;
use http::{HeaderName, Method, Request, Response, StatusCode, Uri, header::HeaderMap, uri::Authority};
use tunnel_core::{
    Answer, Refusal, RefusalKind, StreamHead, Target,
    proto::{FrameKind, Message},
};
use tunnel_tcp::upgrade::{FieldError, decode, encode};

use crate::http2::{self, PROXY_STATUS, proxy_status};

/// The head, in the request.
const HEAD: HeaderName = HeaderName::from_static("tunnel-head");
/// The answer, in a response that refuses.
const ANSWER: HeaderName = HeaderName::from_static("tunnel-answer");
/// The stream that the agent asked for, in the request that opens it.
const STREAM: HeaderName = HeaderName::from_static("tunnel-stream");
/// How many streams the server may open, in the response to the control request.
const MAX_STREAMS: HeaderName = HeaderName::from_static("tunnel-max-streams");

/// What the control request is for.
const CONTROL: &str = "http://tunnel/control";
/// What stands for targets that have no host and port.
const NOWHERE: &str = "unix.invalid:0";

/// What a request is.
#[derive(Debug)]
pub(super) enum Asked {
    Control,
    /// A stream that the server opens.
    Open(StreamHead),
    /// The stream that the agent has asked for by this number.
    Granted(u64),
    /// Nothing that an agent serves.
    Other,
}

/// The first request.
pub(super) fn control() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(CONTROL);
    request
}

/// Its response.
pub(super) fn control_accepted(max_streams: u32) -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(MAX_STREAMS, max_streams.into());
    response
}

/// How many streams the agent takes, from that response.
pub(super) fn max_streams(response: &Response<RecvStream>) -> Option<u32> {
    if response.status() != StatusCode::OK {
        return None;
    }
    response.headers().get(MAX_STREAMS)?.to_str().ok()?.parse().ok()
}

/// Opens a stream.
pub(super) fn open(head: &StreamHead) -> Request<()> {
    let mut request = connect(&head.target);
    request.headers_mut().insert(HEAD, encode(&head.encode()));
    request
}

/// Opens the stream that the agent has asked for by this number.
pub(super) fn grant(head: &StreamHead, number: u64) -> Request<()> {
    let mut request = connect(&head.target);
    request.headers_mut().insert(STREAM, number.into());
    request
}

fn connect(target: &Target) -> Request<()> {
    let authority = match target {
        Target::Tcp(server) | Target::Udp(server) => Authority::try_from(server.to_string()).ok(),
        _ => None,
    };
    http2::connect(authority.unwrap_or_else(|| Authority::from_static(NOWHERE)))
}

/// Reads a request.
pub(super) fn read_request(request: &Request<RecvStream>) -> Result<Asked, FieldError> {
    let headers = request.headers();
    if request.method() == Method::POST && request.uri().path() == "/control" {
        return Ok(Asked::Control);
    }
    if request.method() != Method::CONNECT {
        return Ok(Asked::Other);
    }
    if let Some(number) = headers.get(STREAM) {
        let number = number.to_str().ok().and_then(|number| number.parse().ok());
        return Ok(number.map_or(Asked::Other, Asked::Granted));
    }
    match decode(headers, &HEAD, &[FrameKind::Head])? {
        Message::Head(head) => Ok(Asked::Open(head)),
        // The decoder gives no other message.
        _ => Ok(Asked::Other),
    }
}

/// Accepts a stream.
pub(super) fn accepted() -> Response<()> {
    Response::new(())
}

/// Refuses a request that is none of a stream.
pub(super) fn not_served() -> Response<()> {
    refused(&Refusal::new(
        RefusalKind::HttpRequestError,
        "an agent serves CONNECT, and nothing else",
    ))
}

/// Refuses a stream.
pub(super) fn refused(refusal: &Refusal) -> Response<()> {
    let mut response = Response::new(());
    let status = StatusCode::from_u16(refusal.kind.recommended_status());
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(ANSWER, encode(&Answer::Refused(refusal.clone()).encode()));
    headers.insert(PROXY_STATUS, proxy_status("tunnel", refusal));
    response
}

/// Reads the response to the opening of a stream.
pub(super) fn read_answer(status: StatusCode, headers: &HeaderMap) -> Result<Answer, FieldError> {
    if status.is_success() {
        return Ok(Answer::Accepted);
    }
    match decode(headers, &ANSWER, &[FrameKind::Answer]) {
        Ok(Message::Answer(answer @ Answer::Refused(_))) => Ok(answer),
        Ok(_) | Err(FieldError::Missing(_)) => Ok(Answer::Refused(Refusal::new(
            RefusalKind::ProxyInternalError,
            format!("the agent answered {status} and did not say why"),
        ))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_refusal_arrives_word_for_word() {
        for kind in RefusalKind::ALL {
            let refusal = Refusal::new(*kind, "a \"quoted\" \\ Zürich");
            let response = refused(&refusal);
            assert_eq!(response.status().as_u16(), kind.recommended_status());
            let answer = read_answer(response.status(), response.headers()).unwrap();
            assert_eq!(answer, Answer::Refused(refusal));
            let said = response.headers()[PROXY_STATUS].to_str().unwrap();
            assert_eq!(
                said,
                format!("tunnel; error={kind}; details=\"a \\\"quoted\\\" \\\\ Z?rich\"")
            );
        }
    }

    #[test]
    fn a_refusal_without_words_is_one_all_the_same() {
        let answer = read_answer(StatusCode::BAD_GATEWAY, &HeaderMap::new()).unwrap();
        assert!(matches!(answer, Answer::Refused(refusal) if refusal.kind == RefusalKind::ProxyInternalError));
    }

    #[test]
    fn a_broken_answer_is_an_error() {
        let mut headers = HeaderMap::new();
        headers.insert(ANSWER, HeaderValue::from_static("AAAA"));
        assert!(read_answer(StatusCode::BAD_GATEWAY, &headers).is_err());
    }

    #[test]
    fn the_authority_is_the_target_if_it_can_be() {
        for (target, authority) in [
            ("tcp://kubelet.example:10250", "kubelet.example:10250"),
            ("tcp://[2001:db8::7]:443", "[2001:db8::7]:443"),
            ("udp://10.0.0.7:53", "10.0.0.7:53"),
            ("unix:///run/app.sock", NOWHERE),
        ] {
            let request = open(&StreamHead::new(target.parse().unwrap()));
            assert_eq!(request.uri().to_string(), authority);
        }
    }
}
