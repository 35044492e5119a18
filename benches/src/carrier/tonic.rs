//! One bidirectional call by tonic, over hyper and TLS, whose messages are the bytes as they are.

use std::{convert::Infallible, task};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2::SendRequest, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tower_service::Service;

use super::{Pair, Rx, Tx, bare::Io};

/// Messages that wait for tonic: what a call's queue of 128 KiB holds in the carrier.
const QUEUE: usize = 2;

/// As the carrier's: never what limits.
const WINDOW: u32 = 64 << 20;
const MAX_FRAME: u32 = 128 << 10;

type Queue = mpsc::Sender<Result<Bytes, Status>>;

pub(super) async fn serve(io: Io) -> anyhow::Result<Pair> {
    let (calls, mut called) = mpsc::channel::<Pair>(1);
    let service = service_fn(move |request: Request<Incoming>| {
        let call = Call(calls.clone());
        async move { Ok::<_, Infallible>(tonic::server::Grpc::new(Raw).streaming(call, request).await) }
    });
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MAX_FRAME);
    tokio::spawn(http.serve_connection(TokioIo::new(io), service));
    called
        .recv()
        .await
        .context("the connection ended before there was a call")
}

pub(super) async fn call(io: Io) -> anyhow::Result<Pair> {
    let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MAX_FRAME);
    let (sender, connection) = http.handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection);
    let mut client = tonic::client::Grpc::with_origin(Client(sender), Uri::from_static("https://server.test"));
    client.ready().await?;
    let (queue, queued) = mpsc::channel(QUEUE);
    let messages = ReceiverStream::new(queued).map(|message: Result<Bytes, Status>| message.unwrap_or_default());
    let path = PathAndQuery::from_static("/bench/Exchange");
    let response = client.streaming(tonic::Request::new(messages), path, Raw).await?;
    Ok((Box::new(queue), Box::new(response.into_inner())))
}

/// The call at the server.
struct Call(mpsc::Sender<Pair>);

impl tonic::server::StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let calls = self.0.clone();
        Box::pin(async move {
            let (queue, queued) = mpsc::channel(QUEUE);
            let pair: Pair = (Box::new(queue), Box::new(request.into_inner()));
            calls
                .send(pair)
                .await
                .map_err(|_| Status::resource_exhausted("one call only"))?;
            Ok(tonic::Response::new(ReceiverStream::new(queued)))
        })
    }
}

/// hyper's side of a connection as the service that tonic wants.
struct Client(SendRequest<Body>);

impl Service<Request<Body>> for Client {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, hyper::Result<Self::Response>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}

#[async_trait]
impl Tx for Queue {
    async fn send(&mut self, data: Bytes) -> anyhow::Result<()> {
        Ok(mpsc::Sender::send(self, Ok(data)).await?)
    }
}

#[async_trait]
impl Rx for Streaming<Bytes> {
    async fn recv(&mut self) -> anyhow::Result<Option<Bytes>> {
        Ok(self.message().await?)
    }
}

/// Messages that are not protobuf.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buf.copy_to_bytes(buf.remaining())))
    }
}
