//! What an agent logs.

use std::{cell::RefCell, io, sync::Once};

thread_local! {
    /// What was logged on this thread, which is that of one test.
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log of a test that runs on one thread.
pub(crate) struct Log(());

impl Log {
    /// The log from now on.
    pub(crate) fn begin() -> Self {
        // One for all tests: those that come and go disturb each other, because what they want to hear of is cached for
        // the whole process.
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            tracing_subscriber::fmt()
                .without_time()
                .with_target(false)
                .with_ansi(false)
                .with_env_filter("tunnel_core::agent=info,tunnel_core::keep=info")
                .with_writer(|| Thread)
                .init();
        });
        WRITTEN.take();
        Self(())
    }

    /// The lines since the last call, their waits left out, because chance decides about them.
    pub(crate) fn lines(&self) -> Vec<String> {
        let written = WRITTEN.take();
        let lines = String::from_utf8(written).unwrap();
        let line = |line: &str| match line.trim().rsplit_once(" in ") {
            Some((line, wait)) if wait.starts_with(|c: char| c.is_ascii_digit()) => match wait.split_once(',') {
                Some((_, rest)) => format!("{line} in …,{rest}"),
                None => format!("{line} in …"),
            },
            _ => line.trim().to_owned(),
        };
        lines.lines().map(line).collect()
    }
}

/// Writes to the log of this thread.
struct Thread;

impl io::Write for Thread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        WRITTEN.with_borrow_mut(|written| written.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
