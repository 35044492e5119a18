//! How streams are opened, answered and ended.

use std::{
    io, mem,
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll},
};

use http::response;
use tokio::time::Instant;
use tunnel_core::{
    Answer, CloseCode, ConnectionError, Refusal, RefusalKind, StreamCode, StreamHead, Text,
    proto::{Drain, mux::Frame},
};

use super::{Native, messages, stream_id};
use crate::http2::{Driver, Incoming, Opening, Outcome, Plan, Protocol, Rx, Stream, Tx, connection_error, reason};

impl Driver<Native> {
    pub(super) fn is_server(&self) -> bool {
        self.session.is_client()
    }
}

impl Protocol for Native {
    /// A server opens the control stream.
    fn begin(driver: &mut Driver<Self>, cx: &mut Context<'_>) {
        // An error shows when the connection is polled.
        if let Poll::Ready(Ok(Some((response, tx)))) = driver.session.poll_request(cx, &mut Some(messages::control())) {
            driver.protocol.control.tx = Some(tx);
            driver.protocol.control.response = Some(response);
        }
    }

    fn arrive(driver: &mut Driver<Self>, incoming: Incoming) {
        driver.requested(incoming);
    }

    fn listen(driver: &mut Driver<Self>, cx: &mut Context<'_>, _now: Instant) -> bool {
        driver.hear(cx)
    }

    fn open(
        driver: &mut Driver<Self>,
        stream: &Arc<Stream>,
        head: Box<StreamHead>,
        cx: &mut Context<'_>,
        now: Instant,
    ) {
        if stream.lock().tx != Tx::Open {
            // Given up before the peer heard of it.
            return;
        }
        if driver.protocol.drain_sent || driver.hub.draining().any() {
            return stream.lock().resolve(Outcome::Draining);
        }
        let is_server = driver.is_server();
        let control = &mut driver.protocol.control;
        if !driver.waiting.is_empty() || (!is_server && (control.is_full() || control.tx.is_none())) {
            return driver.wait(stream, Plan::Open(head));
        }
        if !is_server {
            let key = driver.protocol.next_asked;
            driver.protocol.next_asked += 2;
            control.queue(&Frame::Open {
                id: stream_id(key),
                head: *head,
            });
            let wire = driver.wire(stream, Opening::Asked, now);
            return driver.insert(key, wire);
        }
        if driver.ask(stream, messages::open(&head), cx, now).is_err() {
            driver.wait(stream, Plan::Open(head));
        }
    }

    fn accept(driver: &mut Driver<Self>, stream: &Arc<Stream>, cx: &mut Context<'_>) {
        let Some(wire) = stream.key().and_then(|key| driver.wires.get_mut(&key)) else {
            return;
        };
        if !matches!(wire.opening, Opening::Granting(_)) {
            return driver.respond(stream, messages::accepted());
        }
        let Opening::Granting(request) = mem::replace(&mut wire.opening, Opening::Done) else {
            return;
        };
        let sent = if driver.waiting.is_empty() {
            driver.request(*request, cx)
        } else {
            Err(request)
        };
        let is_sent = sent.is_ok();
        if let Some(wire) = stream.key().and_then(|key| driver.wires.get_mut(&key)) {
            match sent {
                Ok((response, tx)) => {
                    wire.opening = Opening::Requested(response);
                    wire.tx = Some(tx);
                }
                Err(request) => wire.opening = Opening::Granting(request),
            }
        }
        if !is_sent {
            driver.wait(stream, Plan::Accept);
        }
    }

    fn refuse(driver: &mut Driver<Self>, stream: &Stream, refusal: &Refusal) {
        let Some(key) = stream.key() else { return };
        let Some(wire) = driver.wires.remove(&key) else { return };
        match wire.opening {
            // If it cannot be sent, the stream is over.
            Opening::Responding(mut respond) => drop(respond.send_response(messages::refused(refusal), true)),
            Opening::Granting(_) => driver.protocol.control.queue(&Frame::Answer {
                id: stream_id(key),
                answer: Answer::Refused(refusal.clone()),
            }),
            _ => {}
        }
    }

    fn answered(driver: &mut Driver<Self>, key: u64, response: &response::Parts, _now: Instant) {
        match messages::read_answer(response.status, &response.headers) {
            Ok(Answer::Accepted) => {
                if let Some(wire) = driver.wires.get(&key) {
                    wire.stream.lock().resolve(Outcome::Accepted);
                }
            }
            Ok(Answer::Refused(refusal)) => driver.refused(key, refusal),
            Ok(_) => {
                let refusal = Refusal::new(RefusalKind::ProxyInternalError, "an unknown answer");
                driver.refused(key, refusal);
            }
            Err(error) => driver.hub.close(CloseCode::PROTOCOL, error.to_string()),
        }
    }

