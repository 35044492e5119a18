//! Carriers over TCP, held to the laws.

use std::{any::Any, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tunnel_core::{Carrier, HostPort, Identity, Listener, mux::MuxConfig};
use tunnel_tcp::{ClientSecurity, Dial};
use tunnel_tls::ClientTls;

use super::{net::Net, profile::Profile};
use crate::{
    Side,
    conformance::{Background, Harness, Network, Setup, SetupError, Stage},
    pki::{NAME, Pki, Tls},
};

/// Makes the agent's end and the server's, on this network, with what the laws ask of the mux.
pub type Make = fn(&Net, Option<Tls<'_>>, MuxConfig) -> Result<(Box<dyn Carrier>, Box<dyn Listener>), SetupError>;

/// Has a carrier over TCP held to the laws of [`conformance`](mod@crate::conformance), in clear text or by TLS.
#[derive(Debug)]
pub struct TcpHarness {
    make: Make,
    profile: Profile,
    has_tls: bool,
    pki: Pki,
    /// A CA that nobody trusts.
    other: Pki,
    window: usize,
    held: usize,
    bulk: usize,
    prompt: Duration,
    greeting: &'static [u8],
}

impl TcpHarness {
    /// One in clear text, over connections that travel like this, with windows of 64 KiB.
    #[must_use]
    pub fn new(profile: Profile, make: Make) -> Self {
        let window = 64 * 1024;
        Self {
            make,
            profile,
            has_tls: false,
            pki: Pki::new(),
            other: Pki::new(),
            window,
            held: 0,
            bulk: 64 * window,
            prompt: Duration::from_secs(1),
            greeting: b"",
        }
    }

    /// By TLS.
    #[must_use]
    pub fn tls(self) -> Self {
        Self { has_tls: true, ..self }
    }

    /// With streams of this window, and transfers of `bulk` bytes where speed is measured. Time is simulated, but the
    /// work for each byte is not.
    #[must_use]
    pub fn small(self, window: usize, bulk: usize) -> Self {
        Self { window, bulk, ..self }
    }

    /// What a sender holds of a stream besides what its window lets through. Default 0.
    #[must_use]
    pub fn held(self, held: usize) -> Self {
        Self { held, ..self }
    }

    /// With another [`Harness::prompt`].
    #[must_use]
    pub fn prompt(self, prompt: Duration) -> Self {
        Self { prompt, ..self }
    }

    /// What a stranger says, after the handshake of TLS, before he says nothing any more. Default nothing.
    #[must_use]
    pub fn greeting(self, greeting: &'static [u8]) -> Self {
        Self { greeting, ..self }
    }
}

#[async_trait]
impl Harness for TcpHarness {
    async fn stage(&self, setup: &Setup) -> Result<Stage, SetupError> {
        let server = match setup.untrusted {
            Some(Side::Server) => self.other.server_trusting(&self.pki),
            _ => self.pki.server(),
        };
        let client = match setup.untrusted {
            Some(Side::Agent) => self.pki.stranger(&self.other),
            _ => self.pki.client(),
        };
        // In clear text nobody can be distrusted.
        let has_tls = self.has_tls || setup.untrusted.is_some();
        let mux = setup.mux(self.window)?;
        let net = Net::new(self.profile.clone());
        let (carrier, listener) = (self.make)(&net, has_tls.then_some((&server, &client)), mux)?;
        Ok(Stage {
            carrier,
            listener,
            network: Box::new(Street {
                net,
                tls: has_tls.then(|| self.pki.client()),
                greeting: self.greeting,
            }),
        })
    }

    fn identity(&self, side: Side) -> Identity {
        match side {
            _ if !self.has_tls => Identity::anonymous(),
            Side::Agent => self.pki.client_identity(),
            Side::Server => self.pki.server_identity(),
        }
    }

    fn window(&self) -> usize {
        self.window
    }

    fn bound(&self) -> usize {
        self.window + self.held
    }

    fn bulk(&self) -> usize {
        self.bulk
    }

    fn prompt(&self) -> Duration {
        self.prompt
    }
}

/// A network on which strangers get as far as TLS.
#[derive(Debug)]
struct Street {
    net: Net,
    tls: Option<ClientTls>,
    greeting: &'static [u8],
}

#[async_trait]
impl Network for Street {
    fn cut(&self) {
        self.net.cut();
    }

    fn silence(&self) {
        self.net.silence();
    }

    async fn knock(&self) -> Result<Box<dyn Any + Send>, SetupError> {
        let server: HostPort = self.net.first_listener().ok_or("nobody listens")?.to_string().parse()?;
        let security = match &self.tls {
            Some(tls) => ClientSecurity::tls(tls, &NAME.parse()?, &[])?,
            None => ClientSecurity::Plain,
        };
        let (net, greeting) = (Arc::new(self.net.clone()), self.greeting);
        let dialling = async move {
            let pipe = net.dial(&server).await?.io;
            let (mut pipe, _) = security.secure(pipe, "the server").await?;
            pipe.write_all(greeting).await?;
            pipe.flush().await?;
            std::future::pending::<Result<(), SetupError>>().await
        };
        let stranger = Background::spawn(async move {
            // If he does not get as far, he is a nuisance all the same.
            let _ = dialling.await;
        });
        tokio::task::yield_now().await;
        Ok(Box::new(stranger))
    }
}
