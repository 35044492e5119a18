//! The way out: from the mux to the body that hyper sends.
//!
//! There is no queue. A message is taken when hyper asks for one and none before, so that the mux decides as late as
//! possible what goes next. hyper asks for one ahead of the room in its send buffer, whose size is
//! [`send_buffer`](crate::GrpcConfigBuilder::send_buffer).

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use http::HeaderMap;
use http_body::{Body, Frame};
use tunnel_core::proto::mux::Message;

use crate::packet::Packet;

/// Makes both ends.
pub(crate) fn outlet() -> (Outlet, OutBody) {
    let shared = Arc::<Shared>::default();
    (Outlet(Arc::clone(&shared)), OutBody(shared))
}

/// The mux's end. Dropping it before [`poll_close`](Self::poll_close) was ready fails the body, which resets the call.
#[derive(Debug)]
pub(crate) struct Outlet(Arc<Shared>);

/// hyper's end.
#[derive(Debug)]
pub(crate) struct OutBody(Arc<Shared>);

/// A packet that hyper has, and has not written yet.
#[derive(Debug)]
pub(crate) struct Underway(Arc<Shared>);

/// The mux has let go of the call without ending it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection was given up")]
pub(crate) struct GivenUp;

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    message: Option<Message>,
    /// hyper waits for a message.
    wanted: bool,
    /// How many packets hyper has not written yet.
    underway: usize,
    end: Option<End>,
    /// hyper has been told of the end, or does not care any more.
    over: bool,
    link: Option<Waker>,
    body: Option<Waker>,
}

#[derive(Debug)]
enum End {
    Clean(Option<HeaderMap>),
    GivenUp,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the other end.
    fn change(&self, waker: impl FnOnce(&mut State) -> Option<Waker>) {
        let waker = waker(&mut self.lock());
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Outlet {
    /// Ready when hyper wants a message. When the call is over it never does again: the end is for the reader to
    /// find, behind what it has not read yet.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.wanted && state.message.is_none() {
            return Poll::Ready(());
        }
        state.link = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn send(&self, message: Message) {
        self.0.change(|state| {
            state.message = Some(message);
            state.body.take()
        });
    }

    /// Ready when everything has been written, or nothing can be any more.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.over || (state.message.is_none() && state.underway == 0) {
            return Poll::Ready(());
        }
        state.link = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the body, for a server with these trailers. Ready when hyper knows.
    pub(crate) fn poll_close(&self, trailers: impl FnOnce() -> Option<HeaderMap>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.over {
            return Poll::Ready(());
        }
        state.link = Some(cx.waker().clone());
        if state.end.is_some() {
            return Poll::Pending;
        }
        state.end = Some(End::Clean(trailers()));
        let body = state.body.take();
        drop(state);
        if let Some(body) = body {
            body.wake();
        }
        Poll::Pending
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.end.get_or_insert(End::GivenUp);
            state.body.take()
        });
    }
}

impl Body for OutBody {
    type Data = Packet;
    type Error = GivenUp;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Packet>, GivenUp>>> {
        let mut state = self.0.lock();
        if let Some(message) = state.message.take() {
            state.underway += 1;
            state.wanted = false;
            drop(state);
            return Poll::Ready(Some(Ok(Frame::data(Packet::new(
                message,
                Underway(Arc::clone(&self.0)),
            )))));
        }
        let frame = match &mut state.end {
            None => {
                state.wanted = true;
                state.body = Some(cx.waker().clone());
                None
            }
            Some(End::Clean(trailers)) => {
                let trailers = trailers.take().map(|trailers| Ok(Frame::trailers(trailers)));
                state.over = true;
                Some(trailers)
            }
            Some(End::GivenUp) => {
                state.over = true;
                Some(Some(Err(GivenUp)))
            }
        };
        let link = state.link.take();
        drop(state);
        if let Some(link) = link {
            link.wake();
        }
        frame.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for OutBody {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.over = true;
            state.wanted = false;
            state.link.take()
        });
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.underway -= 1;
            if state.underway == 0 { state.link.take() } else { None }
        });
    }
}
