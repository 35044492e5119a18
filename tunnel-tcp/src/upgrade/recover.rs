//! From hyper's connection back to the byte pipe below.

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::BoxIo;

/// The pipe itself where its type is known ([`BoxIo`] or [`TcpStream`]), so that nothing is between it and what is spoken
/// after the upgrade; and what hyper has read beyond the upgrade.
#[must_use]
pub fn recover(upgraded: Upgraded) -> (BoxIo, Bytes) {
    let upgraded = match upgraded.downcast::<TokioIo<BoxIo>>() {
        Ok(parts) => return (parts.io.into_inner(), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (Box::new(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => (Box::new(TokioIo::new(upgraded)), Bytes::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Mutex};

    use http::{Request, Response, StatusCode};
    use http_body_util::Empty;
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use tokio::io::{AsyncWrite, AsyncWriteExt, duplex};

    use super::*;

    /// Else each payload would be copied once more.
    #[tokio::test]
    async fn the_pipe_comes_back_as_it_was() {
        let (near, mut far) = duplex(1000);
        let near: BoxIo = Box::new(near);
        let upgrade = Mutex::new(None);
        let service = service_fn(async |mut request: Request<Incoming>| {
            *upgrade.lock().unwrap() = Some(hyper::upgrade::on(&mut request));
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            Ok::<_, Infallible>(response)
        });
        let request = b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nand more";
        far.write_all(request).await.unwrap();
        let served = http1::Builder::new().serve_connection(TokioIo::new(near), service);
        served.with_upgrades().await.unwrap();
        let upgrade = upgrade.into_inner().unwrap().unwrap();
        let (pipe, ahead) = recover(upgrade.await.unwrap());
        assert_eq!(ahead, "and more");
        assert!(
            pipe.is_write_vectored() && format!("{pipe:?}").starts_with("DuplexStream"),
            "{pipe:?}"
        );
    }
}
