//! What a connection does when the process's budget is short.
//!
//! The connection's window is larger by what nobody reads (`under_way`), so that a few stalled readers cannot stop
//! everybody. The budget is what bounds memory: when it is short, the streams whose readers have been away longest are
//! stopped, which gives their credit back.

use std::{sync::Arc, time::Duration};

use super::{Driver, protocol::Protocol, stream::Stream};
use tokio::time::Instant;

/// For how long a reader must have been away before its stream is given up for others.
const PATIENCE: Duration = Duration::from_secs(1);

impl<P: Protocol> Driver<P> {
    /// Takes room for bytes that have come. Where there is none, this connection's longest-stalled streams make it, and
    /// this one if that is not enough. Says whether the bytes may stay.
    pub(crate) fn charge(&mut self, stream: &Arc<Stream>, bytes: usize) -> bool {
        while self.hub.account.charge(bytes as u64).is_err() {
            match self.longest_stalled() {
                Some((_, other)) if !Arc::ptr_eq(&other, stream) => self.take_back(&other),
                _ => return false,
            }
        }
        true
    }

    /// Gives memory back that the budget has asked for; gives when there may be more.
    pub(crate) fn relieve(&mut self, now: Instant) -> Option<Instant> {
        let call = self.hub.account.take_call();
        // Once it was asked, it goes on until there is enough.
        self.relieving = (self.relieving || call.is_any()) && self.hub.account.is_high();
        let mut again = None;
        while self.relieving && self.hub.account.is_high() {
            let Some((touched, stream)) = self.longest_stalled() else {
                break;
            };
            if now.saturating_duration_since(touched) < PATIENCE {
                again = Some(touched + PATIENCE);
                break;
            }
            self.take_back(&stream);
        }
        if call.is_alone() && self.hub.account.is_high() {
            self.hub.account.pass_on();
        }
        again
    }

    /// Looks at every stream, which only a short budget is worth.
    fn longest_stalled(&self) -> Option<(Instant, Arc<Stream>)> {
        let stalled = self.wires.values().filter_map(|wire| {
            let state = wire.stream.lock();
            (!state.inbox.is_empty()).then_some((state.touched, &wire.stream))
        });
        let (touched, stream) = stalled.min_by_key(|(touched, _)| *touched)?;
        Some((touched, Arc::clone(stream)))
    }

    fn take_back(&mut self, stream: &Arc<Stream>) {
        tracing::warn!(
            stream = stream.key(),
            "the memory budget is used up; stopping the stream that stalled longest"
        );
        let dropped = stream.lock().take_back();
        self.hub.account.release(dropped as u64);
        stream.post();
    }
}
