//! Faults in how streams and connections end.

use std::{
    future::pending,
    mem::forget,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tunnel_core::{
    CloseCode, Connection, ConnectionError, Duplex, Inbound, OpenError, RecvError, RecvStream, SendError, SendStream,
    StreamCode, StreamHead,
};

use crate::{
    fault::Fault,
    halves::{FaultyRx, FaultyTx, RxFault, TxFault},
    moving::half,
};

#[derive(Debug)]
pub(crate) struct SwallowsReset;

half!(tx SwallowsReset, NoReset);

#[derive(Debug)]
struct NoReset;

impl TxFault for NoReset {
    fn reset(&mut self, _tx: &mut dyn SendStream, _code: StreamCode) {}
}

/// Tells of a reset only those who look again by themselves.
#[derive(Debug)]
pub(crate) struct ResetWakesNobody;

half!(rx ResetWakesNobody, Asleep);

#[derive(Debug)]
struct Asleep;

impl RxFault for Asleep {
    fn poll_recv(
        &mut self,
        rx: &mut dyn RecvStream,
        _cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        rx.poll_recv(&mut Context::from_waker(Waker::noop()), max)
    }
}

#[derive(Debug)]
pub(crate) struct ResetAsCleanEnd;

half!(rx ResetAsCleanEnd, CleanEnd);

#[derive(Debug)]
struct CleanEnd;

impl RxFault for CleanEnd {
    fn poll_recv(
        &mut self,
        rx: &mut dyn RecvStream,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        match rx.poll_recv(cx, max) {
            Poll::Ready(Err(RecvError::Reset(_))) => Poll::Ready(Ok(None)),
            other => other,
        }
    }
}

/// Tells of a reset only those who take what came before it.
#[derive(Debug)]
pub(crate) struct ResetNeedsRoom;

half!(rx ResetNeedsRoom, NeedsRoom);

#[derive(Debug)]
struct NeedsRoom;

impl RxFault for NeedsRoom {
    fn poll_reset(&mut self, _rx: &mut dyn RecvStream, _cx: &mut Context<'_>) -> Poll<RecvError> {
        Poll::Pending
    }
}

#[derive(Debug)]
pub(crate) struct ResetWithoutCode;

half!(tx ResetWithoutCode, NoCode);

#[derive(Debug)]
pub(crate) struct StopWithoutCode;

half!(rx StopWithoutCode, NoCode);

#[derive(Debug)]
struct NoCode;

impl TxFault for NoCode {
    fn reset(&mut self, tx: &mut dyn SendStream, _code: StreamCode) {
        tx.reset(StreamCode::CANCELLED);
    }
}

impl RxFault for NoCode {
    fn stop(&mut self, rx: &mut dyn RecvStream, _code: StreamCode) {
        rx.stop(StreamCode::CANCELLED);
    }
}

/// Queues a reset behind the bytes that wait for credit.
#[derive(Debug)]
pub(crate) struct ResetWaitsForCredit;

half!(tx ResetWaitsForCredit, BehindCredit::default());

#[derive(Debug, Default)]
struct BehindCredit {
    is_blocked: bool,
}

impl TxFault for BehindCredit {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        let sent = tx.poll_send(cx, data);
        self.is_blocked = sent.is_pending();
        sent
    }

    fn reset(&mut self, tx: &mut dyn SendStream, code: StreamCode) {
        if !self.is_blocked {
            tx.reset(code);
        }
    }
}

#[derive(Debug)]
pub(crate) struct IgnoresStop;

half!(rx IgnoresStop, NoStop);

#[derive(Debug)]
struct NoStop;

impl RxFault for NoStop {
    fn stop(&mut self, _rx: &mut dyn RecvStream, _code: StreamCode) {}
}

/// Tells of a stop, but not whoever waits for credit.
#[derive(Debug)]
pub(crate) struct StopMissesBlockedSender;

half!(tx StopMissesBlockedSender, Blocked::default());

#[derive(Debug, Default)]
struct Blocked(bool);

impl TxFault for Blocked {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        match tx.poll_send(cx, data) {
            Poll::Ready(Err(SendError::Stopped(_))) if self.0 => Poll::Pending,
            other => {
                self.0 = other.is_pending();
                other
            }
        }
    }
}

/// As a QUIC library may do by default.
#[derive(Debug)]
pub(crate) struct DroppedSenderFinishes;

half!(tx DroppedSenderFinishes, FinishesOnDrop);

#[derive(Debug)]
struct FinishesOnDrop;

impl TxFault for FinishesOnDrop {
    fn drop(&mut self, mut tx: Box<dyn SendStream>) {
        let _finished = tx.poll_finish(&mut Context::from_waker(Waker::noop()));
    }
}

