//! A thread that answers requests.

use std::{io, net, sync::mpsc as startup, thread};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::mpsc,
};

use super::{control::Open, echo};
use crate::realtime::{self, Rank};

/// Connections that wait until the thread takes them.
const WAITING: usize = 64;

/// Sends back what comes, in a thread of its own that ends when nobody holds this any more.
#[derive(Clone, Debug)]
pub struct Responder(mpsc::Sender<(net::TcpStream, Open)>);

impl Responder {
    /// Starts the thread, with real-time priority if that is wanted.
    pub fn start(is_realtime: bool) -> anyhow::Result<Self> {
        let (tx, rx) = mpsc::channel(WAITING);
        let (started, start) = startup::sync_channel(1);
        thread::spawn(move || {
            let (runtime, outcome) = match prepare(is_realtime) {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Whoever asked waits for it.
            let _ = started.send(outcome);
            if let Some(runtime) = runtime {
                runtime.block_on(respond(rx));
            }
        });
        start.recv()??;
        Ok(Self(tx))
    }

    /// Takes over a connection; `open` is dropped when it has ended.
    pub(super) async fn take(&self, socket: TcpStream, open: Open) -> io::Result<()> {
        let taken = self.0.send((socket.into_std()?, open)).await;
        taken.map_err(|_| io::Error::other("the thread that answers has ended"))
    }
}

fn prepare(is_realtime: bool) -> anyhow::Result<Runtime> {
    if is_realtime {
        realtime::enter(Rank::Measuring)?;
    }
    Ok(Builder::new_current_thread().enable_all().build()?)
}

async fn respond(mut sockets: mpsc::Receiver<(net::TcpStream, Open)>) {
    while let Some((socket, open)) = sockets.recv().await {
        tokio::spawn(async move {
            // A client that goes away in the middle is none of its business.
            let _ = match TcpStream::from_std(socket) {
                Ok(mut socket) => echo(&mut socket).await,
                Err(error) => Err(error),
            };
            drop(open);
        });
    }
}
