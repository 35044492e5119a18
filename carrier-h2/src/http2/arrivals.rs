//! Streams that the peer has opened and that nobody has looked at.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::inbound::H2Inbound;

/// Streams that the peer has opened, in order, and the limit on those at work.
///
/// The opener keeps the limit as well as it can; but it may hold a stream for over that is still at work here. So one
/// is looked at only when there is a place for it, which it keeps until this end has let go of it: a peer that opens
/// streams and cancels them as fast as it can has no more than the limit at work.
#[derive(Debug)]
pub(crate) struct Arrivals {
    queue: Mutex<VecDeque<H2Inbound>>,
    arrived: Notify,
    places: Arc<Semaphore>,
    limit: usize,
}

impl Arrivals {
    pub(crate) fn new(limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            queue: Mutex::default(),
            arrived: Notify::new(),
            places: Arc::new(Semaphore::new(limit)),
            limit,
        }
    }

    /// Queues a stream, unless as many wait as may be open.
    pub(crate) fn push(&self, inbound: H2Inbound) -> Result<(), Box<H2Inbound>> {
        let mut queue = self.queue();
        if queue.len() >= self.limit {
            return Err(Box::new(inbound));
        }
        queue.push_back(inbound);
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next one that was not given up; for ever if there is none.
    ///
    /// # Cancel safety
    ///
    /// None is lost when the future is dropped.
    pub(crate) async fn next(&self) -> (H2Inbound, Option<OwnedSemaphorePermit>) {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            let arrived = self.arrived.notified();
            if let Some(inbound) = self.pop() {
                return (inbound, place);
            }
            arrived.await;
        }
    }

    fn pop(&self) -> Option<H2Inbound> {
        self.queue().pop_front()
    }

    /// Drops those that the peer has given up before anybody looked.
    pub(crate) fn sweep(&self) {
        let given_up: VecDeque<_> = {
            let mut queue = self.queue();
            let (given_up, waiting) = queue.drain(..).partition(H2Inbound::is_given_up);
            *queue = waiting;
            given_up
        };
        drop(given_up);
    }

    /// Drops all: the connection has ended.
    pub(crate) fn close(&self) {
        let queue = std::mem::take(&mut *self.queue());
        drop(queue);
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<H2Inbound>> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
