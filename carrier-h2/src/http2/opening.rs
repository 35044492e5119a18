//! Streams that this end opens.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tunnel_core::{Duplex, OpenError, StreamHead};

use super::{
    halves::duplex,
    hub::Hub,
    stream::{Outcome, Plan, Stream},
};

/// Opens a stream, whose first bytes go out behind its request, and waits for the peer's answer.
///
/// # Cancel safety
///
/// Dropping the future drops the halves, and so resets and stops a stream that the peer may have seen.
pub(crate) async fn open(hub: &Arc<Hub>, head: StreamHead, early: &mut Bytes) -> Result<Duplex, OpenError> {
    let place = tokio::select! {
        biased;
        () = hub.drained_or_ended() => return Err(hub.draining_or_ended()),
        place = Arc::clone(&hub.places).acquire_owned() => place.map_err(|_| hub.draining_or_ended())?,
    };
    let stream = Stream::new(hub, hub.ticket(Some(place)), Plan::Open(Box::new(head)));
    let mut halves = duplex(&stream);
    // What there is no room for is left to the caller.
    let _ = halves.tx.poll_send(&mut Context::from_waker(Waker::noop()), early);
    stream.post();
    match poll_fn(|cx| poll_outcome(&stream, cx)).await? {
        Outcome::Accepted => {
            hub.counters.opened.fetch_add(1, Ordering::Relaxed);
            Ok(halves)
        }
        Outcome::Refused(refusal) => Err(OpenError::Refused(refusal)),
        Outcome::Ended(code) => Err(OpenError::Reset(code)),
        Outcome::Draining => Err(OpenError::Draining),
    }
}

fn poll_outcome(stream: &Stream, cx: &mut Context<'_>) -> Poll<Result<Outcome, OpenError>> {
    let mut state = stream.lock();
    if let Some(outcome) = &state.outcome {
        return Poll::Ready(Ok(outcome.clone()));
    }
    if let Some(error) = stream.hub.ended() {
        return Poll::Ready(Err(OpenError::Connection(error)));
    }
    state.wakers.outcome = Some(cx.waker().clone());
    Poll::Pending
}
