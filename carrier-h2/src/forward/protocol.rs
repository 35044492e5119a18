//! What the driver of a connection does about CONNECT.

use std::{collections::HashMap, io, mem, ops::ControlFlow, sync::Arc, task::Context, time::Duration};

use h2::Reason;
use http::{HeaderName, HeaderValue, response};
use tokio::{sync::Semaphore, time::Instant};
use tunnel_core::{CloseCode, ConnectionError, HostPort, Refusal, RefusalKind, StreamCode, StreamHead, Text};

use super::{
    ForwardConfig, request,
    response::{self as answer, Refusing},
};
use crate::http2::{
    Driver, Incoming, Opening, Outcome, Plan, Protocol, Rx, Stream, Tx, close_code, close_reason, connection_error,
    plain_reason,
};

/// How long a refusal waits for its body.
const BODY: Duration = Duration::from_secs(1);

/// What a driver has for CONNECT.
#[derive(Debug)]
pub(super) struct Forward {
    /// The proxy, or what this end calls itself as one.
    name: String,
    tells_client: bool,
    fields: Vec<(HeaderName, HeaderValue)>,
    places: Places,
    /// Refusals whose body is awaited, until when.
    refusing: HashMap<u64, (Refusing, Instant)>,
    /// Streams whose sender is done and whose receiver is not wanted.
    parting: Vec<(u64, StreamCode)>,
    heard_goaway: bool,
    said_goaway: bool,
    farewell: Farewell,
}

/// How far the end is that this side wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    None,
    /// The streams were reset, which HTTP/2 has to say first.
    Resetting(Reason),
    Said,
}

/// Places for streams under a limit that the peer may change.
#[derive(Debug, Default)]
struct Places {
    limit: usize,
    /// How many too many are taken.
    owed: usize,
}

impl Places {
    fn set(&mut self, places: &Semaphore, limit: usize) {
        // Half of what a semaphore holds, so that it never overflows.
        let limit = limit.min(Semaphore::MAX_PERMITS / 2);
        if limit > self.limit {
            let more = limit - self.limit;
            let paid = more.min(self.owed);
            self.owed -= paid;
            places.add_permits(more - paid);
        } else {
            self.owed += self.limit - limit;
        }
        self.limit = limit;
        if self.owed > 0 {
            self.owed -= places.forget_permits(self.owed);
        }
    }
}

impl Forward {
    /// For the end that serves streams.
    pub(super) fn serving(config: &ForwardConfig) -> Self {
        Self::new(config.name.clone(), config)
    }

    /// For the end that opens streams, at a proxy.
    pub(super) fn opening(proxy: &HostPort, config: &ForwardConfig) -> Self {
        Self::new(proxy.to_string(), config)
    }

    fn new(name: String, config: &ForwardConfig) -> Self {
        Self {
            name,
            tells_client: config.tells_client,
            fields: config.fields.clone(),
            places: Places::default(),
            refusing: HashMap::new(),
            parting: Vec::new(),
            heard_goaway: false,
            said_goaway: false,
            farewell: Farewell::None,
        }
    }
}

impl Driver<Forward> {
    fn is_opener(&self) -> bool {
        self.session.is_client()
    }

    /// Takes what has come of the body of a refusal. Says whether more is to come.
    fn awaits_body(&mut self, key: u64, now: Option<Instant>) -> bool {
        let Some((_, until)) = self.protocol.refusing.get(&key) else {
            return false;
        };
        let is_late = now.is_some_and(|now| now >= *until);
        let until = *until;
        let Some(refusing) = self.take_body(key) else {
            return false;
        };
        let Some(wire) = self.wires.get(&key) else { return false };
        let (tx, rx) = {
            let state = wire.stream.lock();
            (state.tx, state.rx)
        };
        if tx != Tx::Open {
            // Nobody waits for it any more.
            return false;
        }
        if rx == Rx::Open && !refusing.is_whole() && !is_late {
            self.protocol.refusing.insert(key, (refusing, until));
            return true;
        }
        self.refused(key, refusing.into_refusal());
        false
    }

    /// A refusal with what has come of its body, if the stream has one.
    fn take_body(&mut self, key: u64) -> Option<Refusing> {
        let (mut refusing, _) = self.protocol.refusing.remove(&key)?;
        let wire = self.wires.get(&key)?;
        let mut state = wire.stream.lock();
        let mut taken = 0;
        while let Some(bytes) = state.inbox.pop(usize::MAX) {
            taken += bytes.len();
            refusing.push(&bytes);
        }
        state.taken += taken;
        drop(state);
        self.hub.account.release(taken as u64);
        Some(refusing)
    }

