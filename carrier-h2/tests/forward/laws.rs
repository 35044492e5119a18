//! The laws, over a simulated network in virtual time, as far as the capabilities go. The end that dials, which the laws
//! call the agent's, is the one that opens streams.

use std::time::Duration;

use carrier_h2::forward::ForwardConfig;
use tunnel_testkit::sim::{Profile, TcpHarness};

use crate::world::World;

const SEND_QUEUE: usize = 128 * 1024;
/// So small that credit that is lost would be missed: law 9 fills two thirds of it, law 16 loses a multiple if any.
const CONNECTION_WINDOW: u32 = 3 * 1024 * 1024;

fn over(profile: Profile) -> TcpHarness {
    let harness = TcpHarness::new(profile, |net, tls, mux| {
        let config = ForwardConfig::builder().mux(mux).connection_window(CONNECTION_WINDOW);
        let World { carrier, listener, .. } = World::on(net, tls, config.build()?);
        Ok((Box::new(carrier), Box::new(listener)))
    });
    harness.held(SEND_QUEUE).greeting(b"PRI * HTTP/2.0\r\n")
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
