//! A call that has not been looked at.

use std::{fmt, future::poll_fn, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Response};
use tokio::{runtime::Handle, select, sync::oneshot};
use tonic::Status;
use tunnel_core::{
    Admission, Admitted, Arrival, CloseCode, Connection, ConnectionError, HandshakeError, Identity, Incoming,
    Rejection, mux,
};

use crate::{
    NAME,
    body::{self, ServerBody},
    config::GrpcConfig,
    link::GrpcLink,
    metadata::{self, MetadataError},
    outlet::outlet,
    parked::Parked,
    status,
};

/// A call of the tunnel's method. Dropping it answers UNAVAILABLE.
pub(crate) struct GrpcIncoming {
    pub(crate) remote_addr: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Parked,
    pub(crate) answer: oneshot::Sender<Response<ServerBody>>,
    /// Where its HTTP/2 connection is served.
    pub(crate) home: Handle,
    pub(crate) config: GrpcConfig,
}

#[async_trait]
impl Incoming for GrpcIncoming {
    fn remote_addr(&self) -> SocketAddr {
        self.remote_addr
    }

    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let Self {
            remote_addr,
            identity,
            headers,
            body,
            mut answer,
            config,
            ..
        } = *self;
        let mut inlet = body.take().map_err(|detail| HandshakeError::Protocol { detail })?;
        if let Some(encoding) = headers.get(ENCODING).filter(|encoding| *encoding != IDENTITY) {
            let detail = format!("its messages are compressed by {encoding:?}");
            let mut response = body::status(Status::unimplemented("messages are not compressed here"));
            response
                .headers_mut()
                .insert(ACCEPT_ENCODING, HeaderValue::from_static(IDENTITY));
            // If it cannot be sent, the agent is gone.
            let _ = answer.send(response);
            return Err(HandshakeError::Protocol { detail });
        }
        let claim = match metadata::claim(&headers) {
            Ok(claim) => claim,
            Err(MetadataError::Frame { problem, .. }) if problem.close_code() == CloseCode::VERSION => {
                let rejection = Rejection::new(CloseCode::VERSION, problem.to_string());
                let _ = answer.send(rejected(&rejection));
                return Err(HandshakeError::Rejected(rejection));
            }
            Err(problem) => return Err(broken(problem.to_string(), answer)),
        };
        let arrival = Arrival::new(NAME, remote_addr, identity, claim);
        let admitted = select! {
            biased;
            () = answer.closed() => return Err(lost()),
            admitted = admission.admit(&arrival) => admitted,
            detail = poll_fn(|cx| inlet.poll_early(cx)) => return Err(broken(detail, answer)),
        };
        let Admitted { identity, welcome } = match admitted {
            Ok(admitted) => admitted,
            Err(rejection) => {
                let _ = answer.send(rejected(&rejection));
                return Err(HandshakeError::Rejected(rejection));
            }
        };
        let (outlet, body) = outlet();
        let mut response = body::link(body);
        metadata::put_welcome(&welcome, response.headers_mut());
        answer.send(response).map_err(|_| lost())?;
        let peer = arrival.into_peer(identity);
        let link = GrpcLink {
            inlet,
            outlet,
            connection: None,
        };
        Ok(mux::start(Box::new(link), peer, config.mux.clone()))
    }

    fn refuse(self: Box<Self>) {}

    fn home(&self) -> Option<Handle> {
        Some(self.home.clone())
    }
}

/// How the messages of a call are compressed, and what may be (gRPC over HTTP/2, "Message-Encoding").
const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const IDENTITY: &str = "identity";

/// The answer to a claim that is not accepted.
pub(crate) fn rejected(rejection: &Rejection) -> Response<ServerBody> {
    let mut response = body::status(Status::new(status::code(rejection.code), rejection.text.as_str()));
    metadata::put_rejection(rejection, response.headers_mut());
    response
}

/// Answers an agent that breaks the protocol.
fn broken(detail: String, answer: oneshot::Sender<Response<ServerBody>>) -> HandshakeError {
    let _ = answer.send(rejected(&Rejection::new(CloseCode::PROTOCOL, detail.as_str())));
    HandshakeError::Protocol { detail }
}

fn lost() -> HandshakeError {
    HandshakeError::Lost(ConnectionError::transport(Cancelled))
}

/// The agent, or a proxy on the way, has given up the call.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the call was cancelled")]
struct Cancelled;

impl fmt::Debug for GrpcIncoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcIncoming")
            .field("remote_addr", &self.remote_addr)
            .finish_non_exhaustive()
    }
}
