//! Which thread does what.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    runtime::{self, Handle},
    task::JoinHandle,
};

/// Runtimes of one thread each, among which connections are divided; none by default, and then everything stays in the
/// runtime where it was started.
///
/// A connection and the relays of its streams wake each other for every few kilobytes. Within a thread that costs next to
/// nothing; between threads it is a system call and mostly a switch of the processor as well. So each connection gets a
/// [`Home`], one runtime for its life, where everything of its streams runs, too; a frontend moves a client there as soon as
/// it has its stream ([`Opened::home`](crate::Opened::home)). The price: a connection has one processor at most. Where
/// that is the limit, an agent makes several connections.
///
/// Cloning gives another handle to the same threads.
#[derive(Clone, Default)]
pub struct Threads(Arc<[Thread]>);

struct Thread {
    runtime: Handle,
    /// Connections that are at home here.
    connections: AtomicUsize,
}

/// Where a connection lives. It counts as one of that thread's until this is dropped.
pub struct Home {
    runtime: Handle,
    /// Which of the threads it is, if there are any.
    counted: Option<(Threads, usize)>,
}

impl Threads {
    /// Divides connections among these runtimes; the first one is preferred among equals. Each is meant to have one thread
    /// (`Builder::new_current_thread`) and has to be driven by its owner.
    pub fn new(runtimes: impl IntoIterator<Item = Handle>) -> Self {
        let thread = |runtime| Thread {
            runtime,
            connections: AtomicUsize::new(0),
        };
        Self(runtimes.into_iter().map(thread).collect())
    }

    /// How many there are; 0 by default.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A home for one more connection: the thread with the fewest. Without threads, the runtime that calls.
    ///
    /// # Panics
    ///
    /// Without threads, outside a tokio runtime.
    #[must_use]
    pub fn home(&self) -> Home {
        self.home_apart_from(&[])
    }

    /// A home for a connection that is to take load off others, which are at home in these runtimes: the thread with the
    /// fewest of them, and among equals the one with the fewest connections.
    pub(crate) fn home_apart_from(&self, others: &[runtime::Id]) -> Home {
        let rank = |thread: &Thread| {
            let others = others.iter().filter(|other| **other == thread.runtime.id());
            (others.count(), thread.connections.load(Ordering::Relaxed))
        };
        match self.0.iter().enumerate().min_by_key(|(_, thread)| rank(thread)) {
            Some((at, thread)) => {
                thread.connections.fetch_add(1, Ordering::Relaxed);
                Home {
                    runtime: thread.runtime.clone(),
                    counted: Some((self.clone(), at)),
                }
            }
            None => Home {
                runtime: Handle::current(),
                counted: None,
            },
        }
    }

    /// Where a client is served that has no stream yet: the thread with the fewest tasks, which are mostly open streams,
    /// however busy those are. Without threads, the runtime that calls.
    ///
    /// # Panics
    ///
    /// Without threads, outside a tokio runtime.
    #[must_use]
    pub fn fewest_tasks(&self) -> Handle {
        let tasks = |thread: &&Thread| thread.runtime.metrics().num_alive_tasks();
        match self.0.iter().min_by_key(tasks) {
            Some(thread) => thread.runtime.clone(),
            None => Handle::current(),
        }
    }
}

impl Home {
    /// The runtime of that thread.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs the connection's task there, and counts for as long.
    pub fn spawn<T: Send + 'static>(self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            let outcome = task.await;
            drop(self);
            outcome
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some((threads, at)) = &self.counted
            && let Some(thread) = threads.0.get(*at)
        {
            thread.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.0.iter().map(|thread| thread.connections.load(Ordering::Relaxed));
        f.debug_tuple("Threads")
            .field(&connections.collect::<Vec<_>>())
            .finish()
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Home").field(&self.runtime.id()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtimes() -> [Runtime; 3] {
        std::array::from_fn(|_| Builder::new_current_thread().build().unwrap())
    }

    #[test]
    fn a_connection_goes_where_the_fewest_are() {
        let runtimes = runtimes();
        let threads = Threads::new(runtimes.iter().map(|runtime| runtime.handle().clone()));
        let id = |home: &Home| home.runtime().id();
        let mut homes: Vec<_> = (0..6).map(|_| threads.home()).collect();
        let order: Vec<_> = runtimes.iter().map(|runtime| runtime.handle().id()).collect();
        assert_eq!(
            homes.iter().map(id).collect::<Vec<_>>(),
            [&order[..], &order[..]].concat()
        );
        // What leaves makes room.
        drop(homes.remove(4));
        assert_eq!(id(&threads.home()), order[1]);
        assert_eq!(format!("{threads:?}"), "Threads([2, 1, 2])");
    }

    #[test]
    fn a_connection_keeps_apart_from_others() {
        let runtimes = runtimes();
        let threads = Threads::new(runtimes.iter().map(|runtime| runtime.handle().clone()));
        let [first, second, third] = runtimes.each_ref().map(|runtime| runtime.handle().id());
        let _busy = [threads.home(), threads.home(), threads.home(), threads.home()];
        let homes = [&[][..], &[second], &[second, third], &[first, second, third, third]];
        let homes = homes.map(|others| threads.home_apart_from(others).runtime().id());
        assert_eq!(homes, [second, third, first, second]);
    }

    #[test]
    fn a_client_goes_where_the_fewest_tasks_are() {
        let runtimes = runtimes();
        let threads = Threads::new(runtimes.iter().map(|runtime| runtime.handle().clone()));
        for busy in [0, 2, 2] {
            runtimes[busy].spawn(std::future::pending::<()>());
        }
        assert_eq!(threads.fewest_tasks().id(), runtimes[1].handle().id());
    }

    #[test]
    fn a_home_counts_as_long_as_its_task() {
        let [runtime, ..] = runtimes();
        let threads = Threads::new([runtime.handle().clone()]);
        let task = threads.home().spawn(tokio::task::yield_now());
        assert_eq!(format!("{threads:?}"), "Threads([1])");
        runtime.block_on(task).unwrap();
        assert_eq!(format!("{threads:?}"), "Threads([0])");
    }

    #[tokio::test]
    async fn without_threads_everything_stays() {
        let (threads, here) = (Threads::default(), Handle::current().id());
        assert_eq!(
            (threads.home().runtime().id(), threads.fewest_tasks().id()),
            (here, here)
        );
    }
}
