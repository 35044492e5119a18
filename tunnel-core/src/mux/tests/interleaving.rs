//! What tasks of several threads do to the state of a connection, in many orders: whoever waits is woken. The scheduler
//! of these tests reports a deadlock when everybody waits.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use shuttle::{
    Config as Schedules, Runner,
    future::{JoinHandle, block_on, spawn},
    scheduler::{PctScheduler, RandomScheduler},
    sync::Mutex,
};
use tunnel_proto::{
    Answer, CloseCode, StreamCode,
    mux::{Budget, Config, Mux, Side, StreamId, Windows},
};

use super::head;
use crate::{
    error::{OpenError, RecvError, SendError},
    mux::state::{State, now},
};

/// Explores orders of what `scenario` does: some at random, some with few switches, which finds other faults.
fn explore(scenario: fn()) {
    let schedules = || {
        let mut schedules = Schedules::new();
        schedules.stack_size = 1 << 20;
        schedules
    };
    Runner::new(RandomScheduler::new_from_seed(7, 300), schedules()).run(scenario);
    Runner::new(PctScheduler::new_from_seed(7, 3, 300), schedules()).run(scenario);
}

/// The state of one end, behind a lock whose order the scheduler decides.
struct End(Mutex<State>);

impl End {
    /// As `Shared::visit`.
    fn visit<T>(&self, visit: impl FnOnce(&mut State) -> T) -> T {
        let (out, news) = self.0.lock().unwrap().visit(visit);
        news.deliver();
        out
    }
}

/// Two ends, each with a driver that brings what it says to the other.
struct Pair {
    agent: Arc<End>,
    server: Arc<End>,
    drivers: [JoinHandle<()>; 2],
}

impl Pair {
    /// A small window, and room for one stream.
    fn new() -> Self {
        let end = |side| {
            let config = Config::builder()
                .max_streams(1)
                .stream_window(Windows::fixed(1024))
                .send_queue(1024)
                .build()
                .unwrap();
            let mux = Mux::new(side, config, Budget::default().account(), now());
            Arc::new(End(Mutex::new(State::new(mux))))
        };
        let (agent, server) = (end(Side::Agent), end(Side::Server));
        let drivers = [(&agent, &server), (&server, &agent)].map(|(from, to)| {
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            spawn(poll_fn(move |cx| drive(cx, &from, &to)))
        });
        Self { agent, server, drivers }
    }

    /// Opens a stream, which the server accepts.
    async fn open(&self) -> StreamId {
        let id = poll_fn(|cx| {
            self.agent
                .visit(|state| state.poll_open(cx, &head("stream"), &mut Bytes::new()))
        });
        let id = id.await.unwrap();
        let answered = poll_fn(|cx| self.agent.visit(|state| state.poll_answer(cx, id)));
        answered.await.unwrap();
        id
    }

    async fn end(self) {
        self.agent
            .visit(|state| state.mux.close(now(), CloseCode::DONE, "".into()));
        for driver in self.drivers {
            driver.await.unwrap();
        }
    }
}

