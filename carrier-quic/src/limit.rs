//! The limit on the streams that the peer may have open.
//!
//! quinn's own limit is not exact: it announces places that have become free only when an eighth of all has, so with
//! a limit of 16 two free places could stay out of reach for ever. And it makes room for all streams at once, which
//! for 16,384 is more than a megabyte for each connection. So quinn is given a larger limit, which grows with use, and
//! the exact one is kept here: a stream beyond it is not looked at, so that its `open` waits, until an earlier one
//! has ended.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{INITIAL_STREAM_ROOM, QuicConfig, var_int};

#[derive(Debug)]
pub(crate) struct StreamLimit {
    places: Arc<Semaphore>,
    max_streams: usize,
    /// quinn's limit at present.
    room: u64,
    /// The largest that it is given.
    max_room: u64,
}

impl StreamLimit {
    pub(crate) fn new(config: &QuicConfig) -> Self {
        let max_streams = usize::try_from(config.max_streams).unwrap_or(Semaphore::MAX_PERMITS);
        let max_room = config.stream_room();
        Self {
            places: Arc::new(Semaphore::new(max_streams)),
            max_streams,
            room: max_room.min(INITIAL_STREAM_ROOM),
            max_room,
        }
    }

    /// Waits for a place. It is free again when the permit is dropped. `None` cannot be: nobody closes the semaphore.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Gives quinn a larger limit when half of the present one is in use.
    pub(crate) fn grow(&mut self, quic: &quinn::Connection) {
        let used = (self.max_streams - self.places.available_permits()) as u64;
        if self.room < self.max_room && used >= self.room / 2 {
            self.room = (self.room * 2).min(self.max_room);
            quic.set_max_concurrent_bi_streams(var_int(self.room));
        }
    }
}
