//! The laws, over a simulated network in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use carrier_ws::WsConfig;
use common::World;
use tunnel_testkit::sim::{Profile, TcpHarness};

const WINDOW: usize = 64 * 1024;

fn over(profile: Profile) -> TcpHarness {
    let harness = TcpHarness::new(profile, |net, tls, mux| {
        let config = WsConfig::builder().mux(mux).build()?;
        let World { carrier, listener, .. } = World::on(net, tls, config);
        Ok((Box::new(carrier), Box::new(listener)))
    });
    // A stranger begins a request, and never ends it.
    harness.greeting(b"GET /tunnel HTTP/1.1\r\nHost: server.test\r\n")
}

mod clear_text {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::default()));
}

mod tls {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::near()).tls());
}

mod tls_over_an_ocean {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::far()).tls());
}

mod halting {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::crumbs(37, 61)).small(WINDOW, 4 * WINDOW));
}
