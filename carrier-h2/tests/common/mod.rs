//! Two ends in one process, over a simulated network.
#![allow(dead_code)] // each test program uses a part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // this is part of tests, though none of its functions is one

pub(crate) mod raw;

use std::sync::Arc;

use carrier_h2::{ALPN, H2Carrier, H2Config, H2Listener};
use tunnel_core::{Carrier, HostPort, Listener, proto::mux::ConfigBuilder};
use tunnel_testkit::{
    ends::Ends,
    pki::{Tls, security},
    sim::{Net, Profile},
};

/// Settings with this mux.
pub(crate) fn with(mux: ConfigBuilder) -> H2Config {
    H2Config::builder().mux(mux.build().unwrap().into()).build().unwrap()
}

/// A server and an agent on a network.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) address: HostPort,
    pub(crate) listener: H2Listener,
    pub(crate) carrier: H2Carrier,
}

impl World {
    /// In clear text, on a network of no remarkable kind.
    pub(crate) fn plain(config: H2Config) -> Self {
        Self::new(Profile::near(), config)
    }

    /// In clear text.
    pub(crate) fn new(profile: Profile, config: H2Config) -> Self {
        Self::on(&Net::new(profile), None, config)
    }

    /// With TLS, where it is given.
    pub(crate) fn on(net: &Net, tls: Option<Tls<'_>>, config: H2Config) -> Self {
        let accept = net.listen();
        let address = accept.address();
        let (server, client) = security(tls, ALPN);
        Self {
            carrier: H2Carrier::new(address.clone(), client, Arc::new(net.clone()), config.clone()),
            listener: H2Listener::new(Box::new(accept), server, config),
            address,
            net: net.clone(),
        }
    }
}

impl Ends for World {
    fn ends(&mut self) -> (&dyn Carrier, &mut dyn Listener) {
        (&self.carrier, &mut self.listener)
    }
}