/// A turn of a driver over a link that always has room.
fn drive(cx: &mut Context<'_>, from: &End, to: &End) -> Poll<()> {
    from.visit(|state| state.begin_turn(cx));
    let carry = || {
        while let Some(message) = from.visit(|state| state.mux.poll_message(now())) {
            to.visit(|state| state.mux.handle_message(now(), message.into_bytes()));
            // The server accepts every stream.
            to.visit(|state| {
                if let Some((id, _)) = state.next_arrived() {
                    state.answer(id, &Answer::Accepted).unwrap();
                }
            });
        }
    };
    carry();
    let rest = from.visit(|state| state.rest(cx, false));
    if rest.is_over {
        // The close may have come since.
        carry();
        return Poll::Ready(());
    }
    if rest.has_work {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}

async fn write(end: &End, id: StreamId, mut data: Bytes) -> Result<(), SendError> {
    while !data.is_empty() {
        poll_fn(|cx| end.visit(|state| state.poll_send(cx, id, &mut data))).await?;
    }
    Ok(())
}

async fn read(end: &End, id: StreamId) -> Result<Option<Bytes>, RecvError> {
    poll_fn(|cx| end.visit(|state| state.poll_recv(cx, id, 700))).await
}

#[test]
fn a_reader_and_a_writer_wake_each_other() {
    explore(|| {
        block_on(async {
            let pair = Pair::new();
            let id = pair.open().await;
            let agent = Arc::clone(&pair.agent);
            let writer = spawn(async move {
                write(&agent, id, vec![1; 3000].into()).await.unwrap();
                agent.visit(|state| state.mux.finish(now(), id)).unwrap();
            });
            let mut received = 0;
            while let Some(bytes) = read(&pair.server, id).await.unwrap() {
                received += bytes.len();
            }
            assert_eq!(received, 3000);
            writer.await.unwrap();
            pair.end().await;
        });
    });
}

#[test]
fn a_stop_and_a_reset_wake_those_who_wait() {
    explore(|| {
        block_on(async {
            let pair = Pair::new();
            let id = pair.open().await;
            let end = || Arc::clone(&pair.agent);
            let agent = end();
            // Nobody reads, so the writer is stuck until the stop.
            let writer = spawn(async move { write(&agent, id, vec![1; 5000].into()).await });
            let agent = end();
            let stopped = spawn(async move { poll_fn(|cx| agent.visit(|state| state.poll_stopped(cx, id))).await });
            let agent = end();
            let reader = spawn(async move { poll_fn(|cx| agent.visit(|state| state.poll_reset(cx, id))).await });
            pair.server.visit(|state| state.mux.stop(now(), id, StreamCode::IDLE));
            pair.server
                .visit(|state| state.mux.reset(now(), id, StreamCode::POLICY));
            let written = writer.await.unwrap();
            assert!(
                matches!(written, Err(SendError::Stopped(StreamCode::IDLE))),
                "{written:?}"
            );
            let stopped = stopped.await.unwrap();
            assert!(matches!(stopped, Ok(StreamCode::IDLE)), "{stopped:?}");
            let reset = reader.await.unwrap();
            assert!(matches!(reset, RecvError::Reset(StreamCode::POLICY)), "{reset:?}");
            pair.end().await;
        });
    });
}

#[test]
fn a_place_that_comes_back_wakes_who_waits_for_it() {
    explore(|| {
        block_on(async {
            let pair = Pair::new();
            for _ in 0..3 {
                let id = pair.open().await;
                for end in [&pair.agent, &pair.server] {
                    let end = Arc::clone(end);
                    drop(spawn(async move {
                        end.visit(|state| state.release_send(id));
                        end.visit(|state| state.release_recv(id));
                    }));
                }
            }
            pair.end().await;
        });
    });
}

#[test]
fn a_close_wakes_everybody() {
    explore(|| {
        block_on(async {
            let pair = Pair::new();
            let id = pair.open().await;
            let end = || Arc::clone(&pair.agent);
            let agent = end();
            let reader = spawn(async move { read(&agent, id).await });
            let agent = end();
            let writer = spawn(async move { write(&agent, id, vec![1; 5000].into()).await });
            let agent = end();
            let stopped = spawn(async move { poll_fn(|cx| agent.visit(|state| state.poll_stopped(cx, id))).await });
            let agent = end();
            let opener = spawn(async move {
                poll_fn(|cx| agent.visit(|state| state.poll_open(cx, &head("waits"), &mut Bytes::new()))).await
            });
            let server = Arc::clone(&pair.server);
            let closer = spawn(async move {
                server.visit(|state| state.mux.close(now(), CloseCode::SHUTDOWN, "".into()));
            });
            assert!(matches!(reader.await.unwrap(), Err(RecvError::Connection(_))));
            assert!(matches!(writer.await.unwrap(), Err(SendError::Connection(_))));
            assert!(matches!(stopped.await.unwrap(), Err(SendError::Connection(_))));
            assert!(matches!(opener.await.unwrap(), Err(OpenError::Connection(_))));
            closer.await.unwrap();
            pair.end().await;
        });
    });
}
