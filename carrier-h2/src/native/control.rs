//! The control stream: what HTTP/2 has no frames for (`docs/wire.md` §12.5).

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::ResponseFuture};
use tunnel_core::proto::{
    FrameError,
    mux::{Frame, FrameStream},
};

/// The most that waits to be sent before streams are no longer asked for. What else is sent is bounded by the streams.
const FULL: usize = 64 * 1024;

/// One end of the control stream.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) tx: Option<SendStream<Bytes>>,
    pub(super) response: Option<ResponseFuture>,
    pub(super) rx: Option<RecvStream>,
    /// Frames that wait for credit.
    out: BytesMut,
    /// What has come of a frame.
    input: FrameStream,
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum ControlError {
    /// It ended, which it may not.
    Ended,
    /// It holds something that is no frame, or none that belongs here.
    Frame(FrameError),
}

impl Control {
    pub(super) fn queue(&mut self, frame: &Frame) {
        frame.encode(&mut self.out);
    }

    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= FULL
    }

    /// Whether everything has gone to HTTP/2.
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Gives to HTTP/2 what credit allows. Says whether that was anything.
    pub(super) fn feed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(tx) = &mut self.tx else { return false };
        let mut fed = false;
        while !self.out.is_empty() {
            tx.reserve_capacity(self.out.len());
            let count = tx.capacity().min(self.out.len());
            if count == 0 {
                // Errors show on the receiving half.
                let _ = tx.poll_capacity(cx);
                break;
            }
            if tx.send_data(self.out.split_to(count).freeze(), false).is_err() {
                break;
            }
            fed = true;
        }
        fed
    }

    /// Whether the peer has closed the connection, or says nothing more. Everything before that is dropped.
    pub(super) fn saw_close(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.poll_frame(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(Frame::Close { .. }) | Err(_)) => return true,
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    /// The next frame; pending until there is one.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, ControlError>> {
        loop {
            match self.input.take() {
                Ok(Some(frame)) => return Poll::Ready(Ok(frame)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(ControlError::Frame(error))),
            }
            let Some(rx) = &mut self.rx else { return Poll::Pending };
            match rx.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) => {
                    // It was received, so it can be released.
                    let _ = rx.flow_control().release_capacity(bytes.len());
                    self.input.push(&bytes);
                }
                Poll::Ready(Some(Err(error))) if !error.is_reset() => {
                    // The connection has failed, which shows when it is polled.
                    self.rx = None;
                    return Poll::Pending;
                }
                Poll::Ready(_) => return Poll::Ready(Err(ControlError::Ended)),
            }
        }
    }
}
