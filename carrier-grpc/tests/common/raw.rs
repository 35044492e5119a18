//! A client that does what no agent does.

use bytes::{BufMut, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};
use prost::Message as _;
use tokio::task::JoinHandle;
use tunnel_core::{
    HostPort,
    proto::mux::{Budget, CloseReason, Config, Mux, Side},
};
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
    let messages = std::iter::from_fn(|| split(&mut all)).collect();
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

/// The packet as the description has it, by another implementation.
#[derive(Clone, PartialEq, prost::Message)]
struct Packet {
    #[prost(bytes = "bytes", tag = "1")]
    frames: Bytes,
}

/// A packet with gRPC's prefix.
pub(crate) fn packet(frames: impl Into<Bytes>) -> Bytes {
    let frames = frames.into();
    message(0, &Packet { frames }.encode_to_vec())
}

/// An end of a connection whose HTTP/2 is in the hands of the test.
pub(crate) struct RawEnd {
    pub(crate) tx: SendStream<Bytes>,
    pub(crate) rx: RecvStream,
    pub(crate) mux: Mux,
    received: BytesMut,
}

impl RawEnd {
    pub(crate) fn new(side: Side, tx: SendStream<Bytes>, rx: RecvStream) -> Self {
        let mux = Mux::new(side, Config::default(), Budget::default().account(), now());
        Self {
            tx,
            rx,
            mux,
            received: BytesMut::new(),
        }
    }

    /// Sends what the mux has to say.
    pub(crate) fn speak(&mut self) {
        while let Some(message) = self.mux.poll_message(now()) {
            let packet = packet(message.into_bytes());
            self.tx.send_data(packet, false).expect("the call is open");
        }
    }

    /// Reads once, and gives it to the mux. `None` at the end of the call.
    pub(crate) async fn listen(&mut self) -> Option<Result<(), h2::Error>> {
        let data = match self.rx.data().await? {
            Ok(data) => data,
            Err(error) => return Some(Err(error)),
        };
        let _ = self.rx.flow_control().release_capacity(data.len());
        self.received.extend_from_slice(&data);
        while let Some(message) = split(&mut self.received) {
            let packet = Packet::decode(message).expect("a packet");
            self.mux.handle_message(now(), packet.frames);
        }
        Some(Ok(()))
    }

    /// Reads to the end, and gives why the other end has closed the connection, and the trailers.
    pub(crate) async fn verdict(mut self) -> (Option<CloseReason>, HeaderMap) {
        while let Some(read) = self.listen().await {
            read.expect("no reset");
        }
        let trailers = self.rx.trailers().await.expect("no reset").unwrap_or_default();
        (self.mux.closed().cloned(), trailers)
    }
}

/// The time of the mux.
pub(crate) fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// The next message, without gRPC's prefix, if it is whole.
fn split(received: &mut BytesMut) -> Option<Bytes> {
    let prefix = received.first_chunk::<5>()?;
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    (received.len() >= 5 + len).then(|| received.split_to(5 + len).freeze().slice(5..))
}
