//! Reloading when files change.

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{self, AbortHandle};
use tokio::time;

use crate::error::TlsError;
use crate::reload::{Material, Reload, Reloadable};
use crate::watch::{FileWatch, POLL};

/// Reloads whenever a file changes; dropping it ends that, and the material stays as it is then.
///
/// A file that cannot be used is logged as an error that names it, and the old material stays in use. The
/// reload is then tried again every 60 seconds, for what was wrong may be this machine's clock.
#[derive(Debug)]
pub struct AutoReload {
    task: AbortHandle,
    status: watch::Receiver<ReloadStatus>,
}

/// What has come of reloading so far.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReloadStatus {
    /// How often new material was put in use.
    pub reloads: u64,
    /// How often the files could not be used.
    pub failures: u64,
    /// Why they could not be used the last time, until they can.
    pub error: Option<Arc<TlsError>>,
}

impl AutoReload {
    pub(crate) fn start<M>(name: &'static str, material: Arc<Reloadable<M>>) -> Self
    where
        M: Material + Send + Sync + 'static,
        M::Recipe: Send + Sync + 'static,
    {
        let files = FileWatch::new(material.files().iter().cloned());
        let (sender, status) = watch::channel(ReloadStatus::default());
        let task = tokio::spawn(run(name, material, files, sender)).abort_handle();
        Self { task, status }
    }

    /// The status, and every change of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ReloadStatus> {
        self.status.clone()
    }
}

impl Drop for AutoReload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run<M>(
    name: &'static str,
    material: Arc<Reloadable<M>>,
    mut files: FileWatch,
    status: watch::Sender<ReloadStatus>,
) where
    M: Material + Send + Sync + 'static,
    M::Recipe: Send + Sync + 'static,
{
    loop {
        // The first time for what changed between the first load and the start of the watch.
        let reloading = Arc::clone(&material);
        let Ok(outcome) = task::spawn_blocking(move || reloading.reload()).await else {
            return;
        };
        let failed = outcome.is_err();
        report(name, outcome, &status);
        tokio::select! {
            () = files.changed() => {}
            () = time::sleep(POLL), if failed => {}
        }
    }
}

fn report(name: &str, outcome: Result<Reload, TlsError>, status: &watch::Sender<ReloadStatus>) {
    match outcome {
        Ok(Reload::Unchanged) => {
            status.send_if_modified(|status| status.error.take().is_some());
        }
        Ok(Reload::Changed) => {
            tracing::info!("reloaded {name}: new handshakes use the new files");
            status.send_modify(|status| {
                status.reloads += 1;
                status.error = None;
            });
        }
        Err(error) => {
            tracing::error!(
                error = chain(&error),
                "cannot reload {name}, so the old files stay in use"
            );
            status.send_modify(|status| {
                status.failures += 1;
                status.error = Some(Arc::new(error));
            });
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &TlsError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}
