//! Noticing that nothing moves.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::End;
use crate::time::LONGEST;

/// The time limits of a relay.
///
/// Its timer is not touched when bytes move: it looks back when it fires.
#[derive(Debug)]
pub(super) struct Limits {
    idle: Option<Duration>,
    half_close: Option<Duration>,
    /// When something last happened.
    last: Instant,
    /// The limit that the timer is set for.
    armed: Option<Duration>,
    sleep: Pin<Box<Sleep>>,
}

impl Limits {
    /// Counts from now.
    pub(super) fn new(idle: Option<Duration>, half_close: Option<Duration>) -> Self {
        let last = Instant::now();
        Self {
            idle: idle.map(|limit| limit.min(LONGEST)),
            half_close: half_close.map(|limit| limit.min(LONGEST)),
            last,
            armed: None,
            sleep: Box::pin(sleep_until(last)),
        }
    }

    /// Ready with the limit that has passed. `happened` tells whether anything has since the last call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, happened: bool, half_closed: bool) -> Poll<End> {
        if happened {
            self.last = Instant::now();
        }
        let idle = self.idle.map(|limit| (limit, End::Idle(limit)));
        let half_close = self.half_close.filter(|_| half_closed);
        let half_close = half_close.map(|limit| (limit, End::HalfClosed(limit)));
        let Some((limit, end)) = idle.into_iter().chain(half_close).min_by_key(|(limit, _)| *limit) else {
            return Poll::Pending;
        };
        let deadline = self.last + limit;
        if self.armed != Some(limit) {
            self.armed = Some(limit);
            self.sleep.as_mut().reset(deadline);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(end);
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
