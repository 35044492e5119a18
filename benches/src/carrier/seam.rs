//! The carriers, without a frontend: streams of the two ends of a connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use carrier_grpc::{GrpcCarrier, GrpcConfig, GrpcListener};
use carrier_h2::{H2Carrier, H2Config, H2Listener};
use carrier_quic::{QuicCarrier, QuicConfig, QuicListener};
use carrier_ws::{WsCarrier, WsConfig, WsListener};
use tokio::time::Instant;
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, Claim, Connection, Duplex, Generation, HostPort, Listener, RecvStream,
    Rejection, SendStream, ServerId, StreamHead, Target, Welcome, mux::MuxConfig, proto::mux,
};
use tunnel_tcp::{Accept, ClientSecurity, Proxies, ServerSecurity, SocketOptions, TcpAcceptor, TcpDialer};

use super::{CHUNK, Dial, Handshake, Kind, Listen, Pair, Rx, Tx, Wire};
use crate::credentials::Credentials;

/// More than any measurement opens.
const STREAMS: u32 = 20_000;

/// How long a handshake may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn listen(kind: Kind, credentials: &Credentials) -> anyhow::Result<Box<dyn Listen>> {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let tls = credentials.server()?;
    let listener: Box<dyn Listener> = match kind {
        Kind::Quic => Box::new(QuicListener::bind(any, &tls, quic()?)?),
        Kind::Ws => Box::new(WsListener::new(
            accept(any)?,
            Some(&tls),
            WsConfig::builder().mux(mux()?).build()?,
        )),
        Kind::Grpc => {
            let security = ServerSecurity::tls(&tls, &[carrier_grpc::ALPN]);
            Box::new(GrpcListener::new(
                accept(any)?,
                security,
                GrpcConfig::builder().mux(mux()?).build()?,
            ))
        }
        Kind::H2 => {
            let security = ServerSecurity::tls(&tls, &[carrier_h2::ALPN]);
            Box::new(H2Listener::new(
                accept(any)?,
                security,
                H2Config::builder().mux(mux()?).build()?,
            ))
        }
        kind => anyhow::bail!("{kind} is no carrier"),
    };
    let welcome = Welcome::new("bench".parse::<ServerId>()?);
    Ok(Box::new(SeamListener {
        listener,
        everybody: Arc::new(Everybody(welcome)),
    }))
}

pub(super) fn dialler(kind: Kind, server: SocketAddr, credentials: &Credentials) -> anyhow::Result<Box<dyn Dial>> {
    Ok(Box::new(SeamDialler(carrier(kind, server, credentials)?)))
}

/// The carrier of an agent that dials this server.
pub fn carrier(kind: Kind, server: SocketAddr, credentials: &Credentials) -> anyhow::Result<Box<dyn Carrier>> {
    let server: HostPort = server.to_string().parse()?;
    let tls = credentials.agent()?;
    Ok(match kind {
        Kind::Quic => Box::new(QuicCarrier::new(server, &tls, quic()?)?),
        Kind::Ws => Box::new(WsCarrier::new(
            format!("wss://{server}").parse()?,
            Some(&tls),
            dial(),
            WsConfig::builder().mux(mux()?).build()?,
        )?),
        Kind::Grpc => {
            let security = ClientSecurity::tls(&tls, server.host(), &[carrier_grpc::ALPN])?;
            Box::new(GrpcCarrier::new(
                server,
                security,
                dial(),
                GrpcConfig::builder().mux(mux()?).build()?,
            )?)
        }
        Kind::H2 => {
            let security = ClientSecurity::tls(&tls, server.host(), &[carrier_h2::ALPN])?;
            Box::new(H2Carrier::new(
                server,
                security,
                dial(),
                H2Config::builder().mux(mux()?).build()?,
            ))
        }
        kind => anyhow::bail!("{kind} is no carrier"),
    })
}

fn quic() -> anyhow::Result<QuicConfig> {
    Ok(QuicConfig::builder().max_streams(STREAMS).build()?)
}

/// How streams are carried, by all but QUIC.
fn mux() -> anyhow::Result<MuxConfig> {
    Ok(mux::Config::builder().max_streams(STREAMS).build()?.into())
}

fn accept(addr: SocketAddr) -> std::io::Result<Box<dyn Accept>> {
    Ok(Box::new(TcpAcceptor::bind(addr, SocketOptions::default())?))
}

fn dial() -> Arc<dyn tunnel_tcp::Dial> {
    Arc::new(TcpDialer::new(SocketOptions::default(), Proxies::none()))
}

/// Accepts every claim.
#[derive(Debug)]
struct Everybody(Welcome);

#[async_trait]
impl Admission for Everybody {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        Ok(Admitted {
            identity: arrival.identity.clone(),
            welcome: self.0.clone(),
        })
    }
}

struct SeamListener {
    listener: Box<dyn Listener>,
    everybody: Arc<Everybody>,
}

#[async_trait]
impl Listen for SeamListener {
    fn addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    async fn accept(&mut self) -> anyhow::Result<Handshake> {
        let incoming = self.listener.accept().await?;
        let everybody = Arc::clone(&self.everybody);
        Ok(Box::pin(async move {
            let connection = incoming.handshake(&*everybody).await?;
            Ok(Arc::new(Seam(connection)) as Arc<dyn Wire>)
        }))
    }
}

struct SeamDialler(Box<dyn Carrier>);

#[async_trait]
impl Dial for SeamDialler {
    async fn dial(&self) -> anyhow::Result<Arc<dyn Wire>> {
        let claim = Claim::new("bench".parse()?, Generation(1));
        let connection = self.0.dial(&claim, Instant::now() + PATIENCE).await?;
        Ok(Arc::new(Seam(connection)))
    }
}

struct Seam(Arc<dyn Connection>);

#[async_trait]
impl Wire for Seam {
    async fn open(&self) -> anyhow::Result<Pair> {
        let head = StreamHead::new("tcp://bench.test:80".parse::<Target>()?);
        Ok(halves(self.0.open(head).await?))
    }

    async fn accept(&self) -> anyhow::Result<Option<Pair>> {
        match self.0.accept().await {
            Ok(inbound) => Ok(Some(halves(inbound.accept().await?))),
            Err(_) => Ok(None),
        }
    }
}

fn halves(Duplex { tx, rx }: Duplex) -> Pair {
    (Box::new(SeamSend(tx)), Box::new(SeamRecv(rx)))
}

struct SeamSend(Box<dyn SendStream>);

#[async_trait]
impl Tx for SeamSend {
    async fn send(&mut self, data: Bytes) -> anyhow::Result<()> {
        self.0.send_all(data).await?;
        Ok(self.0.flush().await?)
    }
}

struct SeamRecv(Box<dyn RecvStream>);

#[async_trait]
impl Rx for SeamRecv {
    async fn recv(&mut self) -> anyhow::Result<Option<Bytes>> {
        Ok(self.0.recv(CHUNK).await?)
    }
}
