//! The memory carrier, held to the laws.

use std::{any::Any, num::NonZeroUsize};

use async_trait::async_trait;
use tunnel_core::Identity;

use super::{Config, MemoryCarrier, pair};
use crate::{
    Side,
    conformance::{Harness, Network, Setup, SetupError, Stage},
};

/// Has the memory carrier held to the laws of [`conformance`](mod@crate::conformance).
#[derive(Clone, Debug)]
pub struct MemoryHarness {
    config: Config,
}

impl MemoryHarness {
    /// Bytes arrive at once.
    #[must_use]
    pub fn instant() -> Self {
        Self {
            config: Config::default(),
        }
    }

    /// Bytes take time: one window per millisecond.
    #[must_use]
    pub fn slow() -> Self {
        let mut config = Config::default();
        config.bandwidth = NonZeroUsize::new(config.window);
        Self { config }
    }
}

#[async_trait]
impl Harness for MemoryHarness {
    async fn stage(&self, setup: &Setup) -> Result<Stage, SetupError> {
        let (carrier, listener) = pair(Config {
            max_streams: setup.max_streams,
            keepalive: setup.keepalive,
            server_is_trusted: setup.untrusted != Some(Side::Server),
            ..self.config.clone()
        });
        let carrier = match setup.untrusted {
            Some(Side::Agent) => carrier.untrusted(),
            _ => carrier,
        };
        Ok(Stage {
            network: Box::new(carrier.clone()),
            carrier: Box::new(carrier),
            listener: Box::new(listener),
        })
    }

    fn identity(&self, side: Side) -> Identity {
        match side {
            Side::Agent => self.config.agent.clone(),
            Side::Server => self.config.server.clone(),
        }
    }

    fn window(&self) -> usize {
        self.config.window
    }

    fn bound(&self) -> usize {
        self.config.window
    }
}

#[async_trait]
impl Network for MemoryCarrier {
    fn cut(&self) {
        self.wire().cut();
    }

    fn silence(&self) {
        self.wire().silence();
    }

    async fn knock(&self) -> Result<Box<dyn Any + Send>, SetupError> {
        Ok(Box::new(MemoryCarrier::knock(self).await?))
    }
}
