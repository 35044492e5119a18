//! The `h2` crate by itself, on the same network.

use std::time::Duration;

use bytes::Bytes;
use h2::{client, server};
use http::Response;
use tokio::{io::AsyncWriteExt, time::sleep};
use tunnel_tcp::{Accept, BoxIo, Dial};
use tunnel_testkit::sim::{Net, Profile};

use super::raw;

/// Far more than a round trip.
const A_WHILE: Duration = Duration::from_millis(100);

/// The two ends of a pipe.
async fn pipe() -> (BoxIo, BoxIo) {
    let net = Net::new(Profile::near());
    let mut listener = net.listen();
    let near = net.dial(&listener.address()).await.unwrap().io;
    (near, listener.accept().await.unwrap().open().unwrap())
}

/// A server that answers everything and ends nothing, after these bytes.
pub(crate) async fn server(begin: &[u8]) -> BoxIo {
    let (mut near, far) = pipe().await;
    near.write_all(begin).await.unwrap();
    tokio::spawn(async move {
        let mut connection = server::handshake(far).await.unwrap();
        let mut held = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let answered = respond.send_response(Response::new(()), false);
            held.push((request, respond, answered));
        }
    });
    sleep(A_WHILE).await;
    near
}

/// A client that wants nothing pushed and has sent one request.
pub(crate) async fn client() -> BoxIo {
    let (near, far) = pipe().await;
    tokio::spawn(async move {
        let (mut requests, connection) = client::Builder::new().enable_push(false).handshake(far).await.unwrap();
        let request = requests.send_request(raw::control(), false).unwrap();
        let _: Result<(), h2::Error> = connection.await;
        drop::<(client::SendRequest<Bytes>, _)>((requests, request));
    });
    sleep(A_WHILE).await;
    near
}
