//! The tunnel inside an HTTP server that is there already.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use carrier_ws::{WsAcceptor, WsCarrier, WsConfig, WsMounted};
use common::request;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, CloseCode, Connection, DialError, HandshakeError, Identity, Listener,
    Rejection,
};
use tunnel_tcp::{Accept, Dial};
use tunnel_testkit::ends::{Verdict, claim, echo, handshake};
use tunnel_testkit::sim::{Net, Profile};

/// Those who come to the server.
struct Clients {
    net: Net,
    port: u16,
    carrier: WsCarrier,
}

/// A server with one page and a tunnel.
fn server() -> (Clients, WsMounted) {
    let net = Net::new(Profile::default());
    let mut socket = net.listen();
    let addr = socket.local_addr().unwrap();
    let (acceptor, mounted) = WsAcceptor::new(addr, WsConfig::default());
    tokio::spawn(async move {
        while let Ok(accepted) = socket.accept().await {
            let acceptor = acceptor.clone();
            let remote_addr = accepted.remote_addr;
            let service = service_fn(move |request| {
                let acceptor = acceptor.clone();
                async move {
                    Ok::<_, Infallible>(match request.uri().path() {
                        "/gateway" => acceptor.upgrade(request, remote_addr, Identity::anonymous()).await,
                        _ => Response::new("a page".into()),
                    })
                }
            });
            let http = http1::Builder::new().serve_connection(TokioIo::new(accepted.open().unwrap()), service);
            tokio::spawn(http.with_upgrades());
        }
    });
    let url = format!("ws://server.test:{}/gateway", addr.port()).parse().unwrap();
    let carrier = WsCarrier::new(url, None, Arc::new(net.clone()), WsConfig::default()).unwrap();
    let port = addr.port();
    (Clients { net, port, carrier }, mounted)
}

impl Clients {
    /// All that the server says to some bytes.
    async fn ask(&self, bytes: &[u8]) -> String {
        let server = format!("server.test:{}", self.port).parse().unwrap();
        let mut io = self.net.dial(&server).await.unwrap().io;
        io.write_all(bytes).await.unwrap();
        io.flush().await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn dial(&self) -> Result<Arc<dyn Connection>, DialError> {
        self.carrier
            .dial(&claim(), Instant::now() + Duration::from_secs(10))
            .await
    }

    /// The code with which an agent is turned away.
    async fn rejection(&self) -> CloseCode {
        match self.dial().await.unwrap_err() {
            DialError::Rejected { rejection, .. } => rejection.code,
            error => panic!("{error:?}"),
        }
    }
}

async fn accept(mounted: &mut WsMounted) -> Result<Arc<dyn Connection>, HandshakeError> {
    handshake(mounted, &Verdict::default()).await
}

#[tokio::test(start_paused = true)]
async fn pages_and_a_tunnel_share_a_port() {
    let (clients, mut mounted) = server();
    let page = clients
        .ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert!(page.ends_with("a page"), "{page}");
    let (agent, server) = tokio::join!(clients.dial(), accept(&mut mounted));
    let (agent, server) = (agent.unwrap(), server.unwrap());
    assert_eq!(server.peer().claim().unwrap().agent.as_str(), "node-7");
    echo(&agent, &server, 300_000).await;
    echo(&server, &agent, 300_000).await;
    drop(mounted);
    echo(&agent, &server, 1000).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_no_upgrade_is_answered() {
    let (clients, mut mounted) = server();
    let (answer, server) = tokio::join!(
        clients.ask(b"GET /gateway HTTP/1.1\r\nHost: x\r\n\r\n"),
        accept(&mut mounted)
    );
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(matches!(server, Err(HandshakeError::Lost(_))), "{server:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_arrives() {
    let (clients, mut mounted) = server();
    let verdict = Verdict::reject(Rejection::new(CloseCode::CONFLICT, "there is another"));
    let (code, server) = tokio::join!(clients.rejection(), handshake(&mut mounted, &verdict));
    assert_eq!(code, CloseCode::CONFLICT);
    assert!(matches!(server, Err(HandshakeError::Rejected(_))), "{server:?}");
}

/// An attempt that nobody judges does not wait for ever.
#[tokio::test(start_paused = true)]
async fn whoever_cannot_be_judged_is_told_why() {
    let (clients, mut mounted) = server();
    let (code, ()) = tokio::join!(clients.rejection(), async {
        mounted.accept().await.unwrap().refuse();
    });
    assert_eq!(code, CloseCode::OVERLOADED);
    let (code, ()) = tokio::join!(clients.rejection(), async { drop(mounted.accept().await.unwrap()) });
    assert_eq!(code, CloseCode::TIMEOUT);
    drop(mounted);
    assert_eq!(clients.rejection().await, CloseCode::SHUTDOWN);
}

/// While the tunnel's server looks at nobody, requests do not pile up.
#[tokio::test(start_paused = true)]
async fn those_who_wait_are_bounded() {
    let (clients, mounted) = server();
    let clients = Arc::new(clients);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let clients = Arc::clone(&clients);
        asking.spawn(async move { clients.ask(&request("GET /gateway HTTP/1.1", &[])).await });
    }
    let mut turned_away = 0;
    while let Ok(answer) = timeout(Duration::from_secs(1), asking.join_next()).await {
        let answer = answer.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        turned_away += 1;
    }
    assert_eq!(turned_away, 1000 - 256);
    drop(mounted);
}

/// A client that goes away while it is judged takes no place any more.
#[tokio::test(start_paused = true)]
async fn an_attempt_ends_with_its_client() {
    let (clients, mut mounted) = server();
    let attempt = timeout(Duration::from_secs(1), clients.dial());
    let (attempt, server) = tokio::join!(attempt, handshake(&mut mounted, &Undecided));
    attempt.unwrap_err();
    assert!(matches!(server, Err(HandshakeError::Lost(_))), "{server:?}");
}

/// It never comes to a verdict.
#[derive(Debug)]
struct Undecided;

#[async_trait]
impl Admission for Undecided {
    async fn admit(&self, _: &Arrival) -> Result<Admitted, Rejection> {
        std::future::pending().await
    }
}
