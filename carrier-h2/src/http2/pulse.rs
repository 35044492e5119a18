//! Whether the peer is alive, by HTTP/2's PING.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use h2::{Ping, PingPong};
use tunnel_core::{
    Keepalive,
    proto::mux::{Verdict, Watch},
};

/// Watches the peer. Every byte that comes is a sign of life.
#[derive(Debug)]
pub(crate) struct Pulse {
    watch: Watch,
    pings: Option<PingPong>,
    /// The PING that is on its way: HTTP/2 has one at a time.
    sent: Option<[u8; 8]>,
    received: u64,
}

impl Pulse {
    pub(crate) fn new(keepalive: Keepalive, pings: Option<PingPong>, now: Instant) -> Self {
        Self {
            watch: Watch::new(keepalive, now),
            pings,
            sent: None,
            received: 0,
        }
    }

    /// Looks at the clock and at how many bytes have come.
    pub(crate) fn look(&mut self, cx: &mut Context<'_>, now: Instant, received: u64) -> Verdict {
        if received != self.received {
            self.received = received;
            self.watch.hear(now);
            self.watch.sample(now);
        }
        let Some(pings) = &mut self.pings else {
            return self.watch.look(now);
        };
        while let Poll::Ready(Ok(_)) = pings.poll_pong(cx) {
            if let Some(sent) = self.sent.take() {
                self.watch.pong(now, sent);
            }
        }
        let verdict = self.watch.look(now);
        if self.sent.is_none() && self.watch.wants_ping() {
            self.sent = self.watch.take_ping(now);
            // It fails only when the connection ends, which shows elsewhere.
            let _ = pings.send_ping(Ping::opaque());
        }
        verdict
    }

    /// Whether credit is held back ([`Watch::is_quieting`]).
    pub(crate) fn is_quieting(&self) -> bool {
        self.watch.is_quieting()
    }

    /// Credit that was due is granted.
    pub(crate) fn grant(&mut self, now: Instant) {
        self.watch.grant(now);
    }

    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.watch.next_look()
    }

    pub(crate) fn bound(&self) -> Duration {
        self.watch.bound()
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.watch.round_trip()
    }

    /// How long the path is, without the queues in it.
    pub(crate) fn shortest_round_trip(&self) -> Option<Duration> {
        self.watch.shortest_round_trip()
    }

    /// What windows of streams are fitted to.
    pub(crate) fn shortest_turn(&self) -> Option<Duration> {
        self.watch.shortest_turn()
    }
}
