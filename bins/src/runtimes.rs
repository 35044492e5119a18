//! The threads of a program.

use std::{future::Future, io, num::NonZeroUsize, thread};

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tunnel_core::Threads;

/// After how many polls of tasks a thread asks the system for news of its sockets. tokio's 61 are made for tasks that do
/// little; here each may move 64 KiB through a cipher, and what has arrived meanwhile waits. With eight the 99th
/// percentile beside bulk transfers is a third lower over QUIC and a half over gRPC; the processor time is about the same.
const EVENT_INTERVAL: u32 = 8;

/// After how many polls of its own tasks, at most, a thread looks at what others have for it: clients that are to move there,
/// what they ask of its connections, packets that another thread has received. tokio's 31 let each of those wait for
/// milliseconds on a busy thread.
const GLOBAL_QUEUE_INTERVAL: u32 = 4;

/// A runtime of one thread for each thread of the program: what belongs together wakes each other without a system call,
/// and is never moved between processors by the runtime.
#[derive(Debug)]
pub(crate) struct Runtimes {
    /// Of the thread that calls.
    first: Runtime,
    others: Others,
    threads: Threads,
}

/// The threads beside the first; dropping this ends them and every task on them.
#[derive(Debug, Default)]
struct Others {
    threads: Vec<thread::JoinHandle<()>>,
    stop: CancellationToken,
}

/// How many cores the program may use, at least one.
pub(crate) fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

impl Runtimes {
    /// Starts all threads but the first, which is the one that calls.
    pub(crate) fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let first = runtime()?;
        let mut others = Others::default();
        let mut handles = vec![first.handle().clone()];
        for number in 2..=threads.get() {
            let runtime = runtime()?;
            handles.push(runtime.handle().clone());
            let stop = others.stop.clone();
            let run = move || {
                runtime.block_on(stop.cancelled());
                end(runtime);
            };
            let thread = thread::Builder::new().name(format!("tunnel-{number}")).spawn(run)?;
            others.threads.push(thread);
        }
        Ok(Self {
            first,
            others,
            threads: Threads::new(handles),
        })
    }

    /// The threads, to divide connections among.
    pub(crate) fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Runs on the first thread until the future ends, and with it every task.
    pub(crate) fn run<F: Future>(self, future: F) -> F::Output {
        let output = self.first.block_on(future);
        drop(self.others);
        end(self.first);
        output
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // What has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Ends every task; a name that is being resolved is not waited for.
fn end(runtime: Runtime) {
    runtime.shutdown_background();
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .event_interval(EVENT_INTERVAL)
        .global_queue_interval(GLOBAL_QUEUE_INTERVAL)
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    fn start(threads: usize) -> Runtimes {
        Runtimes::start(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    #[test]
    fn each_thread_is_its_own() {
        let runtimes = start(3);
        let homes: Vec<_> = (0..3).map(|_| runtimes.threads().home()).collect();
        let ids = runtimes.run(async {
            let mut ids = Vec::new();
            for home in &homes {
                ids.push(home.runtime().spawn(async { thread::current().id() }).await.unwrap());
            }
            ids
        });
        assert_eq!(ids[0], thread::current().id());
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    }

    #[test]
    fn what_blocks_is_not_waited_for() {
        let runtimes = start(2);
        let mut stuck = Vec::new();
        for _ in 0..2 {
            let home = runtimes.threads().home();
            let (end, ended) = mpsc::sync_channel::<()>(0);
            home.runtime().spawn_blocking(move || ended.recv());
            // The next one goes to the other thread.
            stuck.push((end, home));
        }
        let (over, is_over) = mpsc::sync_channel(1);
        thread::spawn(move || {
            runtimes.run(async {});
            over.send(())
        });
        assert_eq!(is_over.recv_timeout(Duration::from_secs(10)), Ok(()));
    }

    #[test]
    fn its_end_is_the_end_of_every_task() {
        let (held, dropped) = mpsc::sync_channel::<()>(0);
        let runtimes = start(2);
        for _ in 0..4 {
            let held = held.clone();
            // They hold it until they are dropped.
            let home = runtimes.threads().home();
            home.runtime().spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
        }
        drop(held);
        runtimes.run(async {});
        assert_eq!(
            dropped.recv_timeout(Duration::from_secs(10)),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
