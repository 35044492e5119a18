//! Files that nobody else may read, written whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner alone (mode 0600).
    Owner,
    /// Everybody who can enter the directory (mode 0644).
    Everybody,
}

/// Creates a directory, and its parents, that only its owner can enter (mode 0700). One that exists stays as
/// it is.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// The permission bits of a file or directory if others than its owner may do anything with it. Systems
/// without such bits have nothing to report.
pub(crate) fn too_open(path: &Path) -> io::Result<Option<u32>> {
    let metadata = fs::metadata(path)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
        Ok((mode & 0o077 != 0).then_some(mode))
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        Ok(None)
    }
}

/// Replaces a file in one step: readers see the old content or the new.
pub(crate) fn replace(path: &Path, text: &str, readers: Readers) -> io::Result<()> {
    let draft = Draft::write(path, text, readers)?;
    fs::rename(&draft.0, path)
}

/// Waits for the lock of a directory, which is held until the returned file is dropped. Processes that share
/// the directory take turns; one that dies gives the lock back.
pub(crate) fn lock(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(dir.join(".lock"))?;
    file.lock()?;
    Ok(file)
}

/// A complete file under a temporary name, which is removed when dropped.
struct Draft(PathBuf);

impl Draft {
    fn write(beside: &Path, text: &str, readers: Readers) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = beside.with_extension(format!("{}-{count}.tmp", process::id()));
        // What another process of that number left behind is nobody's any more.
        let _ = fs::remove_file(&path);
        let mut file = open_new(&path, readers)?;
        let draft = Self(path);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = fs::remove_file(&self.0);
    }
}

fn open_new(path: &Path, readers: Readers) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::Everybody => 0o644,
        };
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    }
    #[cfg(not(unix))]
    let _ = readers;
    options.open(path)
}
