//! The way in: from the body that hyper receives to the mux.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use hyper::body::Incoming;
use tonic::Code;
use tunnel_core::mux::LinkError;

use crate::{join::Joiner, packet, status};

/// Reads the packets of a request or a response.
#[derive(Debug)]
pub(crate) struct Inlet {
    body: Incoming,
    messages: Joiner,
    /// Whether a status has to come behind the last packet, as from a server.
    needs_status: bool,
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

    fn new(body: Incoming, needs_status: bool) -> Self {
        Self {
            body,
            messages: Joiner::default(),
            needs_status,
        }
    }

    /// The next packet's frames, or `None` at the clean end.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        loop {
            match self.messages.next() {
                Ok(Some(packet)) => {
                    let frames = packet::decode(packet).map_err(|problem| LinkError::Protocol(problem.to_string()));
                    return Poll::Ready(frames.map(Some));
                }
                Ok(None) => {}
                Err(problem) => return Poll::Ready(Err(LinkError::Protocol(problem.to_string()))),
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Err(LinkError::Io(io::Error::other(error)))),
                None => return Poll::Ready(self.ended(None)),
            };
            match frame.into_data() {
                Ok(data) => self.messages.push(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(self.ended(Some(&trailers)));
                }
            }
        }
    }

    /// What the end of the body means.
    fn ended(&self, trailers: Option<&HeaderMap>) -> Result<Option<Bytes>, LinkError> {
        let status = trailers.and_then(status::of_headers);
        match status {
            Some(status) if status.code() != Code::Ok => Err(LinkError::Ended(status::words(&status))),
            _ if self.messages.is_inside() => Err(LinkError::Protocol("the call ended inside a message".to_owned())),
            None if self.needs_status => Err(LinkError::Ended("the call ended without a status".to_owned())),
            _ => Ok(None),
        }
    }

    /// Ready when something comes although it is this end's turn, with the words for it.
    pub(crate) fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        self.poll_recv(cx).map(|early| match early {
            Ok(Some(_)) => "a message came before the welcome".to_owned(),
            Ok(None) => "the call ended before the welcome".to_owned(),
            Err(error) => error.to_string(),
        })
    }
}
