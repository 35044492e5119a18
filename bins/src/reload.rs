//! What is read again when a file changes, and on SIGHUP.

use std::{fmt, path::PathBuf};

use tokio::task::AbortHandle;
use tracing::{error, info};
use tunnel_tls::FileWatch;

/// Reads something again from its files; gives whether it had changed.
type Reload = Box<dyn Fn() -> anyhow::Result<bool> + Send + Sync>;

/// Everything that a program reads again. Dropping it ends the watching; SIGHUP goes through [`Reloads::all`].
#[derive(Default)]
pub struct Reloads {
    entries: Vec<Entry>,
}

struct Entry {
    name: &'static str,
    reload: std::sync::Arc<Reload>,
    watch: AbortHandle,
}

impl Reloads {
    /// Watches files. An error is logged, and what was there stays in use.
    pub fn add(
        &mut self,
        name: &'static str,
        files: impl IntoIterator<Item = PathBuf>,
        reload: impl Fn() -> anyhow::Result<bool> + Send + Sync + 'static,
    ) {
        let reload: std::sync::Arc<Reload> = std::sync::Arc::new(Box::new(reload));
        let mut files = FileWatch::new(files);
        let changed = reload.clone();
        let watch = tokio::spawn(async move {
            loop {
                files.changed().await;
                report(name, &changed);
            }
        });
        self.entries.push(Entry {
            name,
            reload,
            watch: watch.abort_handle(),
        });
    }

    /// Reads everything again now.
    pub fn all(&self) {
        for entry in &self.entries {
            report(entry.name, &entry.reload);
        }
    }
}

fn report(name: &str, reload: &Reload) {
    match reload() {
        Ok(true) => info!("{name}: the changed files are in use"),
        Ok(false) => info!("{name}: the files are unchanged"),
        Err(problem) => error!("{name}: what was there stays in use, because {problem:#}"),
    }
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
