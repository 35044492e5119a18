//! The laws, over a simulated network in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod common;

use carrier_grpc::GrpcConfig;
use common::World;
use tunnel_testkit::sim::{Profile, TcpHarness};

/// What the mux queues of a stream.
const SEND_QUEUE: usize = 128 * 1024;
/// For networks on which the work for each byte is much.
const SMALL: usize = 4 * 1024;

fn over(profile: Profile) -> TcpHarness {
    let harness = TcpHarness::new(profile, |net, tls, mux| {
        let config = GrpcConfig::builder().mux(mux).build()?;
        let World { carrier, listener, .. } = World::on(net, tls, config);
        Ok((Box::new(carrier), Box::new(listener)))
    });
    // A stranger speaks HTTP/2 and never calls.
    harness
        .held(SEND_QUEUE)
        .greeting(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
}

fn crumbs() -> TcpHarness {
    over(Profile::crumbs(5, 7)).small(SMALL, 64 * SMALL)
}

mod plain {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::near()));
}

mod plain_at_once {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::default()));
}

mod plain_far_away {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::far()));
}

mod plain_in_crumbs {
    use super::*;
    tunnel_testkit::conformance!(crumbs());
}

mod tls {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::near()).tls());
}

mod tls_far_away {
    use super::*;
    tunnel_testkit::conformance!(over(Profile::far()).tls());
}

mod tls_in_crumbs {
    use super::*;
    tunnel_testkit::conformance!(crumbs().tls());
}
