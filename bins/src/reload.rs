//! What is read again when a file changes, and on SIGHUP.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tokio::{task::AbortHandle, time::sleep};
use tracing::{error, info};
use tunnel_tls::FileWatch;

/// Reads something again from its files.
type Reload = Box<dyn Fn() -> anyhow::Result<Reloaded> + Send + Sync>;

/// What has come of reading something again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It is not what it was.
    Changed,
    /// It is what it was.
    Unchanged,
    /// It is in use, and was not compared with what it was.
    Anew,
}

impl From<tunnel_tls::Reload> for Reloaded {
    fn from(reload: tunnel_tls::Reload) -> Self {
        match reload {
            tunnel_tls::Reload::Changed => Self::Changed,
            tunnel_tls::Reload::Unchanged => Self::Unchanged,
        }
    }
}

/// When to try again what has failed although the files stay as they are: this process may have been short of
/// something, or a certificate not valid yet by this machine's clock.
const RETRY: Duration = Duration::from_secs(60);

/// Everything that a program reads again. Dropping it ends the watching; SIGHUP goes through [`Reloads::all`].
#[derive(Default)]
pub struct Reloads {
    entries: Vec<Entry>,
}

struct Entry {
    name: &'static str,
    reload: Arc<Reload>,
    watch: AbortHandle,
}

impl Reloads {
    /// Watches files. An error is logged, once, and what was there stays in use; it is tried again every minute.
    pub fn add(
        &mut self,
        name: &'static str,
        files: impl IntoIterator<Item = PathBuf>,
        reload: impl Fn() -> anyhow::Result<Reloaded> + Send + Sync + 'static,
    ) {
        let reload: Arc<Reload> = Arc::new(Box::new(reload));
        let watch = tokio::spawn(follow(name, FileWatch::new(files), Arc::clone(&reload)));
        self.entries.push(Entry {
            name,
            reload,
            watch: watch.abort_handle(),
        });
    }

    /// Reads everything again now.
    pub fn all(&self) {
        for entry in &self.entries {
            report(entry.name, (entry.reload)());
        }
    }
}

/// Reads again whenever the files change.
async fn follow(name: &'static str, mut files: FileWatch, reload: Arc<Reload>) {
    let mut problem = None;
    loop {
        tokio::select! {
            () = files.changed() => problem = report(name, reload()),
            () = sleep(RETRY), if problem.is_some() => {
                let retried = reload();
                // What is known needs no second line.
                let is_known = retried.as_ref().is_err_and(|error| problem == Some(format!("{error:#}")));
                if !is_known {
                    problem = report(name, retried);
                }
            }
        }
    }
}

/// Tells what has come of it, and gives the problem if there is one.
fn report(name: &str, reloaded: anyhow::Result<Reloaded>) -> Option<String> {
    match reloaded {
        Ok(Reloaded::Changed) => info!("{name}: the changed files are in use"),
        Ok(Reloaded::Unchanged) => info!("{name}: the files are unchanged"),
        Ok(Reloaded::Anew) => info!("{name}: the files were read again and are in use"),
        Err(problem) => {
            let problem = format!("{problem:#}");
            error!("{name}: what was there stays in use, because {problem}");
            return Some(problem);
        }
    }
    None
}

impl Drop for Reloads {
    fn drop(&mut self) {
        self.entries.iter().for_each(|entry| entry.watch.abort());
    }
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.entries.iter().map(|entry| entry.name);
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
    };

    use tokio::{sync::Notify, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_has_failed_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let (fails, tried) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let mut reloads = Reloads::default();
        let reload = {
            let (fails, tried, attempts) = (fails.clone(), tried.clone(), attempts.clone());
            move || {
                attempts.lock().unwrap().push(Instant::now());
                tried.notify_one();
                anyhow::ensure!(!fails.load(Ordering::Relaxed), "too many open files");
                Ok(Reloaded::Anew)
            }
        };
        reloads.add("file", [file.clone()], reload);

        fs::write(&file, "new").unwrap();
        tried.notified().await;
        tried.notified().await;
        fails.store(false, Ordering::Relaxed);
        tried.notified().await;
        // And not again when it has succeeded.
        sleep(RETRY * 3).await;
        let attempts = attempts.lock().unwrap();
        assert_eq!(attempts.len(), 3);
        assert!(
            attempts.windows(2).all(|pair| pair[1] - pair[0] >= RETRY),
            "{attempts:?}"
        );
    }
}
