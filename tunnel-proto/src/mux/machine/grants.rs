//! What this end grants its peer: credit on streams, and on the whole.

use std::time::Instant;

use super::Mux;
use crate::mux::{
    StreamId, Watch,
    budget::Pressure,
    stream::{Opening, Stream},
};

impl Mux {
    /// A stream with the window that memory allows; the peer knows of the smallest.
    pub(super) fn new_stream(&self, opening: Opening, allowed: u64, now: Instant) -> Box<Stream> {
        let windows = &self.config.windows;
        let window = match self.account.pressure() {
            Pressure::Ample => windows.start,
            Pressure::Tight => windows.floor,
        };
        let mut stream = Stream::new(opening, windows.floor, window, allowed, now);
        stream.owed.max_data = window > windows.floor;
        Box::new(stream)
    }

    /// Announces credit that the reader has made room for, when there is enough to be worth a frame: half of the window is
    /// worth a message, a quarter is a place in the next one that has credit of the connection.
    pub(super) fn grant(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.is_due(2) {
            self.watch.sample(now);
            self.announce(now, id, 2);
        } else if stream.is_due(4) && !stream.rides {
            stream.rides = true;
            self.riders.push(id);
        }
    }

    /// Lets the credit of streams that is worth a place go with that of the connection.
    pub(super) fn take_riders(&mut self, now: Instant) {
        let mut riders = std::mem::take(&mut self.riders);
        for id in riders.drain(..) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.rides = false;
                self.announce(now, id, 4);
            }
        }
        self.riders = riders;
    }

    /// Announces a stream's credit, unless less than such a part of its window is due.
    fn announce(&mut self, now: Instant, id: StreamId, part: u64) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_due(part)) else {
            return;
        };
        let recv = &mut stream.recv;
        recv.window.fit(
            now,
            recv.credit.returned(),
            self.watch.shortest_turn(),
            self.account.pressure(),
            &self.config.windows,
        );
        // Of a window that has shrunk, less is due.
        if stream.is_due(part) {
            stream.owed.max_data = true;
            self.owe(id);
        }
    }

    /// Whether the peer should be told of credit of the connection. Before a measurement of the round trip, only when
    /// the peer has used up what it knows of but for a little, so that little is on its way.
    pub(super) fn max_data_due(&self) -> bool {
        let window = self.recv_window.size();
        if self.watch.is_quieting() {
            self.recv_credit.outstanding() <= window / Watch::LITTLE
        } else {
            self.recv_credit.due(window) >= (window / 4).max(1)
        }
    }

    /// Whether it is worth its bytes beside frames that are on their way anyway: that saves the message that would be due
    /// soon.
    pub(super) fn max_data_fits(&self) -> bool {
        let window = self.recv_window.size();
        !self.watch.is_quieting() && self.recv_credit.due(window) >= (window / 8).max(1)
    }

    /// Announces credit of the connection; gives the new limit.
    pub(super) fn grant_connection(&mut self, now: Instant) -> u64 {
        self.watch.grant(now);
        self.fit_connection(now);
        self.recv_credit.announce(self.recv_window.size())
    }

    /// Fits the window of the connection to the path: what is under way beyond that stands in the buffers of this end's
    /// kernel while it is busy, and whatever is sent next, however urgent, waits behind it.
    fn fit_connection(&mut self, now: Instant) {
        self.recv_window.fit(
            now,
            self.recv_credit.returned(),
            self.watch.shortest_round_trip(),
            // It takes no memory.
            Pressure::Ample,
            &self.config.connection_windows(),
        );
    }

    /// Whether the peer should be told of places that have become free: when it has used half of those it knows of,
    /// each; before that, a quarter of the whole.
    pub(super) fn max_streams_due(&self) -> bool {
        let most = u64::from(self.config.max_streams);
        let due = most + self.accepts.gone - self.accepts.granted;
        let left = self.accepts.granted - self.accepts.count;
        due > 0 && (left <= most / 2 || due >= most / 4)
    }
}
