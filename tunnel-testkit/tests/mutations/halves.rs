//! Halves with a fault.

use std::{
    fmt::Debug,
    task::{Context, Poll},
};

use bytes::Bytes;
use tunnel_core::{RecvError, RecvStream, SendError, SendStream, StreamCode};

/// What goes wrong with a sending half. Every method does what is right unless it is replaced.
pub(crate) trait TxFault: Debug + Send + 'static {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        tx.poll_send(cx, data)
    }

    fn poll_room(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        tx.poll_room(cx)
    }

    fn poll_flush(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        tx.poll_flush(cx)
    }

    fn poll_finish(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        tx.poll_finish(cx)
    }

    fn poll_stopped(&mut self, tx: &mut dyn SendStream, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        tx.poll_stopped(cx)
    }

    fn reset(&mut self, tx: &mut dyn SendStream, code: StreamCode) {
        tx.reset(code);
    }

    fn drop(&mut self, tx: Box<dyn SendStream>) {
        drop(tx);
    }
}

#[derive(Debug)]
pub(crate) struct FaultyTx<F: TxFault> {
    inner: Option<Box<dyn SendStream>>,
    fault: F,
}

impl<F: TxFault> FaultyTx<F> {
    pub(crate) fn wrap(inner: Box<dyn SendStream>, fault: F) -> Box<dyn SendStream> {
        let inner = Some(inner);
        Box::new(Self { inner, fault })
    }

    fn parts(&mut self) -> (&mut F, &mut dyn SendStream) {
        (&mut self.fault, &mut **self.inner.as_mut().unwrap())
    }
}

impl<F: TxFault> SendStream for FaultyTx<F> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, SendError>> {
        let (fault, tx) = self.parts();
        fault.poll_send(tx, cx, data)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        let (fault, tx) = self.parts();
        fault.poll_room(tx, cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let (fault, tx) = self.parts();
        fault.poll_flush(tx, cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let (fault, tx) = self.parts();
        fault.poll_finish(tx, cx)
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<StreamCode, SendError>> {
        let (fault, tx) = self.parts();
        fault.poll_stopped(tx, cx)
    }

    fn reset(&mut self, code: StreamCode) {
        let (fault, tx) = self.parts();
        fault.reset(tx, code);
    }
}

impl<F: TxFault> Drop for FaultyTx<F> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            self.fault.drop(inner);
        }
    }
}

/// What goes wrong with a receiving half. Every method does what is right unless it is replaced.
pub(crate) trait RxFault: Debug + Send + 'static {
    fn poll_recv(
        &mut self,
        rx: &mut dyn RecvStream,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        rx.poll_recv(cx, max)
    }

    fn poll_reset(&mut self, rx: &mut dyn RecvStream, cx: &mut Context<'_>) -> Poll<RecvError> {
        rx.poll_reset(cx)
    }

    fn stop(&mut self, rx: &mut dyn RecvStream, code: StreamCode) {
        rx.stop(code);
    }

    fn drop(&mut self, rx: Box<dyn RecvStream>) {
        drop(rx);
    }
}

#[derive(Debug)]
pub(crate) struct FaultyRx<F: RxFault> {
    inner: Option<Box<dyn RecvStream>>,
    fault: F,
}

impl<F: RxFault> FaultyRx<F> {
    pub(crate) fn wrap(inner: Box<dyn RecvStream>, fault: F) -> Box<dyn RecvStream> {
        let inner = Some(inner);
        Box::new(Self { inner, fault })
    }
}

impl<F: RxFault> RecvStream for FaultyRx<F> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, RecvError>> {
        let rx = &mut **self.inner.as_mut().unwrap();
        self.fault.poll_recv(rx, cx, max)
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<RecvError> {
        let rx = &mut **self.inner.as_mut().unwrap();
        self.fault.poll_reset(rx, cx)
    }

    fn stop(&mut self, code: StreamCode) {
        let rx = &mut **self.inner.as_mut().unwrap();
        self.fault.stop(rx, code);
    }
}

impl<F: RxFault> Drop for FaultyRx<F> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            self.fault.drop(inner);
        }
    }
}