    fn unanswered(_driver: &mut Driver<Self>, _key: u64, code: StreamCode) -> Outcome {
        Outcome::Ended(code)
    }

    fn conclude(driver: &mut Driver<Self>, key: u64) {
        let Some(wire) = driver.wires.get_mut(&key) else { return };
        let control = &mut driver.protocol.control;
        let stream = Arc::clone(&wire.stream);
        let state = stream.lock();
        let (tx, rx) = (state.tx, state.rx);
        let has_to_send = wire.has_to_send(&state);
        drop(state);
        let given_up = match tx {
            Tx::Reset(code) | Tx::Stopped(code) => Some(code),
            Tx::Open | Tx::Finished => None,
        };
        let id = stream_id(key);
        if let Some(code) = given_up
            && rx != Rx::Open
        {
            // Both halves have ended, one of them by force: so does the stream.
            let asked = matches!(wire.opening, Opening::Asked);
            let unseen = matches!(wire.opening, Opening::Granting(_) | Opening::Responding(_));
            if asked && matches!(tx, Tx::Reset(_)) {
                control.queue(&Frame::Reset { id, code });
            }
            if let Rx::Stopped(other) = rx
                && !wire.told_stop
                && (asked || (other != code && !unseen))
            {
                control.queue(&Frame::Stop { id, code: other });
            }
            wire.reset(reason(code));
            driver.wires.remove(&key);
            driver.given_up |= unseen;
            return;
        }
        if wire.finished && rx == Rx::Ended {
            driver.wires.remove(&key);
            return;
        }
        if let Tx::Reset(code) = tx
            && !wire.told_reset
        {
            wire.told_reset = true;
            control.queue(&Frame::Reset { id, code });
        }
        if given_up.is_some()
            && let Some(tx) = &mut wire.tx
        {
            tx.reserve_capacity(0);
        }
        if let Rx::Stopped(code) = rx
            && !wire.told_stop
        {
            wire.told_stop = true;
            control.queue(&Frame::Stop { id, code });
        }
        if matches!(rx, Rx::Stopped(_) | Rx::Reset(_)) {
            // What comes still is discarded there, and its credit returned.
            wire.end_rx();
        }
        if has_to_send {
            driver.take_turn(key);
        }
    }

    /// Says that this side drains, and that it is done.
    fn settle(driver: &mut Driver<Self>, cx: &mut Context<'_>) -> bool {
        let draining = driver.hub.draining();
        if !draining.any() || driver.protocol.control.tx.is_none() {
            return false;
        }
        if !driver.protocol.drain_sent {
            driver.protocol.drain_sent = true;
            driver.protocol.control.queue(&Frame::Drain(Drain::default()));
            return driver.protocol.control.feed(cx);
        }
        if draining.remote && driver.is_idle() && driver.protocol.control.is_empty() && driver.hub.ended().is_none() {
            driver.hub.close(CloseCode::DRAINED, "");
        }
        false
    }

    fn feed(driver: &mut Driver<Self>, cx: &mut Context<'_>) -> bool {
        driver.protocol.control.feed(cx)
    }

    fn closed_by_peer(driver: &mut Driver<Self>) -> Option<ConnectionError> {
        let (code, text) = driver.protocol.closed_by_peer.take()?;
        Some(ConnectionError::remote(code, text))
    }

    fn close(driver: &mut Driver<Self>, cx: &mut Context<'_>, code: CloseCode, text: Text) {
        driver.protocol.control.queue(&Frame::Close { code, text });
        driver.protocol.control.feed(cx);
    }

    fn leave(driver: &mut Driver<Self>, cx: &mut Context<'_>) -> ControlFlow<(), bool> {
        if driver.protocol.control.saw_close(cx) {
            // Both ends have closed it at once, and neither waits for the other.
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(driver.protocol.control.feed(cx))
    }

    fn ended(_driver: &mut Driver<Self>, ended: Result<(), h2::Error>) -> ConnectionError {
        match ended {
            Err(error) => connection_error(error),
            Ok(()) => ConnectionError::transport(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }

    fn next_look(&self) -> Option<Instant> {
        None
    }
}
