//! What a mux is without a scheduler: the chunks of all streams in one queue, first come, first served.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, stream::SplitStream};
use tokio::sync::{Mutex, mpsc};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::{Pair, Rx, Tx, Wire, bare::Io};

/// The chunks of the queue: with chunks of 64 KiB, as much as 16 streams may queue in the mux.
const QUEUE: usize = 32;

/// The chunks that a stream's receiver may lag behind, before it holds up all others.
const BEHIND: usize = 64;

/// Both ends count their streams by themselves; the agent's are the even ones.
pub(super) fn wire(socket: WebSocketStream<Io>, agent: bool) -> Arc<dyn Wire> {
    let (mut sink, stream) = socket.split();
    let (queue, mut queued) = mpsc::channel::<Bytes>(QUEUE);
    let (arrivals, arrived) = mpsc::channel(1024);
    let streams = Arc::new(Mutex::new(HashMap::new()));
    tokio::spawn(async move {
        while let Some(chunk) = queued.recv().await {
            sink.feed(Message::Binary(chunk)).await?;
            if queued.is_empty() {
                sink.flush().await?;
            }
        }
        anyhow::Ok(())
    });
    tokio::spawn(distribute(stream, Arc::clone(&streams), arrivals, queue.clone()));
    Arc::new(Fifo {
        next: AtomicU32::new(if agent { 0 } else { 1 }),
        queue,
        streams,
        arrived: Mutex::new(arrived),
    })
}

type Streams = Arc<Mutex<HashMap<u32, mpsc::Sender<Bytes>>>>;

async fn distribute(
    mut stream: SplitStream<WebSocketStream<Io>>,
    streams: Streams,
    arrivals: mpsc::Sender<Pair>,
    queue: mpsc::Sender<Bytes>,
) -> anyhow::Result<()> {
    while let Some(message) = stream.next().await {
        let Message::Binary(mut chunk) = message? else {
            continue;
        };
        let id = chunk.try_get_u32()?;
        let mut known = streams.lock().await;
        let stream = match known.get(&id) {
            Some(stream) => stream.clone(),
            None => {
                let (stream, pair) = stream_of(id, queue.clone());
                known.insert(id, stream.clone());
                arrivals.send(pair).await.map_err(|_| anyhow!("nobody accepts"))?;
                stream
            }
        };
        drop(known);
        // A stream that nobody reads any more is of no interest.
        let _ = stream.send(chunk).await;
    }
    Ok(())
}

fn stream_of(id: u32, queue: mpsc::Sender<Bytes>) -> (mpsc::Sender<Bytes>, Pair) {
    let (stream, received) = mpsc::channel(BEHIND);
    (stream, (Box::new(Sending { id, queue }), Box::new(received)))
}

struct Fifo {
    next: AtomicU32,
    queue: mpsc::Sender<Bytes>,
    streams: Streams,
    arrived: Mutex<mpsc::Receiver<Pair>>,
}

#[async_trait]
impl Wire for Fifo {
    async fn open(&self) -> anyhow::Result<Pair> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let (stream, pair) = stream_of(id, self.queue.clone());
        self.streams.lock().await.insert(id, stream);
        Ok(pair)
    }

    async fn accept(&self) -> anyhow::Result<Option<Pair>> {
        Ok(self.arrived.lock().await.recv().await)
    }
}

struct Sending {
    id: u32,
    queue: mpsc::Sender<Bytes>,
}

#[async_trait]
impl Tx for Sending {
    async fn send(&mut self, data: Bytes) -> anyhow::Result<()> {
        let mut chunk = BytesMut::with_capacity(4 + data.len());
        chunk.put_u32(self.id);
        chunk.put(data);
        Ok(self.queue.send(chunk.freeze()).await?)
    }
}

#[async_trait]
impl Rx for mpsc::Receiver<Bytes> {
    async fn recv(&mut self) -> anyhow::Result<Option<Bytes>> {
        Ok(mpsc::Receiver::recv(self).await)
    }
}
