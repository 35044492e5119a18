//! A client that does what no agent does.

use bytes::{BufMut, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};
use tokio::task::JoinHandle;
use tunnel_core::HostPort;
use tunnel_tcp::Dial;
use tunnel_testkit::sim::Net;

/// A HTTP/2 connection in clear text.
pub(crate) struct Raw {
    pub(crate) http: SendRequest<Bytes>,
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// A call, and what it is answered.
pub(crate) struct Call {
    pub(crate) tx: SendStream<Bytes>,
    pub(crate) response: ResponseFuture,
}

impl Raw {
    pub(crate) async fn new(net: &Net, address: &HostPort) -> Self {
        let io = net.dial(address).await.expect("a pipe").io;
        let (http, connection) = h2::client::handshake(io).await.expect("HTTP/2");
        Self {
            http,
            connection: tokio::spawn(connection),
        }
    }

    /// Begins a call of the tunnel's method with these headers beside the usual ones.
    pub(crate) async fn call(&mut self, headers: HeaderMap) -> Call {
        let mut request = request("POST", carrier_grpc::METHOD, "application/grpc");
        request.headers_mut().extend(headers);
        self.send(request).await
    }

    pub(crate) async fn send(&mut self, request: Request<()>) -> Call {
        let mut http = self.http.clone().ready().await.expect("room for a call");
        let (response, tx) = http.send_request(request, false).expect("a call");
        Call { tx, response }
    }
}

impl Call {
    /// Headers and trailers of the answer, and the messages between, without gRPC's prefix.
    pub(crate) async fn whole(self) -> (Response<()>, Vec<Bytes>, HeaderMap) {
        let (head, body) = self.response.await.expect("an answer").into_parts();
        let (messages, trailers) = read(body).await.expect("a whole answer");
        (Response::from_parts(head, ()), messages, trailers)
    }

    /// The status and, where it is in the headers, all else that is there.
    pub(crate) async fn status(self) -> (String, HeaderMap) {
        let (head, _, trailers) = self.whole().await;
        let mut headers = head.headers().clone();
        headers.extend(trailers);
        let status = headers.get("grpc-status").expect("a status");
        (status.to_str().expect("a number").to_owned(), headers)
    }
}

/// Reads a body to its end.
pub(crate) async fn read(mut body: RecvStream) -> Result<(Vec<Bytes>, HeaderMap), h2::Error> {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    let mut messages = Vec::new();
    while all.len() >= 5 {
        let len = u32::from_be_bytes([all[1], all[2], all[3], all[4]]) as usize;
        messages.push(all.split_to(5 + len).freeze().slice(5..));
    }
    Ok((messages, body.trailers().await?.unwrap_or_default()))
}

pub(crate) fn request(method: &str, path: &str, content_type: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://server.test{path}"))
        .header("content-type", content_type)
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

/// The claim as a client would send it.
pub(crate) fn claim_headers(claim: &tunnel_core::Claim) -> HeaderMap {
    use base64::Engine as _;
    let mut headers = HeaderMap::new();
    let value = base64::engine::general_purpose::STANDARD_NO_PAD.encode(claim.encode());
    headers.insert("tunnel-claim-bin", value.parse().expect("base64"));
    headers
}

/// A gRPC message, with its prefix.
pub(crate) fn message(compressed: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(compressed);
    out.put_u32(u32::try_from(body.len()).expect("a short message"));
    out.extend_from_slice(body);
    out.freeze()
}

/// A packet as the description has it, by another implementation.
pub(crate) fn packet(frames: impl Into<Bytes>) -> Bytes {
    use prost::Message as _;
    #[derive(Clone, PartialEq, prost::Message)]
    struct Packet {
        #[prost(bytes = "bytes", tag = "1")]
        frames: Bytes,
    }
    let frames = frames.into();
    message(0, &Packet { frames }.encode_to_vec())
}
