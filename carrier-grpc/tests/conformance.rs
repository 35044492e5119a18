//! The laws, over a simulated network in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use async_trait::async_trait;
use carrier_grpc::GrpcConfig;
use common::World;
use tunnel_core::Identity;
use tunnel_testkit::{
    Side,
    conformance::{Harness, Setup, SetupError, Stage},
    pki::Pki,
    sim::Profile,
};

/// What the mux queues of a stream.
const SEND_QUEUE: usize = 128 * 1024;

#[derive(Debug)]
struct GrpcHarness {
    profile: Profile,
    has_tls: bool,
    pki: Pki,
    /// A CA that nobody trusts.
    other: Pki,
    window: usize,
}

impl GrpcHarness {
    fn plain(profile: Profile) -> Self {
        Self {
            profile,
            has_tls: false,
            pki: Pki::new(),
            other: Pki::new(),
            window: 64 * 1024,
        }
    }

    fn tls(profile: Profile) -> Self {
        Self {
            has_tls: true,
            ..Self::plain(profile)
        }
    }

    /// With a window as small as what is transferred then: time is simulated, but the work for each byte is not.
    fn small(self) -> Self {
        Self {
            window: 4 * 1024,
            ..self
        }
    }
}

/// A network in the same room.
fn near() -> Profile {
    Profile::new(Duration::from_millis(1), 20_000_000)
}

/// One across an ocean.
fn far() -> Profile {
    Profile::new(Duration::from_millis(100), 20_000_000)
}

/// One that moves a few bytes at a time, and lets none go before they are flushed, which takes its time.
fn crumbs() -> Profile {
    Profile {
        max_read: Some(5),
        max_write: Some(7),
        flush_delay: Some(Duration::from_millis(1)),
        ..Profile::new(Duration::from_millis(1), 2_000_000)
    }
}

#[async_trait]
impl Harness for GrpcHarness {
    async fn stage(&self, setup: &Setup) -> Result<Stage, SetupError> {
        let config = GrpcConfig::builder().mux(setup.mux(self.window)?).build()?;
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
        let world = World::new(&self.profile, has_tls.then_some((&server, &client)), config);
        Ok(Stage {
            carrier: Box::new(world.carrier),
            listener: Box::new(world.listener),
            network: Box::new(world.net),
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
        self.window + SEND_QUEUE
    }
}

mod plain {
    use super::*;
    tunnel_testkit::conformance!(GrpcHarness::plain(near()));
}

mod plain_at_once {
    use super::*;
    tunnel_testkit::conformance!(GrpcHarness::plain(Profile::default()));
}

mod plain_far_away {
    use super::*;
    tunnel_testkit::conformance!(GrpcHarness::plain(far()));
}

mod plain_in_crumbs {
    use super::*;
    tunnel_testkit::conformance!(GrpcHarness::plain(crumbs()).small());
}

mod tls {
    use super::*;
    tunnel_testkit::conformance!(GrpcHarness::tls(near()));
}

mod tls_far_away {
    use super::*;
    tunnel_testkit::conformance!(GrpcHarness::tls(far()));
}

mod tls_in_crumbs {
    use super::*;
    tunnel_testkit::conformance!(GrpcHarness::tls(crumbs()).small());
}
