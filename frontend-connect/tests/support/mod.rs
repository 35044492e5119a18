//! An opener whose dials the test answers itself, and clients.

#![allow(dead_code, reason = "every test program uses only a part of it")]

pub(crate) mod pipe;
pub(crate) mod pki;

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use async_trait::async_trait;
use frontend_connect::{Config, ConnectFrontend, Endpoint, Metrics, Shutdown};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tunnel_core::{Duplex, OpenFailure, OpenRequest, Opened, Opener, Refusal, RefusalKind};

/// Hands every dial to the test.
#[derive(Debug)]
pub(crate) struct ManualOpener(mpsc::Sender<Dial>);

/// A dial that waits for its answer.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) request: OpenRequest,
    answer: oneshot::Sender<Result<Opened, OpenFailure>>,
}

impl ManualOpener {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Dial>) {
        let (tx, rx) = mpsc::channel(1024);
        (Arc::new(Self(tx)), rx)
    }
}

#[async_trait]
impl Opener for ManualOpener {
    async fn open(&self, request: OpenRequest) -> Result<Opened, OpenFailure> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Dial { request, answer }).await.unwrap();
        let dropped = |_| {
            let refusal = Refusal::new(RefusalKind::ProxyInternalError, "the test has dropped the dial");
            Err(OpenFailure { refusal, agent: None })
        };
        answered.await.unwrap_or_else(dropped)
    }
}

impl Dial {
    /// Answers that the target was reached, and gives the target's end, which sees no early bytes yet.
    pub(crate) fn accept(self) -> Duplex {
        self.accept_with(0)
    }

    /// The same, on a wire that brings `most` of the early bytes with the head.
    pub(crate) fn accept_with(self, most: usize) -> Duplex {
        self.accept_at(most, None)
    }

    /// The same, with the home of the stream's connection.
    pub(crate) fn accept_at(self, most: usize, home: Option<Handle>) -> Duplex {
        let (mut near, far) = pipe::duplex();
        let mut left = self.request.early;
        let mut first = left.split_to(most.min(left.len()));
        let sent = near.tx.poll_send(&mut Context::from_waker(Waker::noop()), &mut first);
        assert!(sent.is_ready() && first.is_empty());
        let opened = Opened::new(near, "node-7".parse().unwrap(), left);
        self.answer.send(Ok(opened.at_home(home))).unwrap();
        far
    }

    /// Refuses in the name of an agent.
    pub(crate) fn refuse(self, kind: RefusalKind, text: &str) {
        let failure = OpenFailure {
            refusal: Refusal::new(kind, text),
            agent: Some("node-7".parse().unwrap()),
        };
        self.answer.send(Err(failure)).unwrap();
    }

    /// Resolves when nobody waits for the answer any more.
    pub(crate) async fn given_up(mut self) {
        self.answer.closed().await;
    }
}

/// A frontend that runs.
pub(crate) struct Running {
    pub(crate) endpoint: Endpoint,
    pub(crate) dials: mpsc::Receiver<Dial>,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(endpoint: Endpoint, config: Config) -> Self {
        Self::serve(ConnectFrontend::bind(endpoint, config).await.unwrap())
    }

    fn serve(frontend: ConnectFrontend) -> Self {
        let (opener, dials) = ManualOpener::new();
        let endpoint = frontend.endpoint().clone();
        let shutdown = Shutdown::default();
        let task = tokio::spawn(frontend.serve(opener, shutdown.clone()));
        Self {
            endpoint,
            dials,
            shutdown,
            task,
        }
    }

    pub(crate) async fn tcp(config: Config) -> Self {
        Self::with_metrics(config, Metrics::default()).await
    }

    pub(crate) async fn with_metrics(config: Config, metrics: Metrics) -> Self {
        let endpoint = Endpoint::Tcp("127.0.0.1:0".parse().unwrap());
        let frontend = ConnectFrontend::bind(endpoint, config).await.unwrap();
        Self::serve(frontend.with_metrics(metrics))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match &self.endpoint {
            Endpoint::Tcp(addr) | Endpoint::Tls(addr, _) => *addr,
            other => panic!("{other}"),
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr()).await.unwrap()
    }

    pub(crate) async fn dial(&mut self) -> Dial {
        soon(self.dials.recv()).await.unwrap()
    }

    /// A client whose tunnel stands, and the target's end.
    pub(crate) async fn tunnel(&mut self) -> (TcpStream, Duplex) {
        let mut client = self.connect().await;
        client.write_all(REQUEST).await.unwrap();
        let far = self.dial().await.accept();
        read_200(&mut client).await;
        (client, far)
    }
}

pub(crate) fn config() -> Config {
    Config::new("gw-1".parse().unwrap())
}

/// What kube-apiserver sends.
pub(crate) const REQUEST: &[u8] = b"CONNECT 10.0.0.1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

/// Fails the test instead of letting it hang.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it should have happened by now")
}

/// Reads exactly the 200.
pub(crate) async fn read_200<S: AsyncRead + Unpin>(client: &mut S) {
    let mut answer = vec![0; b"HTTP/1.1 200 Connection established\r\n\r\n".len()];
    soon(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        "HTTP/1.1 200 Connection established\r\n\r\n"
    );
}

/// Sends bytes and reads everything up to the end.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(client: &mut S, bytes: &[u8]) -> String {
    client.write_all(bytes).await.unwrap();
    read_to_end(client).await
}

pub(crate) async fn read_to_end<S: AsyncRead + Unpin>(client: &mut S) -> String {
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Moves some megabytes in both directions at once, to the clean ends.
pub(crate) async fn move_both_ways<S>(client: S, far: Duplex)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let data: Vec<u8> = (0..512 * 1024u32).flat_map(u32::to_le_bytes).collect();
    let (client_rx, client_tx) = tokio::io::split(client);
    let (far_rx, far_tx) = tokio::io::split(far.into_io());
    let moved = async {
        tokio::join!(
            send_all(client_tx, &data),
            send_all(far_tx, &data),
            read_all(client_rx),
            read_all(far_rx)
        )
    };
    let ((), (), to_client, to_target) = soon(moved).await;
    assert!(to_client == data && to_target == data);
}

async fn send_all<W: AsyncWrite + Unpin>(mut writer: W, data: &[u8]) {
    writer.write_all(data).await.unwrap();
    writer.shutdown().await.unwrap();
}

async fn read_all<R: AsyncRead + Unpin>(mut reader: R) -> Vec<u8> {
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    received
}

/// The status code of a response, after a check of its form.
#[track_caller]
pub(crate) fn status(response: &str) -> u16 {
    let (head, body) = response.split_once("\r\n\r\n").expect(response);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .expect(response);
    assert_eq!(length, body.len().to_string(), "{response}");
    assert!(head.contains("\r\nConnection: close\r\n"), "{response}");
    assert!(head.contains("\r\nProxy-Status: "), "{response}");
    assert!(body.ends_with('\n') && body.lines().count() == 1, "{response}");
    response
        .strip_prefix("HTTP/1.1 ")
        .expect(response)
        .get(..3)
        .expect(response)
        .parse()
        .expect(response)
}
