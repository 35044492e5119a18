//! A TLS connection for each stream.

use std::{net::SocketAddr, path::Path};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::accept::{connect_done, connect_request, dial, each, relay};
use crate::credentials::Credentials;

const ALPN: &[u8] = b"relay";

pub(super) async fn near(listen: SocketAddr, far: SocketAddr, credentials: &Path) -> anyhow::Result<()> {
    let tls = Credentials::in_dir(credentials)?.agent()?;
    let name = tls.server_name("server.test")?;
    let connector = TlsConnector::from(tls.tcp_config(&[ALPN]));
    each(listen, |mut client| {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            connect_request(&mut client).await?;
            let mut stream = connector.connect(name, dial(far).await?).await?;
            // The second hop has reached the target.
            stream.read_u8().await?;
            connect_done(&mut client).await?;
            relay(client, stream).await
        }
    })
    .await
}

pub(super) async fn far(listen: SocketAddr, target: SocketAddr, credentials: &Path) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Credentials::in_dir(credentials)?.server()?.tcp_config(&[ALPN]));
    each(listen, |socket| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(socket).await?;
            let target = dial(target).await?;
            stream.write_u8(0).await?;
            stream.flush().await?;
            relay(stream, target).await
        }
    })
    .await
}
