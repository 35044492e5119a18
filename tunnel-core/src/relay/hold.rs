//! Letting the socket speak first.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::time::after;

/// Until when the socket gets nothing.
///
/// There is a timer only while something is held back: most sockets speak first, and a timer that is the next to fire costs
/// a system call.
#[derive(Debug)]
pub(super) struct Hold {
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Hold {
    /// Counts from now.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            until: after(Instant::now(), limit),
            timer: None,
        }
    }

    /// Something is there to go on: ready when it may.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.until <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.until)));
        timer.as_mut().poll(cx)
    }
}
