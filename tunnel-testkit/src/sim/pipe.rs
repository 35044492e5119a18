//! A pipe: two lines, and an end at each side.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    task::coop::poll_proceed,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    line::{Line, Outcome},
    profile::Profile,
};
use crate::Side;

/// What both ends look at.
#[derive(Debug)]
pub(super) struct Pipe {
    lines: Mutex<Lines>,
    /// Told when time stands still, goes on, or has ended.
    changed: Notify,
}

#[derive(Debug)]
struct Lines {
    /// From the agent, from the server.
    from: [Line; 2],
    readers: [Option<Waker>; 2],
    writers: [Option<Waker>; 2],
}

/// The line of a direction, named by the end that writes.
pub(super) fn index(from: Side) -> usize {
    match from {
        Side::Agent => 0,
        Side::Server => 1,
    }
}

impl Lines {
    /// Lets both ends look again.
    fn wake_all(&mut self) {
        let wakers = self.readers.iter_mut().chain(&mut self.writers);
        wakers.filter_map(Option::take).for_each(Waker::wake);
    }

    fn wake_reader(&mut self, side: Side) {
        self.readers[index(side)].take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self, side: Side) {
        self.writers[index(side)].take().into_iter().for_each(Waker::wake);
    }
}

impl Pipe {
    /// Makes one; `number` makes its jitter its own.
    pub(super) fn new(profiles: &[Profile; 2], number: u64) -> Arc<Self> {
        let now = Instant::now();
        let line = |side| Line::new(profiles[index(side)].clone(), 2 * number + index(side) as u64, now);
        Arc::new(Self {
            lines: Mutex::new(Lines {
                from: Side::BOTH.map(line),
                readers: [None, None],
                writers: [None, None],
            }),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it: both ends see a reset at once, behind what had arrived.
    pub(super) fn cut(&self) {
        let now = Instant::now();
        let mut lines = self.lock();
        lines.from.iter_mut().for_each(|line| line.cut(now));
        lines.wake_all();
        drop(lines);
        self.changed.notify_waiters();
    }

    /// Stops time in the direction from `side`.
    pub(super) fn freeze(&self, side: Side) {
        self.lock().from[index(side)].freeze(Instant::now());
        self.changed.notify_waiters();
    }

    /// Lets time go on in the direction from `side`.
    pub(super) fn thaw(&self, side: Side) {
        let mut lines = self.lock();
        lines.from[index(side)].thaw(Instant::now());
        lines.wake_all();
        drop(lines);
        self.changed.notify_waiters();
    }

    /// How many bytes `side` has put on the wire.
    pub(super) fn sent(&self, side: Side) -> u64 {
        self.lock().from[index(side)].sent()
    }

    /// Waits for as long as something without bytes travels from `side`; false if the pipe was cut meanwhile.
    pub(super) async fn travel(&self, side: Side) -> bool {
        let arrival = self.lock().from[index(side)].arrival(Instant::now());
        loop {
            let changed = self.changed.notified();
            let (is_cut, left) = {
                let (lines, now) = (self.lock(), Instant::now());
                let line = &lines.from[index(side)];
                (line.is_reset(now), line.until(now, arrival))
            };
            match left {
                _ if is_cut => return false,
                Outcome::Wait(Some(at)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = changed => {}
                },
                Outcome::Wait(None) => changed.await,
                _ => return true,
            }
        }
    }

    /// The end at `side`. There is one for each.
    pub(super) fn end(self: &Arc<Self>, side: Side) -> SimIo {
        let alarm = || Box::pin(sleep_until(Instant::now()));
        SimIo {
            pipe: Arc::clone(self),
            side,
            read_alarm: alarm(),
            write_alarm: alarm(),
            is_shut: false,
        }
    }
}

/// One end of a simulated pipe: what a TCP socket is in a real network.
///
/// Shutting it down sends the clean end behind everything written; the other direction goes on. Dropping it does the
/// same, without a flush, unless there is something to read that nobody will: then, or when more arrives later, the
/// peer sees a reset, as TCP has it (RFC 1122 §4.2.2.13).
pub struct SimIo {
    pipe: Arc<Pipe>,
    side: Side,
    read_alarm: Pin<Box<Sleep>>,
    write_alarm: Pin<Box<Sleep>>,
    is_shut: bool,
}

impl fmt::Debug for SimIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimIo")
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Ready when it is worth looking again.
fn poll_alarm(alarm: &mut Pin<Box<Sleep>>, at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
    let Some(at) = at else {
        return Poll::Pending;
    };
    alarm.as_mut().reset(at);
    alarm.as_mut().poll(cx)
}

impl AsyncRead for SimIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let budget = ready!(poll_proceed(cx));
        loop {
            let mut lines = this.pipe.lock();
            let line = &mut lines.from[index(this.side.peer())];
            match line.read(Instant::now(), buf.initialize_unfilled()) {
                Outcome::Moved(count) => {
                    lines.wake_writer(this.side.peer());
                    drop(lines);
                    buf.advance(count);
                    budget.made_progress();
                    return Poll::Ready(Ok(()));
                }
                Outcome::End => return Poll::Ready(Ok(())),
                Outcome::Reset => return Poll::Ready(Err(reset())),
                Outcome::Wait(at) => {
                    lines.readers[index(this.side)] = Some(cx.waker().clone());
                    drop(lines);
                    ready!(poll_alarm(&mut this.read_alarm, at, cx));
                }
            }
        }
    }
}

impl AsyncWrite for SimIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let budget = ready!(poll_proceed(cx));
        loop {
            let now = Instant::now();
            let mut guard = this.pipe.lock();
            let lines = &mut *guard;
            if lines.from[index(this.side.peer())].is_reset(now) {
                return Poll::Ready(Err(reset()));
            }
            let line = &mut lines.from[index(this.side)];
            match line.write(now, data) {
                Outcome::Moved(count) => {
                    if let Some(delay) = line.arrives_unwanted(now) {
                        lines.from[index(this.side.peer())].reset_after(now, delay);
                        lines.wake_reader(this.side);
                    }
                    lines.wake_reader(this.side.peer());
                    budget.made_progress();
                    return Poll::Ready(Ok(count));
                }
                Outcome::Wait(at) => {
                    lines.writers[index(this.side)] = Some(cx.waker().clone());
                    drop(guard);
                    ready!(poll_alarm(&mut this.write_alarm, at, cx));
                }
                Outcome::End | Outcome::Reset => return Poll::Ready(Err(reset())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let now = Instant::now();
            let mut lines = this.pipe.lock();
            if lines.from[index(this.side.peer())].is_reset(now) {
                return Poll::Ready(Err(reset()));
            }
            let line = &mut lines.from[index(this.side)];
            let sent = line.sent();
            match line.flush(now) {
                None => {
                    // Ends that flush whenever they are woken would wake each other for ever.
                    if line.sent() > sent {
                        lines.wake_reader(this.side.peer());
                    }
                    return Poll::Ready(Ok(()));
                }
                at => {
                    lines.writers[index(this.side)] = Some(cx.waker().clone());
                    drop(lines);
                    ready!(poll_alarm(&mut this.write_alarm, at, cx));
                }
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(self.as_mut().poll_flush(cx))?;
            let this = self.get_mut();
            this.is_shut = true;
            let mut lines = this.pipe.lock();
            lines.from[index(this.side)].finish(Instant::now());
            lines.wake_reader(this.side.peer());
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimIo {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut lines = self.pipe.lock();
        let unwanted = lines.from[index(self.side.peer())].close_reader(now);
        let line = &mut lines.from[index(self.side)];
        line.abandon(now);
        if let Some(delay) = unwanted {
            line.reset_after(now, delay);
        }
        lines.wake_all();
    }
}
