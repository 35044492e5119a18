//! Peers of which the test plays the part, from behind the upgrade on.

use std::sync::Arc;

use bytes::Bytes;
use carrier_h2::PROTOCOL;
use h2::{RecvStream, SendStream, client, server};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, Instant};
use tunnel_core::{Carrier, Connection, DialError, Listener, StreamHead, Welcome};
use tunnel_tcp::{
    Accept, BoxIo, ClientSecurity, Dial,
    upgrade::{ClaimFields, encode, welcome_field},
};
use tunnel_testkit::{
    ends::{Verdict, claim},
    sim::{Net, Profile},
};

use super::World;

/// A real server's handle, and the pipe of an agent that has been welcomed.
pub(crate) async fn agent(world: &mut World) -> (BoxIo, Arc<dyn Connection>) {
    let mut io = world.net.dial(&world.address).await.expect("a pipe").io;
    let mut fields = HeaderMap::new();
    ClaimFields::put(&claim(), &mut fields);
    let request = format!(
        "GET /tunnel HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n{}\r\n",
        lines(&fields)
    );
    let agent = async {
        io.write_all(request.as_bytes()).await.expect("sent");
        assert!(head(&mut io).await.starts_with("HTTP/1.1 101"));
        io
    };
    let server = async {
        let incoming = world.listener.accept().await.expect("an attempt");
        incoming.handshake(&Verdict::default()).await.expect("agreed")
    };
    tokio::join!(agent, server)
}

/// A server that welcomes a real agent by hand and goes on with `serve`. Gives what came of that, and of the dial.
pub(crate) async fn welcome<F: Future>(
    config: carrier_h2::H2Config,
    serve: impl FnOnce(BoxIo) -> F,
) -> (F::Output, Result<Arc<dyn Connection>, DialError>) {
    let net = Net::new(Profile::near());
    let mut accept = net.listen();
    let address = accept.address();
    let mut fields = HeaderMap::new();
    let mut welcome = Welcome::new("server-1".parse().expect("an id"));
    // As many as the agent takes.
    welcome.limits = config.limits();
    welcome_field(&welcome, &mut fields);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n{}\r\n",
        lines(&fields)
    );
    let server = async {
        let mut io = accept.accept().await.expect("a pipe").open().expect("a pipe");
        head(&mut io).await;
        io.write_all(answer.as_bytes()).await.expect("sent");
        serve(io).await
    };
    let carrier = carrier_h2::H2Carrier::new(address, ClientSecurity::Plain, Arc::new(net), config);
    let claim = claim();
    let agent = carrier.dial(&claim, Instant::now() + Duration::from_secs(10));
    tokio::join!(server, agent)
}

/// A real agent, and the pipe of a server that has welcomed it and gone on with `bytes`.
pub(crate) async fn server(bytes: &[u8]) -> (BoxIo, Result<Arc<dyn Connection>, DialError>) {
    welcome(carrier_h2::H2Config::default(), |mut io| async move {
        io.write_all(bytes).await.expect("sent");
        io.flush().await.expect("sent");
        io
    })
    .await
}

fn lines(fields: &HeaderMap) -> String {
    let line = |(name, value): (_, &http::HeaderValue)| format!("{name}: {}\r\n", value.to_str().expect("ASCII"));
    fields.iter().map(line).collect()
}

/// Reads to the end of a head.
pub(crate) async fn head(io: &mut BoxIo) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).expect("ASCII")
}

/// An agent's HTTP/2, behind the control request.
pub(crate) struct RawAgent {
    pub(crate) connection: server::Connection<BoxIo, Bytes>,
    pub(crate) control_tx: SendStream<Bytes>,
    pub(crate) control_rx: RecvStream,
}

/// Begins HTTP/2 as an agent that takes 16 streams.
pub(crate) async fn begin_agent(io: BoxIo) -> RawAgent {
    let mut connection = server::handshake(io).await.expect("HTTP/2");
    let (request, mut respond) = connection.accept().await.expect("a request").expect("a request");
    assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/control"));
    let mut response = Response::new(());
    response.headers_mut().insert("tunnel-max-streams", 16.into());
    let control_tx = respond.send_response(response, false).expect("answered");
    RawAgent {
        connection,
        control_tx,
        control_rx: request.into_body(),
    }
}

/// A server's HTTP/2, with the control stream open. Its connection is driven by a task.
pub(crate) struct RawServer {
    pub(crate) requests: client::SendRequest<Bytes>,
    pub(crate) control_tx: SendStream<Bytes>,
    pub(crate) control_rx: RecvStream,
    /// How the connection ends.
    pub(crate) ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// A real agent, and HTTP/2 as its server.
pub(crate) async fn begin_server(config: carrier_h2::H2Config) -> (RawServer, Arc<dyn Connection>) {
    let (server, agent) = welcome(config, |io| async move {
        let mut http2 = client::Builder::new();
        http2.max_concurrent_reset_streams(100_000);
        let (mut requests, connection) = http2.handshake(io).await.expect("HTTP/2");
        let ended = tokio::spawn(connection);
        let (response, control_tx) = requests.send_request(control(), false).expect("sent");
        let response = response.await.expect("answered");
        assert!(response.headers().contains_key("tunnel-max-streams"));
        RawServer {
            requests,
            control_tx,
            control_rx: response.into_body(),
            ended,
        }
    })
    .await;
    (server, agent.expect("welcomed"))
}

/// The first request.
pub(crate) fn control() -> Request<()> {
    Request::post("http://tunnel/control").body(()).expect("a request")
}

/// A request that opens a stream.
pub(crate) fn open(head: &StreamHead) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "target.test:80".parse().expect("an authority");
    request.headers_mut().insert("tunnel-head", encode(&head.encode()));
    request
}

/// A real agent, and a server that leaves behind its welcome.
pub(crate) async fn server_that_leaves() -> ((), Result<Arc<dyn Connection>, DialError>) {
    welcome(carrier_h2::H2Config::default(), |mut io| async move {
        // What was written arrives first.
        let _ = io.shutdown().await;
    })
    .await
}
