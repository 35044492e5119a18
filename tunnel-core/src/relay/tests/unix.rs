//! A socket that can give up reading alone.

use std::net::Shutdown;

use tokio::{io::AsyncWriteExt, net::UnixStream};

use super::*;

#[tokio::test]
async fn a_socket_that_reads_no_more_may_still_send() {
    let (far, near) = UnixStream::pair().unwrap();
    let far = far.into_std().unwrap();
    far.shutdown(Shutdown::Read).unwrap();
    let mut far = UnixStream::from_std(far).unwrap();
    let (stream, mut peer) = pair(4096);
    let relay = tokio::spawn(relay(near, Bytes::new(), stream, RelayOptions::new(Party::Client)));

    peer.tx
        .send_all(Bytes::from_static(b"nobody reads this"))
        .await
        .unwrap();
    assert_eq!(peer.tx.stopped().await.unwrap(), StreamCode::TARGET_RESET);
    far.write_all(b"still sending").await.unwrap();
    drop(far);
    assert_eq!(recv_all(&mut peer).await.unwrap(), b"still sending");
    let report = relay.await.unwrap();
    assert_eq!(report.to_string(), "the client closed before it had read everything");
}
