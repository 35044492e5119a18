//! What the target has taken, told beside the tunnel: over a Unix socket, which is reached from every network namespace.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

type Sinks = Arc<Mutex<BTreeMap<u64, Arc<AtomicU64>>>>;

/// The count of a target.
#[derive(Debug, Default)]
pub struct Ledger {
    open: Arc<AtomicUsize>,
    sent: AtomicU64,
    sinks: Sinks,
}

/// The count at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Connections that are open.
    pub open: usize,
    /// Bytes of all downloads of the pattern so far: when they stand still, nobody reads, and whatever is on the way is full.
    pub sent: u64,
    /// Bytes of each upload that is open, by its number.
    pub taken: BTreeMap<u64, u64>,
}

impl Ledger {
    /// Counts a connection until what is given is dropped.
    pub(super) fn open(&self) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.open))
    }

    /// Counts bytes of a download.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts the bytes of an upload until what is given is dropped.
    pub(super) fn sink(&self, number: u64) -> Sink {
        let taken = Arc::default();
        lock(&self.sinks).insert(number, Arc::clone(&taken));
        Sink {
            number,
            taken,
            sinks: Arc::clone(&self.sinks),
        }
    }

    /// The count now.
    #[must_use]
    pub fn account(&self) -> Account {
        let sinks = lock(&self.sinks);
        Account {
            open: self.open.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            taken: sinks
                .iter()
                .map(|(number, taken)| (*number, taken.load(Ordering::Relaxed)))
                .collect(),
        }
    }
}

fn lock(sinks: &Sinks) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<AtomicU64>>> {
    // Nothing that holds it leaves it half done.
    sinks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An upload that is open.
#[derive(Debug)]
pub(super) struct Sink {
    number: u64,
    taken: Arc<AtomicU64>,
    sinks: Sinks,
}

impl Sink {
    pub(super) fn add(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        lock(&self.sinks).remove(&self.number);
    }
}

/// Tells the account for each line that it is sent, until it is dropped.
pub async fn serve(listener: UnixListener, ledger: Arc<Ledger>) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            let mut socket = BufReader::new(socket);
            let mut line = String::new();
            while socket.read_line(&mut line).await? > 0 {
                line.clear();
                let answer = format!("{}\n", serde_json::json!(ledger.account()));
                socket.write_all(answer.as_bytes()).await?;
            }
            io::Result::Ok(())
        });
    }
}

/// Asks a target for its account.
#[derive(Debug)]
pub struct Control(BufReader<UnixStream>);

impl Control {
    /// Connects.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(path).await?)))
    }

    /// The account now.
    pub async fn account(&mut self) -> io::Result<Account> {
        self.0.write_all(b"\n").await?;
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_account_has_what_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let ledger = Arc::new(Ledger::default());
        tokio::spawn(serve(UnixListener::bind(&path).unwrap(), Arc::clone(&ledger)));
        let mut control = Control::connect(&path).await.unwrap();
        assert_eq!(control.account().await.unwrap(), Account::default());
        let (open, sink) = (ledger.open(), ledger.sink(9));
        sink.add(5);
        sink.add(6);
        let account = control.account().await.unwrap();
        assert_eq!((account.open, account.taken), (1, BTreeMap::from([(9, 11)])));
        drop((open, sink));
        ledger.sent(7);
        let last = Account {
            sent: 7,
            ..Account::default()
        };
        assert_eq!(control.account().await.unwrap(), last);
    }
}
