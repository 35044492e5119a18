//! What the driver does about one stream.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::time::Instant;
use tunnel_core::{Inbound, Refusal, RefusalKind, StreamCode, StreamHead};

use super::{
    Driver, Sent,
    hub::Place,
    inbound::H2Inbound,
    protocol::Protocol,
    stream::{Outcome, Plan, Rx, Stream, Tx},
    under_way::Held,
    window::Use,
    wire::{Opening, Seen, Wire},
};

/// From this number on, new streams go to a new connection: HTTP/2 numbers them below 2^31.
const LAST_NUMBER: u64 = 1 << 30;

impl<P: Protocol> Driver<P> {
    /// Looks at all streams that have news. Says whether there were any.
    pub(crate) fn visit_all(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let waiting = mem::take(&mut self.waiting);
        let ready = self.hub.take_ready();
        let moved = !ready.is_empty();
        for stream in waiting.into_iter().chain(ready) {
            self.visit(&stream, cx, now);
        }
        // One that gives credit back can wake another, and so on. Were any fed in between, they would take no credit for
        // all that is held, wait for it in their turn, and keep it going round.
        let mut most = self.wires.len();
        while most > 0 {
            let ready = self.hub.take_ready();
            if ready.is_empty() {
                break;
            }
            most = most.saturating_sub(ready.len());
            for stream in ready {
                self.visit(&stream, cx, now);
            }
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
            Plan::Open(head) => P::open(self, stream, head, cx, now),
            Plan::Accept => P::accept(self, stream, cx),
            Plan::Refuse(refusal) => P::refuse(self, stream, &refusal),
        }
        if let Some(key) = stream.key() {
            self.receive(key, now);
            P::conclude(self, key);
        }
    }

    /// Asks for a stream by a request, or gives that back if it has to wait.
    pub(crate) fn ask(
        &mut self,
        stream: &Arc<Stream>,
        request: Request<()>,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<(), Box<Request<()>>> {
        let (response, tx) = self.request(request, cx)?;
        let key = u64::from(tx.stream_id().as_u32());
        let mut wire = self.wire(stream, Opening::Requested(response), now);
        wire.tx = Some(tx);
        self.insert(key, wire);
        Ok(())
    }

    /// Makes a request, or gives it back if it has to wait.
    pub(crate) fn request(&mut self, request: Request<()>, cx: &mut Context<'_>) -> Result<Sent, Box<Request<()>>> {
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

    pub(crate) fn wait(&mut self, stream: &Arc<Stream>, plan: Plan) {
        stream.lock().plan = plan;
        self.waiting.push_back(Arc::clone(stream));
    }

    /// What the driver keeps of a stream.
    pub(crate) fn wire(&self, stream: &Arc<Stream>, opening: Opening, now: Instant) -> Wire {
        let usage = Use::new(&self.windows, now.into_std());
        Wire::new(Arc::clone(stream), opening, usage, Held::new(self.under_way.count()))
    }

    pub(crate) fn insert(&mut self, key: u64, mut wire: Wire) {
        wire.stream.set_key(key);
        let place = {
            let mut state = wire.stream.lock();
            state.window = self.windows.size();
            state.ticket.as_mut().and_then(|ticket| ticket.place.take())
        };
        wire.place = place.map(|permit| Place::new(&self.hub, permit));
        self.wires.insert(key, wire);
    }

    /// The peer opens a stream.
    pub(crate) fn arrived(&mut self, key: u64, head: StreamHead, opening: Opening, rx: Option<h2::RecvStream>) {
        let stream = Stream::new(&self.hub, self.hub.ticket(None), Plan::Nothing);
        let mut wire = self.wire(&stream, opening, Instant::now());
        if let Some(body) = rx {
            wire.begin_rx(body);
        }
        self.insert(key, wire);
        let inbound = H2Inbound::new(head, Arc::clone(&stream));
        stream.post();
        if self.hub.draining().local {
            let refusal = Refusal::new(
                RefusalKind::DestinationUnavailable,
                "the connection is draining and takes no new streams",
            );
            return Inbound::refuse(Box::new(inbound), refusal);
        }
        if let Err(inbound) = self.hub.arrivals.push(inbound) {
            let refusal = Refusal::new(
                RefusalKind::ConnectionLimitReached,
                "more streams were opened than this end takes at once",
            );
            Inbound::refuse(inbound, refusal);
        }
    }

    /// Answers the request of a stream, if that is what waits for an answer.
    pub(crate) fn respond(&mut self, stream: &Stream, response: Response<()>) {
        let Some(wire) = stream.key().and_then(|key| self.wires.get_mut(&key)) else {
            return;
        };
        if let Opening::Responding(respond) = &mut wire.opening
            && let Ok(tx) = respond.send_response(response, false)
        {
            wire.tx = Some(tx);
            wire.opening = Opening::Done;
        }
        // If it cannot be sent, the stream is over, and the request's half says why.
    }

    /// Takes what has come for a stream, and returns credit for what was read.
    pub(crate) fn receive(&mut self, key: u64, now: Instant) {
        let Some(wire) = self.wires.get_mut(&key) else { return };
        let stream = Arc::clone(&wire.stream);
        match wire.poll_response() {
            Seen::Nothing => {}
            Seen::Reset(code) => return self.gone(key, code),
            Seen::Unprocessed => return self.unprocessed(key),
            Seen::Response(response) => P::answered(self, key, &response, now),
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
            let turn = self.shortest_turn();
            if let Some(wire) = self.wires.get_mut(&key) {
                self.windows
                    .took(&mut wire.usage, taken, now.into_std(), turn, pressure);
            }
        }
    }

    /// HTTP/2 has ended the stream.
    fn gone(&mut self, key: u64, code: StreamCode) {
        let outcome = P::unanswered(self, key, code);
        let Some(wire) = self.wires.remove(&key) else { return };
        let mut state = wire.stream.lock();
        state.resolve(outcome);
        state.end_tx(Tx::Stopped(code));
        let dropped = state.end_rx(Rx::Reset(code));
        drop(state);
        self.hub.account.release(dropped as u64);
        self.given_up |= matches!(wire.opening, Opening::Responding(_));
    }

    /// The peer goes away and has not looked at the request.
    fn unprocessed(&mut self, key: u64) {
        if self.hub.ended().is_some() {
            // It may have been any stream of the connection.
            return;
        }
        let Some(wire) = self.wires.remove(&key) else { return };
        let mut state = wire.stream.lock();
        state.resolve(Outcome::Draining);
        state.end_tx(Tx::Stopped(StreamCode::REFUSED));
        state.end_rx(Rx::Reset(StreamCode::REFUSED));
    }

    /// The peer does not open the stream.
    pub(crate) fn refused(&mut self, key: u64, refusal: Refusal) {
        let Some(wire) = self.wires.get(&key) else { return };
        let mut state = wire.stream.lock();
        state.resolve(Outcome::Refused(refusal));
        state.end_tx(Tx::Stopped(StreamCode::REFUSED));
        let dropped = state.end_rx(Rx::Reset(StreamCode::REFUSED));
        drop(state);
        self.hub.account.release(dropped as u64);
    }
}
