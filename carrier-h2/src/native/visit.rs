//! What the driver does about one stream.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use tokio::time::Instant;
use tunnel_core::{
    Answer, CloseCode, Refusal, RefusalKind, StreamCode, StreamHead,
    proto::{
        VarInt,
        mux::{Frame, StreamId},
    },
};

use super::{
    driver::Driver,
    messages,
    stream::{Outcome, Plan, Rx, Stream, Tx},
    window::Use,
    wire::{Opening, Seen, Wire},
};
use crate::http2::{Sent, Session};

/// From this number on, new streams go to a new connection: HTTP/2 numbers them below 2^31.
const LAST_NUMBER: u64 = 1 << 30;

impl Driver {
    pub(super) fn is_server(&self) -> bool {
        matches!(self.session, Session::Client { .. })
    }

    /// Looks at all streams that have news. Says whether there were any.
    pub(super) fn visit_all(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let waiting = mem::take(&mut self.waiting);
        let ready = self.hub.take_ready();
        let moved = !ready.is_empty();
        for stream in waiting.into_iter().chain(ready) {
            self.visit(&stream, cx, now);
        }
        if mem::take(&mut self.given_up) {
            self.hub.arrivals.sweep();
        }
        moved
    }

    fn visit(&mut self, stream: &Arc<Stream>, cx: &mut Context<'_>, now: Instant) {
        stream.visited();
        let plan = mem::replace(&mut stream.lock().plan, Plan::Nothing);
        match plan {
            Plan::Nothing => {}
            Plan::Open(head) => self.open(stream, head, cx, now),
            Plan::Accept => self.accept(stream, cx),
            Plan::Refuse(refusal) => self.refuse(stream, &refusal),
        }
        if let Some(key) = stream.key() {
            self.receive(key, now);
            self.conclude(key);
        }
    }

    fn open(&mut self, stream: &Arc<Stream>, head: Box<StreamHead>, cx: &mut Context<'_>, now: Instant) {
        if stream.lock().tx != Tx::Open {
            // Given up before the peer heard of it.
            return;
        }
        if self.drain_sent || self.hub.draining().any() {
            return stream.lock().resolve(Outcome::Draining);
        }
        if !self.waiting.is_empty() || (!self.is_server() && (self.control.is_full() || self.control.tx.is_none())) {
            return self.wait(stream, Plan::Open(head));
        }
        let usage = Use::new(&self.windows, now.into_std());
        if !self.is_server() {
            let key = self.next_asked;
            self.next_asked += 2;
            self.control.queue(&Frame::Open {
                id: stream_id(key),
                head: *head,
            });
            return self.insert(key, Wire::new(Arc::clone(stream), Opening::Asked, usage));
        }
        match self.request(messages::open(&head), cx) {
            Ok((response, tx)) => {
                let key = u64::from(tx.stream_id().as_u32());
                let mut wire = Wire::new(Arc::clone(stream), Opening::Requested(response), usage);
                wire.tx = Some(tx);
                self.insert(key, wire);
            }
            Err(_) => self.wait(stream, Plan::Open(head)),
        }
    }

    /// Makes a request, or gives it back if it has to wait.
    fn request(&mut self, request: Request<()>, cx: &mut Context<'_>) -> Result<Sent, Box<Request<()>>> {
        let mut request = Some(request);
        match self.session.poll_request(cx, &mut request) {
            Poll::Ready(Ok(Some(sent))) => {
                if u64::from(sent.1.stream_id().as_u32()) >= LAST_NUMBER && !self.hub.draining().local {
                    tracing::debug!("draining the connection: its numbers for streams are running out");
                    self.hub.drain(|draining| draining.local = true);
                }
                Ok(sent)
            }
            // An error shows when the connection is polled.
            _ => Err(Box::new(request.unwrap_or_default())),
        }
    }

    fn wait(&mut self, stream: &Arc<Stream>, plan: Plan) {
        stream.lock().plan = plan;
        self.waiting.push_back(Arc::clone(stream));
    }

    pub(super) fn insert(&mut self, key: u64, wire: Wire) {
        wire.stream.set_key(key);
        wire.stream.lock().window = self.windows.size();
        self.wires.insert(key, wire);
    }

    fn accept(&mut self, stream: &Arc<Stream>, cx: &mut Context<'_>) {
        let Some(wire) = stream.key().and_then(|key| self.wires.get_mut(&key)) else {
            return;
        };
        match mem::replace(&mut wire.opening, Opening::Done) {
            Opening::Responding(mut respond) => match respond.send_response(messages::accepted(), false) {
                Ok(tx) => wire.tx = Some(tx),
                // The stream is over, and the request's half says why.
                Err(_) => wire.opening = Opening::Responding(respond),
            },
            Opening::Granting(request) if self.waiting.is_empty() => match self.request(*request, cx) {
                Ok((response, tx)) => {
                    if let Some(wire) = stream.key().and_then(|key| self.wires.get_mut(&key)) {
                        wire.opening = Opening::Requested(response);
                        wire.tx = Some(tx);
                    }
                }
                Err(request) => {
                    if let Some(wire) = stream.key().and_then(|key| self.wires.get_mut(&key)) {
                        wire.opening = Opening::Granting(request);
                    }
                    self.wait(stream, Plan::Accept);
                }
            },
            Opening::Granting(request) => {
                wire.opening = Opening::Granting(request);
                self.wait(stream, Plan::Accept);
            }
            other => wire.opening = other,
        }
    }

