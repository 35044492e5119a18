//! Noticing that files have changed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task;
use tokio::time::{self, Instant, Interval, MissedTickBehavior};

/// How often files are read even if nothing was noticed: network file systems and links into other
/// directories report nothing.
pub(crate) const POLL: Duration = Duration::from_secs(60);

/// A change is reported when the directories have been quiet for this long, because writers that replace
/// several files do it one by one…
const QUIET: Duration = Duration::from_millis(100);

/// …and after this long in any case.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// Notices when the content of files changes, however they are replaced: written in place, renamed over, or
/// by the swap of a link above them, as Kubernetes does with mounted secrets and config maps.
///
/// The directories of the files are watched, and every 60 seconds the files are read in any case. Files may
/// be missing; they appear as a change. A file that cannot be read for want of something else, such as file
/// descriptors, counts as it was until it can. Only the first 16 MiB of a file count.
#[derive(Debug)]
pub struct FileWatch {
    files: Arc<[PathBuf]>,
    seen: Contents,
    /// Wakes [`FileWatch::changed`] when something happened in one of the directories.
    noticed: Arc<Notify>,
    /// Something happened and the files have not been read since.
    due: bool,
    /// The operating system's notifications, unless they cannot be had.
    watcher: Option<RecommendedWatcher>,
    poll: Interval,
}

/// What every file holds.
type Contents = Vec<Content>;

/// The digest of a file, or nothing if it is missing or not for this process.
type Content = Option<[u8; 32]>;

/// What follows is not looked at, so that a file without end does not stop the watch.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

impl FileWatch {
    /// Starts watching, from what the files hold now. It reads them and so may block briefly.
    ///
    /// If the operating system cannot notify (its limit may be reached), a warning is logged and changes are
    /// found by reading every 60 seconds alone.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let noticed = Arc::new(Notify::new());
        let watcher = match watcher(Arc::clone(&noticed)) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "cannot watch files, so changes are found within {POLL:?} instead of at once");
                None
            }
        };
        Self::with(files, noticed, watcher)
    }

    fn with(
        files: impl IntoIterator<Item = PathBuf>,
        noticed: Arc<Notify>,
        watcher: Option<RecommendedWatcher>,
    ) -> Self {
        let mut poll = time::interval_at(Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Self {
            files: files.into_iter().collect(),
            seen: Contents::new(),
            noticed,
            due: false,
            watcher,
            poll,
        };
        // In this order nothing that happens in between is missed.
        watch.watch_directories();
        watch.seen = vec![None; watch.files.len()];
        read_all(&watch.files, &mut watch.seen);
        watch
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Resolves when the content of a file differs from what it was when this last resolved, or at the start.
    /// Changes that come shortly after one another are one.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: a change that a dropped future had noticed resolves the next one.
    pub async fn changed(&mut self) {
        loop {
            if !self.due {
                tokio::select! {
                    () = self.noticed.notified() => {}
                    _ = self.poll.tick() => self.watch_directories(),
                }
                self.due = true;
            }
            self.settle().await;
            let now = self.read().await;
            self.due = false;
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }

    async fn settle(&self) {
        let begin = Instant::now();
        while begin.elapsed() < IMPATIENCE {
            if time::timeout(QUIET, self.noticed.notified()).await.is_err() {
                return;
            }
        }
    }

    async fn read(&self) -> Contents {
        let (files, mut contents) = (Arc::clone(&self.files), self.seen.clone());
        let read = task::spawn_blocking(move || {
            read_all(&files, &mut contents);
            contents
        });
        // The only failure is the end of the runtime.
        read.await.unwrap_or_else(|_| self.seen.clone())
    }

    /// Watches the directories again, for one of them may have been replaced since.
    fn watch_directories(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let directories: BTreeSet<&Path> = self.files.iter().map(|file| directory(file)).collect();
        for directory in directories {
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::debug!(directory = %directory.display(), %error, "cannot watch a directory");
            }
        }
    }
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn watcher(noticed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Reading is no change, or our own reading would wake us for ever.
        let only_read = event.is_ok_and(
            |event| matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)),
        );
        if !only_read {
            noticed.notify_one();
        }
    })
}

/// Brings what is known of the files up to date.
fn read_all(files: &[PathBuf], contents: &mut Contents) {
    for (file, content) in files.iter().zip(contents) {
        learn(content, digest_of(file));
    }
}

/// Takes what came of reading a file. Only some errors are about the file: others, such as a shortage of descriptors
/// or memory, are about this process or its machine, and tell nothing new.
fn learn(content: &mut Content, read: io::Result<[u8; 32]>) {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    match read {
        Ok(digest) => *content = Some(digest),
        Err(error) => match error.kind() {
            NotFound | PermissionDenied | NotADirectory | IsADirectory => *content = None,
            _ => tracing::debug!(%error, "cannot tell whether a file has changed"),
        },
    }
}

fn digest_of(file: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(file)?.take(MAX_BYTES);
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = [0; 8192];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => context.update(&buffer[..n]),
        }
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_notifications_a_change_is_found_by_reading() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "old").unwrap();
        let mut watch = FileWatch::with([file.clone()], Arc::default(), None);
        let begin = Instant::now();
        assert!(
            time::timeout(POLL * 3, watch.changed()).await.is_err(),
            "nothing has changed"
        );

        fs::write(&file, "new").unwrap();
        watch.changed().await;
        assert!(begin.elapsed() <= POLL * 4 + QUIET, "{:?}", begin.elapsed());
        fs::remove_file(&file).unwrap();
        watch.changed().await;
    }

    #[test]
    fn what_is_not_about_a_file_does_not_change_it() {
        // EMFILE, ENFILE, ENOMEM, EIO
        for shortage in [24, 23, 12, 5] {
            for before in [None, Some([7; 32])] {
                let mut content = before;
                learn(&mut content, Err(io::Error::from_raw_os_error(shortage)));
                assert_eq!(content, before);
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let mut content = Some([7; 32]);
        learn(&mut content, digest_of(&file));
        assert_eq!(content, None);
        fs::write(&file, "text").unwrap();
        learn(&mut content, digest_of(&file));
        assert!(content.is_some());
        for wrong in [file.join("below a file"), dir.path().to_owned()] {
            let mut content = content;
            learn(&mut content, digest_of(&wrong));
            assert_eq!(content, None, "{}", wrong.display());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_future_loses_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let mut watch = FileWatch::with([file.clone()], Arc::default(), None);
        fs::write(&file, "new").unwrap();
        watch.noticed.notify_one();
        // It is dropped while it waits for quiet.
        assert!(time::timeout(QUIET / 2, watch.changed()).await.is_err());
        let begin = Instant::now();
        watch.changed().await;
        assert_eq!(begin.elapsed(), QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn restless_directories_do_not_put_a_change_off_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let mut watch = FileWatch::with([file.clone()], Arc::default(), None);
        fs::write(&file, "new").unwrap();
        let noticed = Arc::clone(&watch.noticed);
        let restless = async {
            loop {
                noticed.notify_one();
                time::sleep(QUIET / 2).await;
            }
        };
        let begin = Instant::now();
        tokio::select! {
            () = watch.changed() => {}
            () = restless => {}
        }
        assert!(begin.elapsed() <= IMPATIENCE + QUIET, "{:?}", begin.elapsed());
    }
}
