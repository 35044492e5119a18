//! A load balancer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tokio::time::Instant;
use tunnel_core::{Carrier, Claim, Connection, DialError};

use crate::support::Site;

/// Leads to several servers in turn, as a load balancer does.
#[derive(Debug)]
pub(crate) struct Balanced {
    sites: Vec<Site>,
    next: AtomicUsize,
}

impl Balanced {
    pub(crate) fn new(sites: Vec<Site>) -> Self {
        Self {
            sites,
            next: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Carrier for Balanced {
    fn name(&self) -> &'static str {
        "balanced"
    }

    fn remote(&self) -> String {
        "wss://gw.example/tunnel".to_owned()
    }

    async fn dial(&self, claim: &Claim, deadline: Instant) -> Result<Arc<dyn Connection>, DialError> {
        let Self { sites, next } = self;
        let site = &sites[next.fetch_add(1, Ordering::SeqCst) % sites.len()];
        site.carrier.dial(claim, deadline).await
    }
}