    fn refuse(&mut self, stream: &Stream, refusal: &Refusal) {
        let Some(key) = stream.key() else { return };
        let Some(wire) = self.wires.remove(&key) else { return };
        match wire.opening {
            // If it cannot be sent, the stream is over.
            Opening::Responding(mut respond) => drop(respond.send_response(messages::refused(refusal), true)),
            Opening::Granting(_) => self.control.queue(&Frame::Answer {
                id: stream_id(key),
                answer: Answer::Refused(refusal.clone()),
            }),
            _ => {}
        }
    }

    /// Takes what has come for a stream, and returns credit for what was read.
    pub(super) fn receive(&mut self, key: u64, now: Instant) {
        let Some(wire) = self.wires.get_mut(&key) else { return };
        let stream = Arc::clone(&wire.stream);
        match wire.poll_response() {
            Seen::Nothing => {}
            Seen::Reset(code) => return self.gone(key, code),
            Seen::Response(response) => match messages::read_answer(response.status, &response.headers) {
                Ok(Answer::Accepted) => stream.lock().resolve(Outcome::Accepted),
                Ok(Answer::Refused(refusal)) => self.refused(key, refusal),
                Ok(_) => self.refused(key, Refusal::new(RefusalKind::ProxyInternalError, "an unknown answer")),
                Err(error) => return self.hub.close(CloseCode::PROTOCOL, error.to_string()),
            },
        }
        loop {
            let Some(wire) = self.wires.get_mut(&key) else { return };
            match wire.poll_data() {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(bytes))) => {
                    let count = bytes.len();
                    let wanted = stream.lock().rx == Rx::Open;
                    if wanted && !self.charge(&stream, count) {
                        let dropped = stream.lock().end_rx(Rx::Stopped(StreamCode::MEMORY));
                        self.hub.account.release(dropped as u64);
                    } else if wanted {
                        let kept = stream.lock().receive(bytes);
                        // The reader may have stopped it in between.
                        self.hub.account.release((count - kept) as u64);
                    }
                }
                Poll::Ready(Ok(None)) => {
                    stream.lock().end_rx(Rx::Ended);
                    break;
                }
                Poll::Ready(Err(Seen::Reset(code))) => return self.gone(key, code),
                Poll::Ready(Err(_)) => break,
            }
        }
        let Some(wire) = self.wires.get_mut(&key) else { return };
        if let Seen::Reset(code) = wire.poll_reset() {
            return self.gone(key, code);
        }
        let taken = {
            let mut state = stream.lock();
            state.window = self.windows.size();
            mem::take(&mut state.taken)
        };
        if taken > 0 {
            wire.release(taken);
            let pressure = self.hub.account.pressure();
            let round_trip = self.shortest_round_trip();
            if let Some(wire) = self.wires.get_mut(&key) {
                self.windows
                    .took(&mut wire.usage, taken, now.into_std(), round_trip, pressure);
            }
        }
    }

    /// HTTP/2 has ended the stream.
    fn gone(&mut self, key: u64, code: StreamCode) {
        let Some(wire) = self.wires.remove(&key) else { return };
        let mut state = wire.stream.lock();
        state.resolve(Outcome::Ended(code));
        state.end_tx(Tx::Stopped(code));
        let dropped = state.end_rx(Rx::Reset(code));
        drop(state);
        self.hub.account.release(dropped as u64);
        self.given_up |= matches!(wire.opening, Opening::Responding(_));
    }

    /// The peer does not open the stream.
    pub(super) fn refused(&mut self, key: u64, refusal: Refusal) {
        let Some(wire) = self.wires.get(&key) else { return };
        let mut state = wire.stream.lock();
        state.resolve(Outcome::Refused(refusal));
        state.end_tx(Tx::Stopped(StreamCode::REFUSED));
        state.end_rx(Rx::Reset(StreamCode::REFUSED));
    }

    /// Tells the peer how halves have ended, and forgets a stream that is over.
    pub(super) fn conclude(&mut self, key: u64) {
        let Some(wire) = self.wires.get_mut(&key) else { return };
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
                self.control.queue(&Frame::Reset { id, code });
            }
            if let Rx::Stopped(other) = rx
                && !wire.told_stop
                && (asked || (other != code && !unseen))
            {
                self.control.queue(&Frame::Stop { id, code: other });
            }
            wire.reset(code);
            self.wires.remove(&key);
            self.given_up |= unseen;
            return;
        }
        if wire.finished && rx == Rx::Ended {
            self.wires.remove(&key);
            return;
        }
        if let Tx::Reset(code) = tx
            && !wire.told_reset
        {
            wire.told_reset = true;
            self.control.queue(&Frame::Reset { id, code });
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
            self.control.queue(&Frame::Stop { id, code });
        }
        if matches!(rx, Rx::Stopped(_) | Rx::Reset(_)) {
            // What comes still is discarded there, and its credit returned.
            wire.rx = None;
        }
        if has_to_send {
            self.take_turn(key);
        }
    }
}

/// A stream's number in frames.
fn stream_id(key: u64) -> StreamId {
    StreamId::from_value(VarInt::saturating_from_u64(key))
}
