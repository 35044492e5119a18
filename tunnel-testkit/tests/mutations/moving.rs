//! Faults in how bytes move.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use tokio::task::AbortHandle;
use tunnel_core::{Duplex, RecvError, RecvStream, SendError, SendStream, StreamCode};

use crate::{
    fault::Fault,
    halves::{FaultyRx, FaultyTx, RxFault, TxFault},
};

/// Makes a fault of one half's fault.
macro_rules! half {
    (tx $name:ident, $half:expr) => {
        impl Fault for $name {
            fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
                let tx = FaultyTx::wrap(tx, $half);
                Duplex { tx, rx }
            }
        }
    };
    (rx $name:ident, $half:expr) => {
        impl Fault for $name {
            fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
                let rx = FaultyRx::wrap(rx, $half);
                Duplex { tx, rx }
            }
        }
    };
}
pub(crate) use half;

#[derive(Debug)]
pub(crate) struct LosesLastByte;

half!(rx LosesLastByte, OneBehind::default());

#[derive(Debug, Default)]
struct OneBehind(Option<u8>);

impl RxFault for OneBehind {
    fn poll_recv(
        &mut self,
        rx: &mut dyn RecvStream,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        loop {
            let Some(bytes) = ready!(rx.poll_recv(cx, max))? else {
                return Poll::Ready(Ok(None));
            };
            let mut all: Vec<u8> = self.0.take().into_iter().chain(bytes).collect();
            self.0 = all.pop();
            if !all.is_empty() {
                return Poll::Ready(Ok(Some(all.into())));
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct SwapsBytes;

half!(tx SwapsBytes, Swap);

#[derive(Debug)]
struct Swap;

impl TxFault for Swap {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        let mut swapped = data.to_vec();
        if swapped.len() > 1 {
            swapped.swap(0, 1);
        }
        let sent = ready!(tx.poll_send(cx, &mut swapped.into()))?;
        data.advance(sent);
        Poll::Ready(Ok(sent))
    }
}

#[derive(Debug)]
pub(crate) struct IgnoresMax;

half!(rx IgnoresMax, Greedy);

#[derive(Debug)]
struct Greedy;

impl RxFault for Greedy {
    fn poll_recv(
        &mut self,
        rx: &mut dyn RecvStream,
        cx: &mut Context<'_>,
        _max: usize,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        rx.poll_recv(cx, usize::MAX)
    }
}

/// Holds the last chunk back, for a larger write, and forgets it at the end.
#[derive(Debug)]
pub(crate) struct FinishWithoutFlush;

half!(tx FinishWithoutFlush, HoldsBack::default());

#[derive(Debug, Default)]
struct HoldsBack(Bytes);

impl TxFault for HoldsBack {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        while !self.0.is_empty() {
            ready!(tx.poll_send(cx, &mut self.0))?;
        }
        self.0 = std::mem::take(data);
        Poll::Ready(Ok(self.0.len()))
    }

    fn poll_flush(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while !self.0.is_empty() {
            ready!(tx.poll_send(cx, &mut self.0))?;
        }
        tx.poll_flush(cx)
    }
}

/// Resets on drop, finished or not.
#[derive(Debug)]
pub(crate) struct FinishDiesWithSender;

half!(tx FinishDiesWithSender, ResetsOnDrop);

#[derive(Debug)]
struct ResetsOnDrop;

impl TxFault for ResetsOnDrop {
    fn drop(&mut self, mut tx: Box<dyn SendStream>) {
        tx.reset(StreamCode::CANCELLED);
    }
}

#[derive(Debug)]
pub(crate) struct FinishEndsBoth;

impl Fault for FinishEndsBoth {
    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let finished = Arc::new(AtomicBool::new(false));
        Duplex {
            tx: FaultyTx::wrap(tx, EndsBoth(Arc::clone(&finished))),
            rx: FaultyRx::wrap(rx, EndsBoth(finished)),
        }
    }
}

#[derive(Debug)]
struct EndsBoth(Arc<AtomicBool>);

impl TxFault for EndsBoth {
    fn poll_finish(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.store(true, Ordering::Relaxed);
        tx.poll_finish(cx)
    }
}

impl RxFault for EndsBoth {
    fn poll_recv(
        &mut self,
        rx: &mut dyn RecvStream,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        if self.0.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(None));
        }
        rx.poll_recv(cx, max)
    }
}

#[derive(Debug)]
pub(crate) struct SenderWithoutBound;

half!(tx SenderWithoutBound, Hoard::default());

#[derive(Debug, Default)]
struct Hoard(VecDeque<Bytes>);

impl TxFault for Hoard {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        let taken = std::mem::take(data);
        let len = taken.len();
        self.0.push_back(taken);
        while let Some(front) = self.0.front_mut() {
            if tx.poll_send(cx, front)?.is_pending() {
                break;
            }
            if front.is_empty() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(len))
    }
}

/// Takes whatever comes, so that credit returns on receipt.
#[derive(Debug)]
pub(crate) struct ReceiverWithoutBound;

impl Fault for ReceiverWithoutBound {
    fn stream(&self, Duplex { tx, mut rx }: Duplex) -> Duplex {
        let taken = Arc::new(Mutex::new(Taken::default()));
        let sink = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            loop {
                let received = rx.recv(usize::MAX).await;
                let over = !matches!(received, Ok(Some(_)));
                let mut sink = sink.lock().unwrap();
                sink.received.push_back(received);
                if let Some(waker) = sink.waker.take() {
                    waker.wake();
                }
                if over {
                    return;
                }
            }
        });
        let task = task.abort_handle();
        Duplex {
            tx,
            rx: Box::new(Prefetched { taken, task }),
        }
    }
}

#[derive(Debug, Default)]
struct Taken {
    received: VecDeque<Result<Option<Bytes>, RecvError>>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Prefetched {
    taken: Arc<Mutex<Taken>>,
    task: AbortHandle,
}

impl RecvStream for Prefetched {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        let mut taken = self.taken.lock().unwrap();
        match taken.received.front_mut() {
            None => {
                taken.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Ok(Some(bytes))) if bytes.len() > max => Poll::Ready(Ok(Some(bytes.split_to(max)))),
            Some(_) => Poll::Ready(taken.received.pop_front().unwrap()),
        }
    }

    fn poll_reset(&mut self, _cx: &mut Context<'_>) -> Poll<RecvError> {
        Poll::Pending
    }

    fn stop(&mut self, _code: StreamCode) {
        self.task.abort();
    }
}

impl Drop for Prefetched {
    fn drop(&mut self) {
        self.task.abort();
    }
}
