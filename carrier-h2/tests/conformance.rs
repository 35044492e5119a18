//! The laws, over a simulated network in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use std::time::Duration;

use carrier_h2::H2Config;
use common::World;
use tunnel_testkit::sim::{Profile, TcpHarness};

const WINDOW: usize = 64 * 1024;
const SEND_QUEUE: usize = 128 * 1024;
/// So small that credit that is lost would be missed: law 9 fills two thirds of it, law 16 loses a multiple if any.
const CONNECTION_WINDOW: u32 = 3 * 1024 * 1024;

fn over(profile: Profile) -> TcpHarness {
    let harness = TcpHarness::new(profile, |net, tls, mux| {
        let config = H2Config::builder().mux(mux).connection_window(CONNECTION_WINDOW);
        let World { carrier, listener, .. } = World::on(net, tls, config.build()?);
        Ok((Box::new(carrier), Box::new(listener)))
    });
    harness
        .held(SEND_QUEUE)
        .greeting(b"GET /tunnel HTTP/1.1\r\nHost: server.test\r\n")
}

mod plain {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::near()));
}

mod tls {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::near()).tls());
}

mod tls_far_away {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::far()).tls().prompt(Duration::from_secs(2)));
}

mod in_crumbs {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::crumbs(37, 101)).small(WINDOW, 16 * WINDOW));
}
