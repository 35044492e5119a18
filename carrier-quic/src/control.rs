//! The control stream after the welcome: drain (`docs/wire.md` §5).

use std::{sync::Arc, time::Duration};

use quinn::ReadError;
use tunnel_core::{
    CloseCode,
    proto::{Drain, FrameKind},
};

use crate::{preamble::Messages, shared::Shared};

/// How long an end that did not begin to drain leaves it to the other one to close the connection.
const LINGER: Duration = Duration::from_secs(5);

/// The control stream.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) tx: quinn::SendStream,
    pub(crate) rx: quinn::RecvStream,
    pub(crate) messages: Messages,
}

/// Serves the control stream until the connection ends.
pub(crate) fn serve(shared: &Arc<Shared>, control: Control) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::select! {
            _ = shared.quic.closed() => {}
            () = control.serve(&shared) => {}
        }
    });
}

impl Control {
    /// When both ends have no stream left and have said so, closes the connection.
    ///
    /// Each end finishes its half when its last stream has ended, which for a receiver means that somebody has read it
    /// to its end. So nothing is on its way any more when both halves are finished.
    async fn serve(mut self, shared: &Arc<Shared>) {
        self.messages.expect(&[FrameKind::Drain]);
        let (mut tx, mut rx) = (self.tx, self.rx);
        tokio::join!(
            finish_when_idle(shared, &mut tx),
            listen(shared, &mut rx, self.messages)
        );
        if !shared.draining().local {
            tokio::select! {
                () = tokio::time::sleep(LINGER) => {}
                () = shared.drained_so_that(|draining| draining.local) => {}
            }
        }
        shared.close(CloseCode::DRAINED, "");
    }
}

async fn finish_when_idle(shared: &Arc<Shared>, tx: &mut quinn::SendStream) {
    shared.drained_so_that(|draining| draining.any()).await;
    if shared.draining().local {
        // Failures below mean that the peer has ended the stream or the connection, which `listen` sees.
        let _ = tx.write_chunk(Drain::default().encode()).await;
    }
    shared.idle().await;
    let _ = tx.finish();
}

/// Takes what the peer says, until it has finished its half.
async fn listen(shared: &Arc<Shared>, rx: &mut quinn::RecvStream, mut messages: Messages) {
    loop {
        match messages.next_or_end(rx).await {
            // The decoder gives no other message.
            Ok(Some(_drain)) => shared.drain(|draining| draining.remote = true),
            Ok(None) if shared.draining().any() => return,
            Ok(None) => return shared.close(CloseCode::PROTOCOL, "the control stream ended"),
            Err(error) => match error.violation() {
                Ok((code, reason)) => return shared.close(code, reason),
                Err(ReadError::ConnectionLost(_)) => return,
                Err(_) => return shared.close(CloseCode::PROTOCOL, "the control stream was reset"),
            },
        }
    }
}