#[derive(Debug)]
pub(crate) struct DroppedReceiverForgotten;

half!(rx DroppedReceiverForgotten, ForgottenOnDrop);

#[derive(Debug)]
struct ForgottenOnDrop;

impl RxFault for ForgottenOnDrop {
    fn drop(&mut self, rx: Box<dyn RecvStream>) {
        forget(rx);
    }
}

#[derive(Debug)]
pub(crate) struct DroppedInboundForgotten;

impl Fault for DroppedInboundForgotten {
    fn drop_unanswered(&self, inbound: Box<dyn Inbound>) {
        forget(inbound);
    }
}

#[derive(Debug)]
pub(crate) struct DroppedConnectionLivesOn;

impl Fault for DroppedConnectionLivesOn {
    fn connected(&self, connection: &Arc<dyn Connection>) {
        forget(Arc::clone(connection));
    }
}

#[derive(Debug)]
pub(crate) struct ReceiverMissesEnd;

half!(rx ReceiverMissesEnd, MissesEnd);

#[derive(Debug)]
struct MissesEnd;

impl RxFault for MissesEnd {
    fn poll_recv(
        &mut self,
        rx: &mut dyn RecvStream,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, RecvError>> {
        match rx.poll_recv(cx, max) {
            Poll::Ready(Err(RecvError::Connection(_))) => Poll::Pending,
            other => other,
        }
    }
}

#[derive(Debug)]
pub(crate) struct OpenMissesEnd;

#[async_trait]
impl Fault for OpenMissesEnd {
    async fn open(
        &self,
        connection: &Arc<dyn Connection>,
        head: StreamHead,
        early: &mut Bytes,
    ) -> Result<Duplex, OpenError> {
        match connection.open_with(head, early).await {
            Err(OpenError::Connection(_)) => pending().await,
            other => other,
        }
    }
}

#[derive(Debug)]
pub(crate) struct CutBlamesThisSide;

#[async_trait]
impl Fault for CutBlamesThisSide {
    async fn closed(&self, connection: &dyn Connection) -> ConnectionError {
        connection.closed().await;
        ConnectionError::local(CloseCode::INTERNAL, "")
    }
}

#[derive(Debug)]
pub(crate) struct SilenceUnnoticed;

#[async_trait]
impl Fault for SilenceUnnoticed {
    async fn closed(&self, connection: &dyn Connection) -> ConnectionError {
        match connection.closed().await {
            ConnectionError::TimedOut { .. } => pending().await,
            other => other,
        }
    }
}

/// Ends a connection after a while in which nothing needs to be said.
#[derive(Debug)]
pub(crate) struct KillsIdle;

impl Fault for KillsIdle {
    fn connected(&self, connection: &Arc<dyn Connection>) {
        let connection = Arc::clone(connection);
        tokio::spawn(async move {
            sleep(Duration::from_secs(5)).await;
            connection.close(CloseCode::TIMEOUT, "silent");
        });
    }
}

/// Ends a connection on which this side has talked for a while.
#[derive(Debug, Default)]
pub(crate) struct KillsBusy(Mutex<Option<Arc<dyn Connection>>>);

impl Fault for KillsBusy {
    fn connected(&self, connection: &Arc<dyn Connection>) {
        *self.0.lock().unwrap() = Some(Arc::clone(connection));
    }

    fn stream(&self, Duplex { tx, rx }: Duplex) -> Duplex {
        let connection = self.0.lock().unwrap().clone().unwrap();
        let since = Instant::now();
        let tx = FaultyTx::wrap(tx, Impatient { connection, since });
        Duplex { tx, rx }
    }
}

#[derive(Debug)]
struct Impatient {
    connection: Arc<dyn Connection>,
    since: Instant,
}

impl TxFault for Impatient {
    fn poll_send(
        &mut self,
        tx: &mut dyn SendStream,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, SendError>> {
        if self.since.elapsed() > Duration::from_secs(5) {
            self.connection.close(CloseCode::TIMEOUT, "no answer");
        }
        tx.poll_send(cx, data)
    }
}

#[derive(Debug)]
pub(crate) struct IgnoresDrain;

impl Fault for IgnoresDrain {
    fn drain(&self, _connection: &dyn Connection) {}
}

#[derive(Debug)]
pub(crate) struct DrainCloses;

impl Fault for DrainCloses {
    fn drain(&self, connection: &dyn Connection) {
        connection.close(CloseCode::DRAINED, "");
    }
}

#[derive(Debug)]
pub(crate) struct DrainedStays;

#[async_trait]
impl Fault for DrainedStays {
    async fn closed(&self, connection: &dyn Connection) -> ConnectionError {
        match connection.closed().await {
            error if error.code() == Some(CloseCode::DRAINED) => pending().await,
            other => other,
        }
    }
}
