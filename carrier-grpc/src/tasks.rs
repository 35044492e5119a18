//! The tasks that hyper needs for an agent's HTTP/2 connection.

use std::{future::Future, time::Duration};

use hyper::rt::Executor;
use tokio::{runtime::Handle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long what is on its way may take to leave when the connection is no longer needed.
const LINGER: Duration = Duration::from_secs(1);

/// The tasks of one connection. They have a second to bring it to an end when this is dropped: a peer that takes
/// nothing any more cannot keep them.
#[derive(Debug)]
pub(crate) struct Tasks(Spawner);

/// Starts tasks of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    tasks: TaskTracker,
    over: CancellationToken,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self(Spawner {
            tasks: TaskTracker::new(),
            over: CancellationToken::new(),
        })
    }

    pub(crate) fn spawner(&self) -> Spawner {
        self.0.clone()
    }
}

impl<F> Executor<F> for Spawner
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let over = self.over.clone();
        self.tasks
            .spawn(async move { over.run_until_cancelled_owned(task).await.map(drop) });
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let Spawner { tasks, over } = self.0.clone();
        tasks.close();
        let Ok(runtime) = Handle::try_current() else {
            return over.cancel();
        };
        runtime.spawn(async move {
            if timeout(LINGER, tasks.wait()).await.is_err() {
                over.cancel();
            }
        });
    }
}
