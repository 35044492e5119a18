//! The protocols that the carriers are made of, bare: one exchange on each connection, nothing between it and the crate.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async, tungstenite::Message};

use super::{CHUNK, Dial, Handshake, Kind, Listen, Pair, Rx, Tx, Wire, fifo, tonic};
use crate::credentials::Credentials;

/// A TCP connection with TLS.
pub(super) type Io = TlsStream<TcpStream>;

pub(super) async fn listen(kind: Kind, credentials: &Credentials) -> anyhow::Result<Box<dyn Listen>> {
    Ok(Box::new(BareListener {
        kind,
        listener: TcpListener::bind(("127.0.0.1", 0)).await?,
        tls: credentials.server()?.tcp_config(&[alpn(kind)]).into(),
    }))
}

pub(super) fn dialler(kind: Kind, server: SocketAddr, credentials: &Credentials) -> anyhow::Result<Box<dyn Dial>> {
    let tls = credentials.agent()?;
    Ok(Box::new(BareDialler {
        kind,
        server,
        name: tls.server_name("server.test")?,
        tls: tls.tcp_config(&[alpn(kind)]).into(),
    }))
}

fn alpn(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::BareGrpc => b"h2",
        _ => b"http/1.1",
    }
}

fn set_up(kind: Kind, socket: &TcpStream) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    if kind == Kind::Fifo {
        // As the carriers have it, for only the scheduler is to make the difference.
        socket2::SockRef::from(socket).set_tcp_notsent_lowat(128 * 1024)?;
    }
    Ok(())
}

struct BareListener {
    kind: Kind,
    listener: TcpListener,
    tls: TlsAcceptor,
}

#[async_trait]
impl Listen for BareListener {
    fn addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    async fn accept(&mut self) -> anyhow::Result<Handshake> {
        let (socket, _) = self.listener.accept().await?;
        set_up(self.kind, &socket)?;
        let (kind, tls) = (self.kind, self.tls.clone());
        Ok(Box::pin(async move {
            let io = Io::from(tls.accept(socket).await?);
            Ok(match kind {
                Kind::BareWs => single(messages(accept_async(io).await?)),
                Kind::Fifo => fifo::wire(accept_async(io).await?, false),
                Kind::BareGrpc => single(tonic::serve(io).await?),
                _ => single(bytes(io)),
            })
        }))
    }
}

struct BareDialler {
    kind: Kind,
    server: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
}

#[async_trait]
impl Dial for BareDialler {
    async fn dial(&self) -> anyhow::Result<Arc<dyn Wire>> {
        let socket = TcpStream::connect(self.server).await?;
        set_up(self.kind, &socket)?;
        let io = Io::from(self.tls.connect(self.name.clone(), socket).await?);
        let url = "ws://server.test/";
        Ok(match self.kind {
            Kind::BareWs => single(messages(client_async(url, io).await?.0)),
            Kind::Fifo => fifo::wire(client_async(url, io).await?.0, true),
            Kind::BareGrpc => single(tonic::call(io).await?),
            _ => single(bytes(io)),
        })
    }
}

/// A connection that is its only stream.
struct Single(Mutex<Option<Pair>>);

fn single(pair: Pair) -> Arc<dyn Wire> {
    Arc::new(Single(Mutex::new(Some(pair))))
}

#[async_trait]
impl Wire for Single {
    async fn open(&self) -> anyhow::Result<Pair> {
        self.0.lock().await.take().context("there is one stream only")
    }

    async fn accept(&self) -> anyhow::Result<Option<Pair>> {
        Ok(self.0.lock().await.take())
    }
}

fn bytes(io: Io) -> Pair {
    let (read, write) = tokio::io::split(io);
    (Box::new(write), Box::new(Bytewise(read, BytesMut::new())))
}

#[async_trait]
impl Tx for WriteHalf<Io> {
    async fn send(&mut self, data: Bytes) -> anyhow::Result<()> {
        self.write_all(&data).await?;
        Ok(self.flush().await?)
    }
}

struct Bytewise(ReadHalf<Io>, BytesMut);

#[async_trait]
impl Rx for Bytewise {
    async fn recv(&mut self) -> anyhow::Result<Option<Bytes>> {
        // Reclaimed when the caller has dropped what it was given.
        self.1.reserve(CHUNK);
        let len = self.0.read_buf(&mut self.1).await?;
        Ok((len > 0).then(|| self.1.split().freeze()))
    }
}

fn messages(socket: WebSocketStream<Io>) -> Pair {
    let (tx, rx) = socket.split();
    (Box::new(tx), Box::new(rx))
}

#[async_trait]
impl Tx for SplitSink<WebSocketStream<Io>, Message> {
    async fn send(&mut self, data: Bytes) -> anyhow::Result<()> {
        Ok(SinkExt::send(self, Message::Binary(data)).await?)
    }
}

#[async_trait]
impl Rx for SplitStream<WebSocketStream<Io>> {
    async fn recv(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(message) = self.next().await {
            if let Message::Binary(data) = message? {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