    /// Ends a stream in both directions.
    fn reset(&mut self, key: u64, code: StreamCode) {
        let Some(mut wire) = self.wires.remove(&key) else {
            return;
        };
        let mut state = wire.stream.lock();
        state.end_tx(Tx::Reset(code));
        let dropped = state.end_rx(Rx::Stopped(code));
        drop(state);
        self.hub.account.release(dropped as u64);
        self.given_up |= matches!(wire.opening, Opening::Responding(_));
        wire.reset(plain_reason(code));
    }
}

impl Protocol for Forward {
    fn begin(_driver: &mut Driver<Self>, _cx: &mut Context<'_>) {}

    fn arrive(driver: &mut Driver<Self>, (request, mut respond): Incoming) {
        if driver.hub.draining().local {
            // It was sent before the GOAWAY was seen, and may be sent elsewhere.
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let (head, body) = request.into_parts();
        match request::read(&head, driver.protocol.tells_client) {
            Ok(head) => {
                let key = u64::from(respond.stream_id().as_u32());
                driver.arrived(key, head, Opening::Responding(Box::new(respond)), Some(body));
            }
            Err(unfit) => {
                tracing::debug!(status = unfit.status.as_u16(), text = unfit.text, "not a stream");
                answer::turn_away(respond, &driver.protocol.name, unfit.status, &unfit.text);
            }
        }
    }

    fn listen(driver: &mut Driver<Self>, _cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        if !driver.protocol.heard_goaway
            && let Some(goaway) = driver.sight.heard.goaway()
        {
            tracing::debug!(reason = ?goaway.reason, words = %goaway.words, "the peer says GOAWAY");
            driver.protocol.heard_goaway = true;
            driver.hub.drain(|draining| draining.remote = true);
            moved = true;
        }
        if driver.is_opener() {
            let limit = driver.session.most_requests();
            driver.protocol.places.set(&driver.hub.places, limit);
        }
        let late = driver.protocol.refusing.iter();
        let late: Vec<_> = late
            .filter(|(_, (_, until))| *until <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            driver.awaits_body(key, Some(now));
            Self::conclude(driver, key);
            moved = true;
        }
        moved
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
        if driver.hub.draining().any() {
            return stream.lock().resolve(Outcome::Draining);
        }
        let Forward {
            fields, tells_client, ..
        } = &driver.protocol;
        let request = match request::write(&head, fields, *tells_client) {
            Ok(request) => request,
            Err(refusal) => return stream.lock().resolve(Outcome::Refused(refusal)),
        };
        if !driver.waiting.is_empty() || driver.ask(stream, request, cx, now).is_err() {
            driver.wait(stream, Plan::Open(head));
        }
    }

    fn accept(driver: &mut Driver<Self>, stream: &Arc<Stream>, _cx: &mut Context<'_>) {
        driver.respond(stream, answer::accepted());
    }

    fn refuse(driver: &mut Driver<Self>, stream: &Stream, refusal: &Refusal) {
        let Some(wire) = stream.key().and_then(|key| driver.wires.remove(&key)) else {
            return;
        };
        if let Opening::Responding(respond) = wire.opening {
            answer::refuse(*respond, &driver.protocol.name, refusal);
        }
    }

    fn answered(driver: &mut Driver<Self>, key: u64, response: &response::Parts, now: Instant) {
        let Some(wire) = driver.wires.get(&key) else { return };
        if response.status.is_success() {
            return wire.stream.lock().resolve(Outcome::Accepted);
        }
        let refusing = Refusing::new(&driver.protocol.name, response.status, &response.headers);
        driver.protocol.refusing.insert(key, (refusing, now + BODY));
    }

    fn unanswered(driver: &mut Driver<Self>, key: u64, code: StreamCode) -> Outcome {
        if let Some(refusing) = driver.take_body(key) {
            // A server resets a request that it has answered and does not read (RFC 9113 §8.1).
            return Outcome::Refused(refusing.into_refusal());
        }
        if code != StreamCode::REFUSED {
            return Outcome::Ended(code);
        }
        let text = format!(
            "{} refused the stream before it looked at it (REFUSED_STREAM)",
            driver.protocol.name
        );
        Outcome::Refused(Refusal::new(RefusalKind::ConnectionLimitReached, text))
    }

    fn conclude(driver: &mut Driver<Self>, key: u64) {
        if driver.awaits_body(key, None) {
            return;
        }
        let Some(wire) = driver.wires.get_mut(&key) else { return };
        let (tx, rx, has_to_send) = {
            let state = wire.stream.lock();
            (state.tx, state.rx, wire.has_to_send(&state))
        };
        match (tx, rx) {
            (Tx::Reset(code) | Tx::Stopped(code), _) | (Tx::Open, Rx::Stopped(code) | Rx::Reset(code)) => {
                return driver.reset(key, code);
            }
            (Tx::Finished, Rx::Stopped(code) | Rx::Reset(code)) => {
                // What comes until then is discarded, and its credit returned.
                wire.end_rx();
                if wire.finished && !wire.told_stop {
                    wire.told_stop = true;
                    driver.protocol.parting.push((key, code));
                }
            }
            (Tx::Finished, Rx::Ended) if wire.finished => {
                driver.wires.remove(&key);
                return;
            }
            _ => {}
        }
        if has_to_send {
            driver.take_turn(key);
        }
    }

    fn settle(driver: &mut Driver<Self>, _cx: &mut Context<'_>) -> bool {
        let parting = mem::take(&mut driver.protocol.parting);
        let mut moved = !parting.is_empty();
        for (key, code) in parting {
            driver.reset(key, code);
        }
        let draining = driver.hub.draining();
        if driver.is_opener() {
            if draining.any() && driver.is_idle() && driver.hub.ended().is_none() {
                driver.hub.close(CloseCode::DRAINED, "");
            }
        } else if draining.local && !driver.protocol.said_goaway {
            driver.protocol.said_goaway = true;
            driver.session.finish();
            moved = true;
        }
        moved
    }

    fn feed(_driver: &mut Driver<Self>, _cx: &mut Context<'_>) -> bool {
        false
    }

    fn closed_by_peer(_driver: &mut Driver<Self>) -> Option<ConnectionError> {
        None
    }

    fn close(driver: &mut Driver<Self>, _cx: &mut Context<'_>, code: CloseCode, _text: Text) {
        for wire in driver.wires.values_mut() {
            wire.reset(Reason::CANCEL);
        }
        driver.protocol.farewell = Farewell::Resetting(close_reason(code));
    }

    fn leave(driver: &mut Driver<Self>, _cx: &mut Context<'_>) -> ControlFlow<(), bool> {
        // HTTP/2 was polled since the streams were reset.
        let Farewell::Resetting(reason) = driver.protocol.farewell else {
            return ControlFlow::Continue(false);
        };
        driver.wires.clear();
        if driver.is_opener() {
            // It says GOAWAY when the streams are over, which they are.
            driver.session.finish();
        } else if driver.sight.is_stuck() {
            return ControlFlow::Continue(false);
        } else {
            driver.session.abort(reason);
        }
        driver.protocol.farewell = Farewell::Said;
        ControlFlow::Continue(true)
    }

    fn ended(driver: &mut Driver<Self>, ended: Result<(), h2::Error>) -> ConnectionError {
        // What has come at last may have ended streams well, or said that they were not looked at.
        let now = Instant::now();
        for key in driver.wires.keys().copied().collect::<Vec<_>>() {
            driver.receive(key, now);
            Self::conclude(driver, key);
        }
        let (is_idle, is_clean) = (driver.wires.is_empty(), ended.is_ok());
        let transport = match ended {
            Ok(()) => ConnectionError::transport(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Err(error) if error.is_io() => connection_error(error),
            Err(error) => return connection_error(error),
        };
        // The pipe has ended, which somebody may have announced.
        match driver.sight.heard.goaway() {
            Some(goaway) if is_idle || is_clean => match close_code(Some(goaway.reason)) {
                CloseCode::DONE if is_idle => ConnectionError::remote(CloseCode::DRAINED, goaway.words),
                code => ConnectionError::remote(code, goaway.words),
            },
            None if is_idle && driver.hub.draining().local => ConnectionError::local(CloseCode::DRAINED, ""),
            _ => transport,
        }
    }

    fn next_look(&self) -> Option<Instant> {
        self.refusing.values().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the limit changes while places are taken and given back, in the end as many are free as it says.
        #[test]
        fn places_follow_the_limit(steps in prop::collection::vec((0..20usize, 0..4usize, 0..4usize), 1..40)) {
            let semaphore = Arc::new(Semaphore::new(0));
            let mut places = Places::default();
            let mut taken = Vec::new();
            for (limit, take, give) in steps {
                places.set(&semaphore, limit);
                for _ in 0..take {
                    taken.extend(Arc::clone(&semaphore).try_acquire_owned().ok());
                }
                taken.drain(..give.min(taken.len()));
                prop_assert!(taken.len() + semaphore.available_permits() == places.limit + places.owed);
            }
            taken.clear();
            let limit = places.limit;
            places.set(&semaphore, limit);
            prop_assert_eq!(semaphore.available_permits(), limit);
        }
    }
}
