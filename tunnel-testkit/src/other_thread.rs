//! Another thread's runtime.

use std::thread;

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tunnel_core::Threads;

/// A runtime of one thread beside the test's own. Dropping it ends every task on it, and nothing that it has watched, such
/// as a socket, is watched any more: what still works was not there.
#[derive(Debug)]
pub struct OtherThread {
    runtime: Handle,
    /// Dropped at the end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OtherThread {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If the system has no room for it.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts a thread")]
    #[expect(clippy::expect_used, reason = "a test has no use for less")]
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            // An error is the drop of the sender.
            let _ = runtime.block_on(stopped);
        });
        Self {
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Starts some, and gives them to divide connections among, too.
    #[must_use]
    pub fn several<const N: usize>() -> ([Self; N], Threads) {
        let all = std::array::from_fn(|_| Self::new());
        let threads = Threads::new(all.iter().map(|other| other.runtime.clone()));
        (all, threads)
    }

    /// Its runtime.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for OtherThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What has panicked there has said so.
            let _ = thread.join();
        }
    }
}
