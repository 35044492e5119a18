//! What a server answers with.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use crate::{
    deadline,
    outlet::{GivenUp, OutBody},
    packet::Packet,
    status,
};

/// The content type of every gRPC response.
pub(crate) const GRPC: &str = "application/grpc";

/// The body of a response.
#[derive(Debug, Default)]
pub(crate) struct ServerBody {
    content: Content,
    /// When the call ends, however far it has come.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Dropped with the body, when the call is over.
    pub(crate) call: Option<crate::serve::OpenCall>,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Empty,
    /// A connection of the tunnel.
    Link(OutBody),
    /// Bytes that are complete.
    Bytes(Bytes),
    /// Some gRPC messages, and the status.
    Messages(Messages),
}

/// Messages, some of them later.
struct Messages {
    ready: VecDeque<Bytes>,
    later: Option<Pin<Box<dyn Future<Output = Bytes> + Send>>>,
    trailers: Option<HeaderMap>,
}

/// A response that is a connection of the tunnel from now on.
pub(crate) fn link(body: OutBody) -> Response<ServerBody> {
    response(Content::Link(body))
}

/// A response of one gRPC message, and another one when the future gives it, if there is one.
pub(crate) fn messages(
    first: Bytes,
    later: Option<Pin<Box<dyn Future<Output = Bytes> + Send>>>,
) -> Response<ServerBody> {
    response(Content::Messages(Messages {
        ready: VecDeque::from([first]),
        later,
        trailers: Some(status::ok()),
    }))
}

/// A response of nothing but a gRPC status.
pub(crate) fn status(status: Status) -> Response<ServerBody> {
    status.into_http()
}

/// A response for those who do not speak gRPC.
pub(crate) fn text(status: StatusCode, text: &'static str) -> Response<ServerBody> {
    let mut response = Response::new(ServerBody::from(Content::Bytes(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn response(content: Content) -> Response<ServerBody> {
    let mut response = Response::new(ServerBody::from(content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

impl ServerBody {
    /// Whether it is a connection of the tunnel.
    pub(crate) fn is_link(&self) -> bool {
        matches!(self.content, Content::Link(_))
    }

    /// Has the call end at this time at the latest, with DEADLINE_EXCEEDED.
    pub(crate) fn end_at(&mut self, deadline: Instant) {
        self.deadline = Some(Box::pin(sleep_until(deadline)));
    }
}

impl From<Content> for ServerBody {
    fn from(content: Content) -> Self {
        Self {
            content,
            deadline: None,
            call: None,
        }
    }
}

impl Body for ServerBody {
    type Data = Packet;
    type Error = GivenUp;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Packet>, GivenUp>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            (self.content, self.deadline) = (Content::Empty, None);
            let trailers = status::trailers(&deadline::exceeded());
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Link(body) => Pin::new(body).poll_frame(cx),
            Content::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(Packet::raw(bytes)))))
            }
            Content::Messages(messages) => {
                let frame = ready!(messages.poll_frame(cx));
                Poll::Ready(frame.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }
}

impl Messages {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Packet>>> {
        if let Some(message) = self.ready.pop_front() {
            return Poll::Ready(Some(Frame::data(Packet::raw(message))));
        }
        if let Some(later) = &mut self.later {
            let message = ready!(later.as_mut().poll(cx));
            self.later = None;
            return Poll::Ready(Some(Frame::data(Packet::raw(message))));
        }
        Poll::Ready(self.trailers.take().map(Frame::trailers))
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}
