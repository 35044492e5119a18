//! The laws, over a simulated network in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::{any::Any, sync::Arc, time::Duration};

use async_trait::async_trait;
use carrier_ws::WsConfig;
use common::World;
use tokio::io::AsyncWriteExt;
use tunnel_core::{Identity, Listener};
use tunnel_tcp::{ClientSecurity, Dial};
use tunnel_testkit::{
    Side,
    conformance::{Harness, Network, Setup, SetupError, Stage},
    pki::Pki,
    sim::{Net, Profile},
};
use tunnel_tls::ClientTls;

const WINDOW: usize = 64 * 1024;

/// What the laws are tried on.
#[derive(Debug)]
struct WsHarness {
    profile: Profile,
    has_tls: bool,
    /// Its own CA, and one that nobody trusts.
    pki: (Pki, Pki),
    bulk: usize,
    prompt: Duration,
}

impl WsHarness {
    /// On a network that takes no time.
    fn plain() -> Self {
        Self {
            profile: Profile::default(),
            has_tls: false,
            pki: (Pki::new(), Pki::new()),
            bulk: 64 * WINDOW,
            prompt: Duration::from_secs(1),
        }
    }

    /// In one building.
    fn secure() -> Self {
        Self {
            profile: Profile::new(Duration::from_millis(1), 20_000_000),
            has_tls: true,
            ..Self::plain()
        }
    }

    /// Across an ocean.
    fn far() -> Self {
        Self {
            profile: Profile::new(Duration::from_millis(100), 20_000_000),
            ..Self::secure()
        }
    }

    /// Through something that moves a few bytes at a time, and those late.
    fn halting() -> Self {
        Self {
            profile: Profile {
                max_write: Some(61),
                max_read: Some(37),
                flush_delay: Some(Duration::from_millis(1)),
                ..Profile::new(Duration::from_millis(1), 2_000_000)
            },
            bulk: 4 * WINDOW,
            ..Self::plain()
        }
    }
}

#[async_trait]
impl Harness for WsHarness {
    async fn stage(&self, setup: &Setup) -> Result<Stage, SetupError> {
        let config = WsConfig::builder().mux(setup.mux(WINDOW)?).build()?;
        let (pki, other) = &self.pki;
        // In clear text nobody can be distrusted.
        let tls = (self.has_tls || setup.untrusted.is_some()).then(|| {
            let server = match setup.untrusted {
                Some(Side::Server) => other.server_trusting(pki),
                _ => pki.server(),
            };
            let client = match setup.untrusted {
                Some(Side::Agent) => pki.stranger(other),
                _ => pki.client(),
            };
            (server, client)
        });
        let tls = tls.as_ref().map(|(server, client)| (server, client));
        let world = World::new(self.profile.clone(), config, tls);
        Ok(Stage {
            network: Box::new(WsNetwork {
                net: world.net,
                port: world.listener.local_addr()?.port(),
                tls: tls.is_some().then(|| pki.client()),
            }),
            carrier: Box::new(world.carrier),
            listener: Box::new(world.listener),
        })
    }

    fn identity(&self, side: Side) -> Identity {
        match side {
            _ if !self.has_tls => Identity::anonymous(),
            Side::Agent => self.pki.0.client_identity(),
            Side::Server => self.pki.0.server_identity(),
        }
    }

    fn window(&self) -> usize {
        WINDOW
    }

    fn bound(&self) -> usize {
        WINDOW
    }

    fn bulk(&self) -> usize {
        self.bulk
    }

    fn prompt(&self) -> Duration {
        self.prompt
    }
}

#[derive(Debug)]
struct WsNetwork {
    net: Net,
    port: u16,
    tls: Option<ClientTls>,
}

#[async_trait]
impl Network for WsNetwork {
    fn cut(&self) {
        self.net.cut();
    }

    fn silence(&self) {
        self.net.silence();
    }

    /// A stranger who passes the TLS handshake, begins a request, and never ends it.
    async fn knock(&self) -> Result<Box<dyn Any + Send>, SetupError> {
        let server = format!("server.test:{}", self.port).parse()?;
        let security = match &self.tls {
            Some(tls) => ClientSecurity::tls(tls, &"server.test".parse()?, &[])?,
            None => ClientSecurity::Plain,
        };
        let net = Arc::new(self.net.clone());
        let dialling = tokio::spawn(async move {
            let pipe = net.dial(&server).await.expect("a pipe").io;
            let (mut pipe, _) = security.secure(pipe, "the server").await.expect("TLS");
            pipe.write_all(b"GET /tunnel HTTP/1.1\r\nHost: server.test\r\n")
                .await
                .expect("written");
            pipe.flush().await.expect("flushed");
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        Ok(Box::new(Abort(dialling)))
    }
}

/// Ends a task when it is dropped.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

mod clear_text {
    tunnel_testkit::conformance!(crate::WsHarness::plain());
}

mod tls {
    tunnel_testkit::conformance!(crate::WsHarness::secure());
}

mod tls_over_an_ocean {
    tunnel_testkit::conformance!(crate::WsHarness::far());
}

mod halting {
    tunnel_testkit::conformance!(crate::WsHarness::halting());
}
