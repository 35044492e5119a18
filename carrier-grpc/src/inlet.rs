//! The way in: from the body that hyper receives to the mux.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tonic::{Code, Streaming};
use tunnel_core::mux::LinkError;

use crate::{
    packet::{MAX_PACKET, PacketDecoder},
    status,
};

/// Reads the packets of a request or a response.
#[derive(Debug)]
pub(crate) struct Inlet {
    packets: Streaming<Bytes>,
    end: Arc<Mutex<Option<End>>>,
    /// Whether a status has to come behind the last packet, as from a server.
    needs_status: bool,
}

/// How a body ended.
#[derive(Debug)]
enum End {
    Clean,
    Trailers(HeaderMap),
    Failed(hyper::Error),
}

impl Inlet {
    /// Reads a request.
    pub(crate) fn of_request(body: Incoming) -> Self {
        Self::new(body, false)
    }

    /// Reads a response.
    pub(crate) fn of_response(body: Incoming) -> Self {
        Self::new(body, true)
    }

    /// For tonic it is always a request: of a response it would interpret the trailers, and panics when their
    /// `grpc-status-details-bin` is not base64.
    fn new(body: Incoming, needs_status: bool) -> Self {
        let end = Arc::default();
        let body = Watched {
            body: Some(body),
            end: Arc::clone(&end),
        };
        Self {
            packets: Streaming::new_request(PacketDecoder, body, None, Some(MAX_PACKET)),
            end,
            needs_status,
        }
    }

    /// The next packet's frames, or `None` at the clean end.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        let malformed = match ready!(Pin::new(&mut self.packets).poll_next(cx)) {
            Some(Ok(frames)) => return Poll::Ready(Ok(Some(frames))),
            Some(Err(status)) => Some(status),
            None => None,
        };
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        Poll::Ready(match (end, malformed) {
            (Some(End::Failed(error)), _) => Err(LinkError::Io(io::Error::other(error))),
            (Some(End::Trailers(trailers)), malformed) => match (status::of_headers(&trailers), malformed) {
                (Some(status), _) if status.code() != Code::Ok => Err(LinkError::Ended(status::words(&status))),
                (_, Some(malformed)) => Err(LinkError::Protocol(malformed.message().to_owned())),
                (_, None) => Ok(None),
            },
            (_, Some(malformed)) => Err(LinkError::Protocol(malformed.message().to_owned())),
            (Some(End::Clean), None) if self.needs_status => {
                Err(LinkError::Ended("the call ended without a status".to_owned()))
            }
            (_, None) => Ok(None),
        })
    }
}

/// A body whose end is kept from tonic.
struct Watched {
    body: Option<Incoming>,
    end: Arc<Mutex<Option<End>>>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let end = match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(frame) => End::Trailers(frame.into_trailers().unwrap_or_default()),
            },
            Some(Err(error)) => End::Failed(error),
            None => End::Clean,
        };
        self.body = None;
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        Poll::Ready(None)
    }
}
