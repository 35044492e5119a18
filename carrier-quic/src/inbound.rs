//! Streams that the peer opens.

use std::{
    fmt,
    future::{Future, poll_fn},
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};
use tunnel_core::{
    Answer, CloseCode, Duplex, Inbound, OpenError, RecvStream, Refusal, RefusalKind, SendError, SendStream, StreamCode,
    StreamHead,
    proto::{FrameKind, Message},
};

use crate::{
    limit::StreamLimit,
    preamble::Messages,
    shared::Shared,
    stream::{Halves, SendHalf},
};

/// How many streams with a head wait for `accept`. More stay in quinn, and the peer's limit binds.
const QUEUE: usize = 64;

/// Takes the peer's streams until the connection ends. They come out in the order in which their heads are complete.
pub(crate) fn accept_streams(shared: &Arc<Shared>) -> mpsc::Receiver<QuicInbound> {
    let (queue, inbounds) = mpsc::channel(QUEUE);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::select! {
            _ = shared.quic.closed() => {}
            () = take_streams(&shared, &queue) => {}
        }
    });
    inbounds
}

async fn take_streams(shared: &Arc<Shared>, queue: &mpsc::Sender<QuicInbound>) {
    let mut limit = StreamLimit::new(&shared.config);
    let half_open = Arc::new(Semaphore::new(shared.config.max_half_open));
    loop {
        let Ok(reading) = Arc::clone(&half_open).acquire_owned().await else {
            return;
        };
        // While draining, nobody is left to wait for a place; see `read_head`.
        let place = tokio::select! {
            biased;
            place = limit.place() => place,
            () = shared.drained_so_that(|draining| draining.any()) => None,
        };
        let Ok((tx, rx)) = shared.quic.accept_bi().await else {
            return;
        };
        limit.grow(&shared.quic);
        let has_place = place.is_some();
        let halves = Halves::new(shared, shared.ticket(place), tx, rx);
        let mut head = Box::pin(read_head(Arc::clone(shared), halves, has_place));

        // The head has usually come with the packet that opened the stream.
        match poll_fn(|cx| Poll::Ready(head.as_mut().poll(cx))).await {
            Poll::Ready(inbound) => {
                drop(reading);
                if !deliver(queue, inbound).await {
                    return;
                }
            }
            Poll::Pending => {
                let (shared, queue) = (Arc::clone(shared), queue.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = shared.quic.closed() => {}
                        _ = async { deliver(&queue, head.await).await } => {}
                    }
                    drop(reading);
                });
            }
        }
    }
}

/// Queues a stream; gives `false` when nobody is there to take it.
async fn deliver(queue: &mpsc::Sender<QuicInbound>, inbound: Option<QuicInbound>) -> bool {
    match inbound {
        Some(inbound) => queue.send(inbound).await.is_ok(),
        None => !queue.is_closed(),
    }
}

/// Reads the head of a stream; `None` if there is none, which has been dealt with. A stream that came after this side
/// began to drain, or that had no place under the limit when either side did, is refused.
async fn read_head(shared: Arc<Shared>, mut halves: Halves, has_place: bool) -> Option<QuicInbound> {
    let mut messages = Messages::expecting(&[FrameKind::Head]);
    let patience = shared.config.preamble_timeout;
    let head = match tokio::time::timeout(patience, messages.next(&mut halves.rx)).await {
        Ok(Ok(Message::Head(head))) => head,
        // The decoder gives no other message.
        Ok(Ok(_)) => return None,
        Ok(Err(error)) => {
            // A stream that the peer has reset or that ended with the connection is only dropped.
            if let Ok((code, reason)) = error.violation() {
                shared.close(code, reason);
            }
            return None;
        }
        Err(_) => {
            tracing::debug!(remote = %shared.quic.remote_address(), ?patience, "a stream was opened without a head");
            halves.tx.reset(StreamCode::PROTOCOL);
            halves.rx.stop(StreamCode::PROTOCOL);
            return None;
        }
    };
    halves.rx.unread(messages.into_rest());
    let inbound = QuicInbound {
        head,
        halves: Some(halves),
        shared,
    };
    if inbound.shared.draining().local || !has_place {
        let refusal = Refusal::new(
            RefusalKind::DestinationUnavailable,
            "the connection is draining and takes no new streams",
        );
        Box::new(inbound).refuse(refusal);
        return None;
    }
    Some(inbound)
}

/// A stream that the peer has opened and that waits for an answer.
pub(crate) struct QuicInbound {
    head: StreamHead,
    /// Until it is answered.
    halves: Option<Halves>,
    shared: Arc<Shared>,
}

#[async_trait]
impl Inbound for QuicInbound {
    fn head(&self) -> &StreamHead {
        &self.head
    }

    /// An opener that gives a stream up before its answer stops and resets it (`docs/wire.md` §5).
    async fn cancelled(&mut self) {
        if let Some(halves) = &mut self.halves {
            // An error says that the connection has ended, which counts as well.
            let _ = poll_fn(|cx| halves.tx.poll_stopped(cx)).await;
        }
    }

    async fn accept(mut self: Box<Self>) -> Result<Duplex, OpenError> {
        let Some(Halves { mut tx, rx }) = self.halves.take() else {
            return Err(OpenError::Reset(StreamCode::INTERNAL));
        };
        write_preamble(&mut tx, Answer::Accepted.encode()).await?;
        self.shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(Duplex {
            tx: Box::new(tx),
            rx: Box::new(rx),
        })
    }

    fn refuse(mut self: Box<Self>, refusal: Refusal) {
        self.answer_no(refusal);
    }
}

impl QuicInbound {
    fn answer_no(&mut self, refusal: Refusal) {
        if let Some(Halves { tx, mut rx }) = self.halves.take() {
            rx.stop(StreamCode::REFUSED);
            tx.send_last(Answer::Refused(refusal).encode());
        }
    }
}

impl Drop for QuicInbound {
    fn drop(&mut self) {
        self.answer_no(Refusal::new(
            RefusalKind::ProxyInternalError,
            "the stream was given up without an answer",
        ));
    }
}

impl fmt::Debug for QuicInbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicInbound")
            .field("head", &self.head)
            .field("halves", &self.halves)
            .finish_non_exhaustive()
    }
}

/// Writes a head or an answer.
pub(crate) async fn write_preamble(tx: &mut SendHalf, frame: bytes::Bytes) -> Result<(), OpenError> {
    tx.write_all(frame).await.map_err(|error| match error {
        SendError::Stopped(code) | SendError::Reset(code) => OpenError::Reset(code),
        SendError::Connection(error) => OpenError::Connection(error),
        _ => OpenError::Reset(StreamCode::INTERNAL),
    })
}

/// Closes the connection because the peer broke the protocol, and says how.
pub(crate) fn close_for(shared: &Shared, (code, reason): (CloseCode, String)) -> OpenError {
    shared.close(code, reason.as_str());
    OpenError::Protocol(reason.into())
}
