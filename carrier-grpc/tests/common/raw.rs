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
    proto::{
        Answer,
        mux::{Budget, CloseReason, Config, Event, Mux, Side},
    },
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
        let mut reader = RawReader::new(body);
        let mut messages = Vec::new();
        while let Some(message) = reader.next().await.expect("no reset") {
            messages.push(message);
        }
        let trailers = reader.trailers().await.expect("no reset");
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

/// Reads the messages of a body.
pub(crate) struct RawReader {
    pub(crate) body: RecvStream,
    received: BytesMut,
}

impl RawReader {
    pub(crate) fn new(body: RecvStream) -> Self {
        Self {
            body,
            received: BytesMut::new(),
        }
    }

    /// The next message, without gRPC's prefix; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, h2::Error> {
        loop {
            if let Some(message) = split(&mut self.received) {
                return Ok(Some(message));
            }
            let Some(data) = self.body.data().await.transpose()? else {
                return Ok(None);
            };
            // It fails when the call has ended meanwhile.
            let _ = self.body.flow_control().release_capacity(data.len());
            self.received.extend_from_slice(&data);
        }
    }

    pub(crate) async fn trailers(&mut self) -> Result<HeaderMap, h2::Error> {
        Ok(self.body.trailers().await?.unwrap_or_default())
    }
}

/// The next message, without gRPC's prefix, if it is whole.
fn split(received: &mut BytesMut) -> Option<Bytes> {
    let prefix = received.first_chunk::<5>()?;
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    (received.len() >= 5 + len).then(|| received.split_to(5 + len).freeze().slice(5..))
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
    pub(crate) reader: RawReader,
    pub(crate) mux: Mux,
}

impl RawEnd {
    pub(crate) fn new(side: Side, tx: SendStream<Bytes>, body: RecvStream) -> Self {
        Self {
            tx,
            reader: RawReader::new(body),
            mux: Mux::new(side, Config::default(), Budget::default().account(), now()),
        }
    }

    /// Sends what the mux has to say.
    pub(crate) fn speak(&mut self) {
        while let Some(message) = self.mux.poll_message(now()) {
            let packet = packet(message.into_bytes());
            self.tx.send_data(packet, false).expect("the call is open");
        }
    }

    /// Gives the mux the next message. False at the end of the call.
    pub(crate) async fn listen(&mut self) -> Result<bool, h2::Error> {
        let Some(message) = self.reader.next().await? else {
            return Ok(false);
        };
        let packet = Packet::decode(message).expect("a packet");
        self.mux.handle_message(now(), packet.frames);
        Ok(true)
    }

    /// Waits for a stream of the other end, and accepts it.
    pub(crate) async fn accept(&mut self) {
        let id = loop {
            assert!(self.listen().await.expect("no reset"), "the call ended");
            if let Some(Event::Opened { id, .. }) = std::iter::from_fn(|| self.mux.poll_event()).find(is_opened) {
                break id;
            }
        };
        self.mux.answer(now(), id, &Answer::Accepted);
        self.speak();
    }

    /// Reads to the end, and gives why the other end has closed the connection, and the trailers. An agent may reset
    /// the call behind its close, when the server does not end it at once.
    pub(crate) async fn verdict(mut self) -> (Option<CloseReason>, HeaderMap) {
        while self.listen().await.unwrap_or(false) {}
        let trailers = self.reader.trailers().await.unwrap_or_default();
        (self.mux.closed().cloned(), trailers)
    }
}

fn is_opened(event: &Event) -> bool {
    matches!(event, Event::Opened { .. })
}

/// The time of the mux.
pub(crate) fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
