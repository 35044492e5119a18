//! A QUIC connection, and a stream of it for each stream.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, join};

use super::accept::{announce, connect_done, connect_request, dial, each, relay};
use crate::credentials::Credentials;

const ALPN: &[u8] = b"relay";
const SOCKET_BUFFER: usize = 4 << 20;
const STREAM_WINDOW: u32 = 2 << 20;
/// Never what limits: stalled streams keep their part of it.
const CONNECTION_WINDOW: u32 = 1 << 30;
const SEND_WINDOW: u64 = 16 << 20;
const STREAMS: u32 = 20_000;
/// While the other peers have their turn, nothing is sent; after 30 s of that quinn would give the connection up.
const KEEPALIVE: Duration = Duration::from_secs(5);

pub(super) async fn near(listen: SocketAddr, far: SocketAddr, credentials: &Path) -> anyhow::Result<()> {
    let tls = Credentials::in_dir(credentials)?.agent()?.quic_config(&[ALPN]);
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    let any = SocketAddr::new(
        if far.ip().is_loopback() {
            far.ip()
        } else {
            [0, 0, 0, 0].into()
        },
        0,
    );
    let endpoint = endpoint(any, None)?;
    let connection = endpoint.connect_with(config, far, "server.test")?.await?;
    each(listen, |mut client| {
        let connection = connection.clone();
        async move {
            connect_request(&mut client).await?;
            let (mut tx, mut rx) = connection.open_bi().await?;
            // The peer gets to know of a stream by its first byte.
            tx.write_u8(0).await?;
            rx.read_u8().await?;
            connect_done(&mut client).await?;
            relay(client, join(rx, tx)).await
        }
    })
    .await
}

pub(super) async fn far(listen: SocketAddr, target: SocketAddr, credentials: &Path) -> anyhow::Result<()> {
    let tls = Credentials::in_dir(credentials)?.server()?.quic_config(&[ALPN]);
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    let endpoint = endpoint(listen, Some(config))?;
    announce(endpoint.local_addr()?);
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            while let Ok((mut tx, mut rx)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    rx.read_u8().await?;
                    let target = dial(target).await?;
                    tx.write_u8(0).await?;
                    relay(join(rx, tx), target).await
                });
            }
            anyhow::Ok(())
        });
    }
    Ok(())
}

fn endpoint(addr: SocketAddr, config: Option<ServerConfig>) -> anyhow::Result<Endpoint> {
    let socket = UdpSocket::bind(addr)?;
    let options = SockRef::from(&socket);
    options.set_recv_buffer_size(SOCKET_BUFFER)?;
    options.set_send_buffer_size(SOCKET_BUFFER)?;
    Ok(Endpoint::new(
        EndpointConfig::default(),
        config,
        socket,
        Arc::new(TokioRuntime),
    )?)
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .keep_alive_interval(Some(KEEPALIVE));
    Arc::new(transport)
}
