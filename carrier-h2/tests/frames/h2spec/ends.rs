//! What is tested, each on a port of its own and for as long as the test runs.

use bytes::Bytes;
use carrier_h2::{
    H2Config,
    forward::{ALPN, ForwardConfig, ForwardListener},
};
use h2::server;
use http::Response;
use tokio::{
    io::{AsyncRead, AsyncWrite, duplex},
    net::{TcpListener, TcpStream},
};
use tunnel_core::{Listener, mux::MuxConfig, proto::mux::Config};
use tunnel_tcp::ServerSecurity;
use tunnel_testkit::{ends::Verdict, pki::Pki};
use tunnel_tls::ClientAuth;

use super::{
    super::common::raw,
    relay::{Behind, relay},
    report::End,
};

/// How many streams are let through at once: few enough to be exceeded.
const STREAMS: u32 = 100;
/// What is under way in a process.
const BUFFER: usize = 64 * 1024;

fn mux() -> MuxConfig {
    Config::builder().max_streams(STREAMS).build().unwrap().into()
}

/// Serves each connection in its own task.
async fn serving<F>(what: &'static str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> End
where
    F: Future<Output: Send> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client));
        }
    });
    End { what, addr, tls: false }
}

/// The `h2` crate by itself, with the same answer to everything.
pub(super) async fn plain_h2(status: u16, body: &'static str) -> End {
    serving("h2 by itself", move |client| async move {
        let (near, far) = duplex(BUFFER);
        tokio::join!(relay(client, near, Behind::Server), answer(far, status, body));
    })
    .await
}

async fn answer(io: impl AsyncRead + AsyncWrite + Unpin, status: u16, body: &'static str) {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(STREAMS);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else {
        return;
    };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let response = Response::builder().status(status).body(()).unwrap();
        // The client may have left.
        if let Ok(mut tx) = respond.send_response(response, body.is_empty()) {
            let _ = tx.send_data(body.into(), true);
        }
    }
}

/// An agent's listener for plain CONNECT.
pub(super) async fn listener() -> End {
    let addr = listen(ServerSecurity::Plain).addr;
    serving("a listener for plain CONNECT", move |client| async move {
        let end = TcpStream::connect(addr).await.unwrap();
        relay(client, end, Behind::Server).await;
    })
    .await
}

/// One with TLS.
pub(super) fn listener_with_tls(pki: &Pki) -> End {
    listen(ServerSecurity::tls(&pki.server_with(ClientAuth::None), &[ALPN]))
}

fn listen(security: ServerSecurity) -> End {
    let tls = !matches!(security, ServerSecurity::Plain);
    let config = ForwardConfig::builder().mux(mux()).build().unwrap();
    let mut listener = ForwardListener::bind("127.0.0.1:0".parse().unwrap(), security, config).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(connection) = incoming.handshake(&Verdict::default()).await {
                    connection.closed().await;
                }
            });
        }
    });
    End {
        what: "a listener for plain CONNECT with TLS",
        addr,
        tls,
    }
}

/// Agents behind the upgrade, one for each connection.
pub(super) async fn agent() -> End {
    serving("an agent behind the upgrade", |client| {
        let config = H2Config::builder().mux(mux()).build().unwrap();
        // It has the agent's handle until both pipes have ended.
        raw::welcome(config, |io| relay(client, io, Behind::Agent))
    })
    .await
}
