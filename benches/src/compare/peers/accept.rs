//! The first hop's clients.

use std::{future::Future, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::client::read_head;

/// The buffers that a relay copies through.
pub(super) const BUFFER: usize = 64 * 1024;

/// Says where it listens, and serves each connection in a task of its own.
pub(super) async fn each<F, S>(listen: SocketAddr, mut serve: F) -> anyhow::Result<()>
where
    F: FnMut(TcpStream) -> S,
    S: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await?;
    announce(listener.local_addr()?);
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                socket.set_nodelay(true)?;
                // A stream that breaks is noticed by its ends.
                tokio::spawn(serve(socket));
            }
            // Descriptors have run out; some will be free again.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[allow(clippy::print_stdout)] // it is how the other hop finds it
pub(super) fn announce(addr: SocketAddr) {
    println!("listening on {addr}");
}

/// Reads the CONNECT. Where to is not looked at: a relay has one target.
pub(super) async fn connect_request(client: &mut TcpStream) -> anyhow::Result<()> {
    let head = read_head(client).await?;
    anyhow::ensure!(
        head.starts_with("CONNECT "),
        "a client asks for something else than CONNECT"
    );
    Ok(())
}

/// Tells the client that the target is reached.
pub(super) async fn connect_done(client: &mut TcpStream) -> anyhow::Result<()> {
    Ok(client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?)
}

/// Connects to the target.
pub(super) async fn dial(target: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(target).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Copies both ways until both have ended.
pub(super) async fn relay<A, B>(mut a: A, mut b: B) -> anyhow::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::io::copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER).await?;
    Ok(())
}
