//! The laws, over a simulated network in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use async_trait::async_trait;
use carrier_h2::H2Config;
use common::World;
use tunnel_core::Identity;
use tunnel_testkit::{
    Side,
    conformance::{Harness, Setup, SetupError, Stage},
    pki::Pki,
    sim::Profile,
};

const WINDOW: usize = 64 * 1024;
const SEND_QUEUE: usize = 128 * 1024;
/// So small that credit that is lost would be missed: law 9 fills two thirds of it, law 16 loses a multiple if any.
const CONNECTION_WINDOW: u32 = 3 * 1024 * 1024;

#[derive(Debug)]
struct H2Harness {
    profile: Profile,
    has_tls: bool,
    pki: Pki,
    /// A CA that nobody trusts.
    other: Pki,
    bulk: usize,
    prompt: Duration,
}

impl H2Harness {
    fn plain(profile: Profile) -> Self {
        Self {
            profile,
            has_tls: false,
            pki: Pki::new(),
            other: Pki::new(),
            bulk: 64 * WINDOW,
            prompt: Duration::from_secs(1),
        }
    }

    fn tls(profile: Profile) -> Self {
        Self {
            has_tls: true,
            ..Self::plain(profile)
        }
    }
}

/// A good network.
fn near() -> Profile {
    Profile::new(Duration::from_millis(1), 20_000_000)
}

/// One far away.
fn far() -> Profile {
    Profile::new(Duration::from_millis(100), 20_000_000)
}

/// One that takes and gives bytes in pieces that fit nothing.
fn crumbs() -> Profile {
    Profile {
        max_read: Some(37),
        max_write: Some(101),
        flush_delay: Some(Duration::from_millis(1)),
        ..near()
    }
}

#[async_trait]
impl Harness for H2Harness {
    async fn stage(&self, setup: &Setup) -> Result<Stage, SetupError> {
        let config = H2Config::builder()
            .mux(setup.mux(WINDOW)?)
            .connection_window(CONNECTION_WINDOW)
            .build()?;
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
        WINDOW
    }

    fn bound(&self) -> usize {
        WINDOW + SEND_QUEUE
    }

    fn bulk(&self) -> usize {
        self.bulk
    }

    fn prompt(&self) -> Duration {
        self.prompt
    }
}

mod plain {
    use super::*;
    tunnel_testkit::conformance!(H2Harness::plain(near()));
}

mod tls {
    use super::*;
    tunnel_testkit::conformance!(H2Harness::tls(near()));
}

mod tls_far_away {
    use super::*;
    tunnel_testkit::conformance!(H2Harness {
        prompt: Duration::from_secs(2),
        ..H2Harness::tls(far())
    });
}

mod in_crumbs {
    use super::*;
    tunnel_testkit::conformance!(H2Harness {
        bulk: 16 * WINDOW,
        ..H2Harness::plain(crumbs())
    });
}
