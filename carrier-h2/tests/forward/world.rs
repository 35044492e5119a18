//! Two ends in one process, over a simulated network, and pipes to either of them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carrier_h2::forward::{ALPN, ForwardCarrier, ForwardConfig, ForwardListener};
use h2::{client, server};
use http::{HeaderMap, Request};
use tokio::{task::JoinHandle, time::Instant};
use tunnel_core::{Carrier, Connection, DialError, HostPort, Listener, proto::mux::ConfigBuilder};
use tunnel_tcp::{Accept, BoxIo, ClientSecurity, Dial};
use tunnel_testkit::{
    ends::{Ends, claim},
    pki::{Tls, security},
    sim::{Net, Profile},
};

/// How soon something is to happen.
pub(crate) const PROMPT: Duration = Duration::from_secs(1);

/// Settings with this mux.
pub(crate) fn with(mux: ConfigBuilder) -> ForwardConfig {
    ForwardConfig::builder()
        .mux(mux.build().unwrap().into())
        .build()
        .unwrap()
}

/// An end that serves streams and one that opens them.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) address: HostPort,
    pub(crate) listener: ForwardListener,
    pub(crate) carrier: ForwardCarrier,
}

impl World {
    /// In clear text, on a network of its own.
    pub(crate) fn plain(config: ForwardConfig) -> Self {
        Self::on(&Net::new(Profile::near()), None, config)
    }

    /// With TLS, where it is given.
    pub(crate) fn on(net: &Net, tls: Option<Tls<'_>>, config: ForwardConfig) -> Self {
        let accept = net.listen();
        let address = accept.address();
        let (server, client) = security(tls, ALPN);
        Self {
            carrier: ForwardCarrier::new(address.clone(), client, Arc::new(net.clone()), config.clone()),
            listener: ForwardListener::new(Box::new(accept), server, config),
            address,
            net: net.clone(),
        }
    }

    /// A pipe to the listener, and the listener's handle of what comes by it when the other end has begun HTTP/2.
    pub(crate) async fn knock<T>(&mut self, begin: impl AsyncFnOnce(BoxIo) -> T) -> (T, Arc<dyn Connection>) {
        let io = self.net.dial(&self.address).await.unwrap().io;
        tokio::join!(begin(io), self.accept())
    }

    /// A client of others at the listener, and the listener's handle of its connection.
    pub(crate) async fn client(&mut self) -> (Client, Arc<dyn Connection>) {
        self.knock(Client::begin).await
    }
}

impl Ends for World {
    fn ends(&mut self) -> (&dyn Carrier, &mut dyn Listener) {
        (&self.carrier, &mut self.listener)
    }
}

/// A client that the test plays, by h2 itself. Its connection is driven by a task.
pub(crate) struct Client {
    pub(crate) requests: client::SendRequest<Bytes>,
    pub(crate) ended: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn begin(io: BoxIo) -> Self {
        let mut builder = client::Builder::new();
        builder.max_concurrent_reset_streams(100_000);
        let (requests, connection) = builder.handshake(io).await.unwrap();
        Self {
            requests,
            ended: tokio::spawn(connection),
        }
    }

    /// Sends a request without a body's end.
    pub(crate) async fn send(&mut self, request: Request<()>) -> (client::ResponseFuture, h2::SendStream<Bytes>) {
        let mut requests = self.requests.clone().ready().await.unwrap();
        requests.send_request(request, false).unwrap()
    }

    /// The whole response to a request.
    pub(crate) async fn ask(&mut self, request: Request<()>) -> Result<(u16, HeaderMap, String), h2::Error> {
        let (response, _tx) = self.send(request).await;
        let (head, mut body) = response.await?.into_parts();
        let mut text = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len()).unwrap();
            text.extend_from_slice(&piece);
        }
        Ok((head.status.as_u16(), head.headers, String::from_utf8(text).unwrap()))
    }
}

/// A CONNECT.
pub(crate) fn connect(authority: &str) -> Request<()> {
    Request::connect(authority).body(()).unwrap()
}

/// A proxy that the test plays from the first byte on, and what comes of dialling it.
pub(crate) async fn proxy<T>(
    config: ForwardConfig,
    serve: impl AsyncFnOnce(BoxIo) -> T,
) -> (T, Result<Arc<dyn Connection>, DialError>) {
    let net = Net::new(Profile::near());
    let mut accept = net.listen();
    let carrier = ForwardCarrier::new(accept.address(), ClientSecurity::Plain, Arc::new(net), config);
    let claim = claim();
    tokio::join!(
        async { serve(accept.accept().await.unwrap().open().unwrap()).await },
        carrier.dial(&claim, Instant::now() + Duration::from_secs(10)),
    )
}

/// A proxy by h2 itself, whose connection `drive` drives, and the handle of a connection with it.
pub(crate) async fn h2_proxy<F: Future<Output = ()> + Send + 'static>(
    builder: server::Builder,
    config: ForwardConfig,
    drive: impl FnOnce(server::Connection<BoxIo, Bytes>) -> F,
) -> (JoinHandle<()>, Arc<dyn Connection>) {
    let serve = async |io| tokio::spawn(drive(builder.handshake(io).await.unwrap()));
    let (task, connection) = proxy(config, serve).await;
    (task, connection.unwrap())
}
