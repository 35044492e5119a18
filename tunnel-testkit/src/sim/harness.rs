//! The mux over a simulated link, held to the laws.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tunnel_core::{
    Identity,
    mux::MuxConfig,
    proto::mux::{Budget, Config, Windows},
};

use super::{
    carrier::{Known, LinkCarrier, LinkListener},
    net::{AGENT, Net, SERVER},
    profile::Profile,
};
use crate::{
    Side,
    conformance::{Harness, Setup, SetupError, Stage},
};

/// The window of every stream while a law is tried.
const WINDOW: usize = 64 * 1024;
/// The most that a sender holds of one stream while a law is tried.
const SEND_QUEUE: usize = 64 * 1024;

/// Has the mux held to the laws of [`conformance`](mod@crate::conformance), over links that travel like this.
#[derive(Clone, Debug)]
pub struct LinkHarness {
    profile: Profile,
}

impl LinkHarness {
    /// Makes one.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self { profile }
    }
}

#[async_trait]
impl Harness for LinkHarness {
    async fn stage(&self, setup: &Setup) -> Result<Stage, SetupError> {
        let proto = Config::builder()
            .max_streams(setup.max_streams)
            .keepalive(setup.keepalive)
            .stream_window(Windows::fixed(WINDOW as u64))
            .send_queue(SEND_QUEUE)
            .build()?;
        let config = || MuxConfig::new(proto.clone(), Budget::default());
        let known = |side, addr| match setup.untrusted {
            Some(untrusted) if untrusted == side => Known::new(),
            _ => Known::from([(addr, self.identity(side))]),
        };
        let net = Net::new(self.profile.clone());
        let listener = net.listen();
        let server = listener.address();
        let dial = Arc::new(net.clone());
        Ok(Stage {
            carrier: Box::new(LinkCarrier::new(server, dial, known(Side::Server, SERVER), config())),
            listener: Box::new(LinkListener::new(
                Box::new(listener),
                known(Side::Agent, AGENT),
                config(),
            )),
            network: Box::new(net),
        })
    }

    fn identity(&self, side: Side) -> Identity {
        let mut identity = Identity::anonymous();
        identity.common_name = Some(side.to_string());
        identity
    }

    fn window(&self) -> usize {
        WINDOW
    }

    /// What waits at the sender has its credit already.
    fn bound(&self) -> usize {
        WINDOW
    }

    /// A few round trips, and the time that what is buffered takes to leave.
    fn prompt(&self) -> Duration {
        Duration::from_secs(1) + 10 * self.profile.latency
    }
}
