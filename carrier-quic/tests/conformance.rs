//! The laws, over a simulated network in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{any::Any, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use carrier_quic::{ALPN, QuicConfig};
use common::{
    AGENT, STRANGER, World,
    net::{Link, Net},
    raw,
};
use tunnel_core::Identity;
use tunnel_testkit::{
    Side,
    conformance::{Background, Harness, Network, Setup, SetupError, Stage},
    pki::Pki,
};
use tunnel_tls::ClientTls;

/// What a stream's preamble may take of its window.
const PREAMBLE: usize = 4096;
const WINDOW: usize = 64 * 1024;

struct QuicHarness {
    pki: Arc<Pki>,
    /// A CA that nobody trusts.
    other: Pki,
}

impl Default for QuicHarness {
    fn default() -> Self {
        Self {
            pki: Arc::new(Pki::new()),
            other: Pki::new(),
        }
    }
}

#[async_trait]
impl Harness for QuicHarness {
    async fn stage(&self, setup: &Setup) -> Result<Stage, SetupError> {
        let config = QuicConfig::builder()
            .max_streams(setup.max_streams)
            .keepalive(setup.keepalive)
            .stream_window(u32::try_from(WINDOW + PREAMBLE)?)
            .build()?;
        let link = Link {
            latency: Duration::from_millis(5),
            bandwidth: Some(20_000_000),
            ..Link::default()
        };
        let server = match setup.untrusted {
            Some(Side::Server) => self.other.server_trusting(&self.pki),
            _ => self.pki.server(),
        };
        let client = match setup.untrusted {
            Some(Side::Agent) => self.pki.stranger(&self.other),
            _ => self.pki.client(),
        };
        let world = World::with_tls(Arc::clone(&self.pki), &server, &client, config, link);
        Ok(Stage {
            carrier: Box::new(world.carrier),
            listener: Box::new(world.listener),
            network: Box::new(QuicNetwork {
                net: world.net,
                tls: self.pki.client(),
            }),
        })
    }

    fn identity(&self, side: Side) -> Identity {
        match side {
            Side::Agent => self.pki.client_identity(),
            Side::Server => self.pki.server_identity(),
        }
    }

    fn window(&self) -> usize {
        WINDOW
    }

    /// A sender holds nothing that the receiver's window has no room for.
    fn bound(&self) -> usize {
        WINDOW + PREAMBLE
    }
}

impl fmt::Debug for QuicHarness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuicHarness")
    }
}

struct QuicNetwork {
    net: Net,
    tls: ClientTls,
}

#[async_trait]
impl Network for QuicNetwork {
    /// UDP has nothing that could be cut: packets only stop coming.
    fn cut(&self) {
        self.net.set_silent(true);
    }

    fn silence(&self) {
        self.net.set_silent(true);
    }

    /// A stranger who passes the TLS handshake, if he is let, and never claims.
    async fn knock(&self) -> Result<Box<dyn Any + Send>, SetupError> {
        let (net, tls) = (self.net.clone(), self.tls.clone());
        let address = net.free_address(STRANGER);
        let stranger = Background::spawn(async move {
            let connected = raw::dial(&net, address, &tls, ALPN).await;
            std::future::pending::<()>().await;
            drop(connected);
        });
        tokio::task::yield_now().await;
        Ok(Box::new(stranger))
    }
}

impl fmt::Debug for QuicNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicNetwork")
            .field("agent", &AGENT)
            .finish_non_exhaustive()
    }
}

tunnel_testkit::conformance!(QuicHarness::default());
