//! The server's process: does what the first byte of each stream says, and counts what it takes.

use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{CHUNK, Kind, Listen, Pair, Purpose, Wire};
use crate::credentials::Credentials;

/// Is the server: prints its address, then the number of bytes taken so far for each line that it reads, until there is
/// none.
pub async fn run(kind: Kind, credentials: &Path) -> anyhow::Result<()> {
    let listener = kind.listen(&Credentials::in_dir(credentials)?).await?;
    let mut out = tokio::io::stdout();
    out.write_all(format!("{}\n", listener.addr()?).as_bytes()).await?;
    out.flush().await?;
    let taken = Arc::new(AtomicU64::new(0));
    tokio::spawn(listen(listener, Arc::clone(&taken)));
    let mut asked = BufReader::new(tokio::io::stdin()).lines();
    while asked.next_line().await?.is_some() {
        out.write_all(format!("{}\n", taken.load(Ordering::Relaxed)).as_bytes())
            .await?;
        out.flush().await?;
    }
    Ok(())
}

async fn listen(mut listener: Box<dyn Listen>, taken: Arc<AtomicU64>) -> anyhow::Result<()> {
    loop {
        let handshake = listener.accept().await?;
        let taken = Arc::clone(&taken);
        tokio::spawn(async move { serve(handshake.await?, taken).await });
    }
}

async fn serve(wire: Arc<dyn Wire>, taken: Arc<AtomicU64>) -> anyhow::Result<()> {
    while let Some(pair) = wire.accept().await? {
        tokio::spawn(stream(pair, Arc::clone(&taken)));
    }
    // A connection with one stream lives as long as that.
    std::future::pending().await
}

async fn stream((mut tx, mut rx): Pair, taken: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut first = rx.recv().await?.context("a stream without a byte")?;
    let purpose = Purpose::of(first.try_get_u8()?)?;
    let mut next = (!first.is_empty()).then_some(first);
    match purpose {
        Purpose::Download => {
            let chunk = Bytes::from(vec![7; CHUNK]);
            loop {
                tx.send(chunk.clone()).await?;
            }
        }
        Purpose::Upload => loop {
            let chunk = match next.take() {
                Some(chunk) => chunk,
                None => rx.recv().await?.context("the upload ended")?,
            };
            taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        },
        Purpose::Echo => loop {
            let chunk = match next.take() {
                Some(chunk) => chunk,
                None => rx.recv().await?.context("the requests ended")?,
            };
            tx.send(chunk).await?;
        },
        Purpose::Idle => {
            // Until the peer lets go of it.
            while rx.recv().await?.is_some() {}
            Ok(())
        }
    }
}

/// A server that this process has started, and that ends with it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Where it listens.
    pub addr: std::net::SocketAddr,
}

impl Server {
    /// Starts this program as a server.
    pub async fn start(kind: Kind, credentials: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["server", "--kind", &kind.to_string(), "--credentials"])
            .arg(credentials)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let ask = child.stdin.take().context("no stdin")?;
        let mut answers = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let addr = answers
            .next_line()
            .await?
            .context("the server did not start")?
            .parse()?;
        Ok(Self {
            child,
            ask,
            answers,
            addr,
        })
    }

    /// The bytes of uploads that it has taken so far.
    pub async fn taken(&mut self) -> anyhow::Result<u64> {
        self.ask.write_all(b"\n").await?;
        self.ask.flush().await?;
        Ok(self
            .answers
            .next_line()
            .await?
            .context("the server has ended")?
            .parse()?)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }
}
