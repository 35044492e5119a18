//! An HTTP/2 connection over TLS, and a stream of it for each stream.

use std::{future::poll_fn, net::SocketAddr, path::Path};

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client, server};
use http::{Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::accept::{BUFFER, connect_done, connect_request, dial, each};
use crate::credentials::Credentials;

const ALPN: &[u8] = b"h2";
const STREAM_WINDOW: u32 = 8 << 20;
/// Never what limits: stalled streams keep their part of it.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const MAX_FRAME: u32 = 64 << 10;
const SEND_BUFFER: usize = 1 << 20;
const STREAMS: u32 = 20_000;

pub(super) async fn near(listen: SocketAddr, far: SocketAddr, credentials: &Path) -> anyhow::Result<()> {
    let tls = Credentials::in_dir(credentials)?.agent()?;
    let name = tls.server_name("server.test")?;
    let io = TlsConnector::from(tls.tcp_config(&[ALPN]))
        .connect(name, dial(far).await?)
        .await?;
    let (requests, connection) = client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .initial_max_send_streams(STREAMS as usize)
        .handshake::<_, Bytes>(io)
        .await?;
    tokio::spawn(connection);
    each(listen, |mut client| {
        let requests = requests.clone();
        async move {
            connect_request(&mut client).await?;
            let mut requests = requests.ready().await?;
            let request = Request::connect("target.test:80").body(())?;
            let (response, tx) = requests.send_request(request, false)?;
            let response = response.await?;
            ensure!(response.status() == StatusCode::OK, "the second hop refuses");
            connect_done(&mut client).await?;
            relay(client, tx, response.into_body()).await
        }
    })
    .await
}

pub(super) async fn far(listen: SocketAddr, target: SocketAddr, credentials: &Path) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Credentials::in_dir(credentials)?.server()?.tcp_config(&[ALPN]));
    each(listen, |socket| {
        let acceptor = acceptor.clone();
        async move {
            let mut connection = server::Builder::new()
                .initial_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(MAX_FRAME)
                .max_send_buffer_size(SEND_BUFFER)
                .max_concurrent_streams(STREAMS)
                .handshake::<_, Bytes>(acceptor.accept(socket).await?)
                .await?;
            while let Some(request) = connection.accept().await {
                let (request, mut respond) = request?;
                tokio::spawn(async move {
                    let target = dial(target).await?;
                    let tx = respond.send_response(Response::new(()), false)?;
                    relay(target, tx, request.into_body()).await
                });
            }
            Ok(())
        }
    })
    .await
}

async fn relay(mut socket: TcpStream, tx: SendStream<Bytes>, rx: RecvStream) -> anyhow::Result<()> {
    let (read, write) = socket.split();
    tokio::try_join!(send(read, tx), receive(write, rx))?;
    Ok(())
}

async fn send(mut read: impl AsyncRead + Unpin, mut tx: SendStream<Bytes>) -> anyhow::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        // Given back when what was sent of it before is on the wire.
        buffer.reserve(BUFFER);
        if read.read_buf(&mut buffer).await? == 0 {
            return Ok(tx.send_data(Bytes::new(), true)?);
        }
        let mut data = buffer.split().freeze();
        while !data.is_empty() {
            // Only now: credit that is reserved before there is data keeps others waiting.
            tx.reserve_capacity(data.len());
            let capacity = poll_fn(|cx| tx.poll_capacity(cx))
                .await
                .context("the stream has ended")??;
            tx.send_data(data.split_to(capacity.min(data.len())), false)?;
        }
    }
}

async fn receive(mut write: impl AsyncWrite + Unpin, mut rx: RecvStream) -> anyhow::Result<()> {
    while let Some(data) = rx.data().await {
        let data = data?;
        write.write_all(&data).await?;
        rx.flow_control().release_capacity(data.len())?;
    }
    Ok(write.shutdown().await?)
}
