//! Bytes that can be checked, and ways to move them.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, LazyLock},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tunnel_core::{Connection, Duplex, RecvError, RecvStream, SendStream};

use super::seen::{OrSeen, Seen, Verdict, ensure};

/// The most that is sent or received at once.
pub(super) const CHUNK: usize = 16 * 1024;

/// After how many bytes the pattern repeats: a prime, so that no buffer or window divides it.
const PERIOD: usize = 65_521;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(16);
    std::iter::repeat_with(|| random.u8(..)).take(PERIOD).collect()
});

/// At most `max` bytes of the endless pattern from `offset` on; fewer where it repeats.
pub(super) fn pattern(offset: usize, max: usize) -> Bytes {
    let start = offset % PERIOD;
    PATTERN.slice(start..PERIOD.min(start.saturating_add(max)))
}

/// Sends the first `count` bytes of the pattern, in chunks of at most `chunk()` bytes.
pub(super) async fn send_pattern(tx: &mut dyn SendStream, count: usize, mut chunk: impl FnMut() -> usize) -> Verdict {
    let mut offset = 0;
    while offset < count {
        let mut data = pattern(offset, chunk().min(count - offset));
        while !data.is_empty() {
            let before = data.len();
            let sent = poll_fn(|cx| tx.poll_send(cx, &mut data)).await;
            let sent = sent.or_seen(format_args!("sending at byte {offset} of {count}"))?;
            let taken = before - data.len();
            ensure!(
                sent == taken && sent > 0,
                "poll_send said that it took {sent} bytes and took {taken} of {before}"
            );
            offset += sent;
        }
    }
    Ok(())
}

/// Receives bytes `from..to` of the pattern, at most `max()` at once.
pub(super) async fn recv_pattern(
    rx: &mut dyn RecvStream,
    from: usize,
    to: usize,
    mut max: impl FnMut() -> usize,
) -> Verdict {
    let mut offset = from;
    while offset < to {
        let max = max().min(to - offset);
        let received = rx.recv(max).await;
        let Some(mut bytes) = received.or_seen(format_args!("receiving byte {offset} of {to}"))? else {
            return Err(Seen(format!("a clean end after {offset} of {to} bytes")));
        };
        ensure!(
            (1..=max).contains(&bytes.len()),
            "poll_recv gave {} bytes when 1 to {max} were asked for",
            bytes.len()
        );
        while !bytes.is_empty() {
            let expected = pattern(offset, bytes.len());
            let got = bytes.split_to(expected.len());
            ensure!(got == expected, "wrong bytes within {offset}..{}", offset + got.len());
            offset += got.len();
        }
    }
    Ok(())
}

/// Receives until the end, whatever it is; gives the number of bytes if it was a clean one.
pub(super) async fn read_out(rx: &mut dyn RecvStream) -> Result<usize, RecvError> {
    let mut received = 0;
    while let Some(bytes) = rx.recv(CHUNK).await? {
        received += bytes.len();
    }
    Ok(received)
}

/// Expects the clean end next.
pub(super) async fn expect_end(rx: &mut dyn RecvStream) -> Verdict {
    match rx.recv(CHUNK).await.or_seen("receiving the clean end")? {
        None => Ok(()),
        Some(bytes) => Err(Seen(format!("{} bytes instead of the clean end", bytes.len()))),
    }
}

/// Expects these bytes and then the clean end.
pub(super) async fn expect_all(stream: &mut Duplex, expected: &[u8]) -> Verdict {
    let mut received = Vec::new();
    while let Some(bytes) = stream.rx.recv(CHUNK).await.or_seen("receiving")? {
        received.extend_from_slice(&bytes);
        ensure!(received.len() <= expected.len(), "more bytes than were sent");
    }
    ensure!(
        received == expected,
        "a clean end after {} of {} bytes",
        received.len(),
        expected.len()
    );
    Ok(())
}

/// Sends the pattern from `offset` on until nothing more is taken for `patience` or `cap` bytes were; gives the
/// number of bytes.
pub(super) async fn fill(
    tx: &mut dyn SendStream,
    offset: usize,
    cap: usize,
    chunk: usize,
    patience: Duration,
) -> Verdict<usize> {
    let mut sent = 0;
    while sent < cap {
        let mut data = pattern(offset + sent, chunk.min(cap - sent));
        match timeout(patience, poll_fn(|cx| tx.poll_send(cx, &mut data))).await {
            Ok(taken) => sent += taken.or_seen("filling a stream")?,
            Err(_full) => break,
        }
    }
    Ok(sent)
}

/// Waits until there is room; gives for how many bytes.
pub(super) async fn room(tx: &mut dyn SendStream) -> Verdict<usize> {
    poll_fn(|cx| tx.poll_room(cx)).await.or_seen("asking for room")
}

/// When a future is dropped that has not completed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropped {
    /// After so many polls.
    pub(super) polls: usize,
    /// Not at once, but when it is woken and would be polled again: an event was meant for it.
    pub(super) when_woken: bool,
}

impl Dropped {
    /// Every moment up to `polls` polls.
    pub(super) fn moments(polls: usize) -> impl Iterator<Item = Self> {
        (0..=polls).flat_map(|polls| [false, true].map(|when_woken| Self { polls, when_woken }))
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { polls, when_woken } = self;
        write!(
            f,
            "dropped after {polls} polls{}",
            if *when_woken { ", when it was woken" } else { "" }
        )
    }
}

/// Polls a future until it completes or the moment to drop it has come.
pub(super) async fn abandon<T>(dropped: Dropped, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = dropped.polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 && !dropped.when_woken => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Whether a future is still pending when polled once.
pub(super) async fn is_pending<T>(future: impl Future<Output = T>) -> bool {
    let mut future = pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub struct Background(AbortHandle);

impl Background {
    /// Begins one.
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future).abort_handle())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Accepts every stream and sends back what it receives, until the connection ends.
pub(super) fn echo(connection: &Arc<dyn Connection>) -> Background {
    let connection = Arc::clone(connection);
    Background::spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok(inbound) = connection.accept().await {
            streams.spawn(async move {
                if let Ok(mut stream) = inbound.accept().await {
                    let _ended: Verdict = send_back(&mut stream).await;
                }
            });
            while streams.try_join_next().is_some() {}
        }
    })
}

async fn send_back(stream: &mut Duplex) -> Verdict {
    while let Some(bytes) = stream.rx.recv(CHUNK).await.or_seen("receiving")? {
        stream.tx.send_all(bytes).await.or_seen("echoing")?;
        stream.tx.flush().await.or_seen("flushing")?;
    }
    stream.tx.finish().await.or_seen("finishing")
}
