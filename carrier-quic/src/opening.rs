//! Streams that this side opens.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use bytes::Bytes;
use tunnel_core::{
    Answer, Duplex, OpenError, RecvError, RecvStream, SendStream, StreamCode, StreamHead,
    proto::{FrameKind, Message},
};

use crate::{
    inbound::{close_for, write_preamble},
    preamble::Messages,
    shared::Shared,
    stream::Halves,
};

/// Opens a stream, and sends of its first bytes what there is room for until the peer's answer has come.
///
/// # Cancel safety
///
/// Dropping the future drops the halves, and so resets and stops a stream that the peer may have seen.
pub(crate) async fn open(shared: &Arc<Shared>, head: StreamHead, early: &mut Bytes) -> Result<Duplex, OpenError> {
    let mut halves = next_stream(shared).await?;
    let sent = write_preamble(&mut halves.tx, head.encode()).await;
    if let Err(error @ OpenError::Connection(_)) = sent {
        return Err(error);
    }
    // A peer that refuses may stop the stream as well; its answer says more.
    let mut messages = Messages::expecting(&[FrameKind::Answer]);
    let awaited = shared.awaited.enter();
    let answer = {
        let mut answer = pin!(messages.next(&mut halves.rx));
        poll_fn(|cx| {
            while !early.is_empty() && matches!(halves.tx.poll_send(cx, early), Poll::Ready(Ok(_))) {}
            answer.as_mut().poll(cx)
        })
        .await
    };
    drop(awaited);
    match answer {
        Ok(Message::Answer(Answer::Accepted)) => {
            sent?;
            halves.rx.unread(messages.into_rest());
            shared.counters.opened.fetch_add(1, Ordering::Relaxed);
            Ok(Duplex {
                tx: Box::new(halves.tx),
                rx: Box::new(halves.rx),
            })
        }
        Ok(Message::Answer(Answer::Refused(refusal))) => {
            halves.tx.reset(StreamCode::REFUSED);
            halves.rx.stop(StreamCode::REFUSED);
            Err(OpenError::Refused(refusal))
        }
        // The decoder gives no other message.
        Ok(_) => Err(OpenError::Reset(StreamCode::INTERNAL)),
        Err(error) => Err(match error.violation() {
            Ok(violation) => close_for(shared, violation),
            Err(RecvError::Reset(code) | RecvError::Stopped(code)) => OpenError::Reset(code),
            Err(RecvError::Connection(error)) => OpenError::Connection(error),
            Err(_) => OpenError::Reset(StreamCode::INTERNAL),
        }),
    }
}

/// A fresh stream, in order of the calls. quinn wakes everybody who waits for one, so only one waits there.
async fn next_stream(shared: &Arc<Shared>) -> Result<Halves, OpenError> {
    let next = async {
        let _turn = shared.turn.lock().await;
        shared.quic.open_bi().await
    };
    let (tx, rx) = tokio::select! {
        biased;
        () = shared.drained_so_that(|draining| draining.any()) => return Err(shared.draining_or_ended()),
        stream = next => stream.map_err(|error| OpenError::Connection(shared.error(error)))?,
    };
    let halves = Halves::new(shared, shared.ticket(None), tx, rx);
    // Looked at again now that the stream counts: whoever drains waits for it, or it sees that they do.
    if shared.draining().any() {
        return Err(shared.draining_or_ended());
    }
    Ok(halves)
}
