//! From hyper's connection back to the byte pipe below.

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tunnel_tcp::BoxIo;

/// The pipe itself where its type is known, so that nothing is between it and the link, and what hyper has read beyond
/// the upgrade.
pub(crate) fn recover(upgraded: Upgraded) -> (BoxIo, Bytes) {
    let upgraded = match upgraded.downcast::<TokioIo<BoxIo>>() {
        Ok(parts) => return (parts.io.into_inner(), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (Box::new(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => (Box::new(TokioIo::new(upgraded)), Bytes::new()),
    }
}
