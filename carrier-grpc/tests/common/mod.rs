//! Two ends in one process, over a simulated network.
#![allow(dead_code)] // each test program uses a part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // this is part of tests, though none of its functions is one

pub(crate) mod raw;

use std::sync::Arc;

use carrier_grpc::{ALPN, GrpcCarrier, GrpcConfig, GrpcListener};
use tunnel_core::{Carrier, HostPort, Listener};
use tunnel_tcp::{ClientSecurity, ServerSecurity};
use tunnel_testkit::{
    ends::Ends,
    pki::{Tls, security},
    sim::{Net, Profile},
};
use tunnel_tls::{ClientTls, ServerTls};

/// A server and an agent on a network.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) address: HostPort,
    pub(crate) listener: GrpcListener,
    pub(crate) carrier: GrpcCarrier,
}

impl World {
    /// In clear text, on a network of no remarkable kind.
    pub(crate) fn plain() -> Self {
        Self::new(Profile::near(), GrpcConfig::default())
    }

    /// In clear text.
    pub(crate) fn new(profile: Profile, config: GrpcConfig) -> Self {
        Self::on(&Net::new(profile), None, config)
    }

    /// By TLS.
    pub(crate) fn tls(server: &ServerTls, client: &ClientTls) -> Self {
        Self::on(
            &Net::new(Profile::default()),
            Some((server, client)),
            GrpcConfig::default(),
        )
    }

    /// With TLS, where it is given.
    pub(crate) fn on(net: &Net, tls: Option<Tls<'_>>, config: GrpcConfig) -> Self {
        Self::between(net, security(tls, ALPN), config)
    }

    /// With ends that need not fit each other.
    pub(crate) fn between(net: &Net, (server, client): (ServerSecurity, ClientSecurity), config: GrpcConfig) -> Self {
        let accept = net.listen();
        let address = accept.address();
        let dial = Arc::new(net.clone());
        Self {
            carrier: GrpcCarrier::new(address.clone(), client, dial, config.clone()).expect("a carrier"),
            listener: GrpcListener::new(Box::new(accept), server, config),
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
