//! What a carrier brings to be tested.

use std::{any::Any, error::Error, fmt, time::Duration};

use async_trait::async_trait;
use tunnel_core::{
    Carrier, Identity, Keepalive, Listener,
    mux::MuxConfig,
    proto::mux::{Config, InvalidConfig, Windows},
};

use crate::Side;

/// What a test says when something that is not under test fails.
pub type SetupError = Box<dyn Error + Send + Sync>;

/// Makes pairs of ends for the laws, each with a network of its own.
#[async_trait]
pub trait Harness: fmt::Debug + Send + Sync {
    /// Makes a server's listener and an agent's carrier that dials it.
    async fn stage(&self, setup: &Setup) -> Result<Stage, SetupError>;

    /// What the other end is to verify about `side`, before any credential.
    fn identity(&self, side: Side) -> Identity;

    /// How many bytes of one stream and direction the receiving end takes without the reader taking any. At least 4.
    fn window(&self) -> usize;

    /// The most bytes of one stream and direction that a sender can get rid of while nobody reads: the window and
    /// what the sending end itself holds.
    fn bound(&self) -> usize;

    /// How many bytes a transfer has whose speed is measured: so many that it takes at least 20 ms, if bytes take
    /// time at all. Default: 64 windows.
    fn bulk(&self) -> usize {
        64 * self.window()
    }

    /// Within which time something that happens at one end is known at the other: a few round trips. Default 1 s.
    fn prompt(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// How long a law may take. Default ten minutes, which is nothing when time is paused.
    fn patience(&self) -> Duration {
        Duration::from_secs(600)
    }
}

/// What a law needs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setup {
    /// How many streams each end may have open. The welcome says it, too.
    pub max_streams: u32,
    /// How both ends watch the connection. The welcome says it, too.
    pub keepalive: Keepalive,
    /// The end whose certificate the other does not trust.
    pub untrusted: Option<Side>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            max_streams: 16,
            keepalive: Keepalive {
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
            },
            untrusted: None,
        }
    }
}

impl Setup {
    /// It for a carrier that has a mux, with streams whose window never changes.
    pub fn mux(&self, window: usize) -> Result<MuxConfig, InvalidConfig> {
        let config = Config::builder()
            .max_streams(self.max_streams)
            .keepalive(self.keepalive)
            .stream_window(Windows::fixed(window as u64));
        Ok(config.build()?.into())
    }
}

/// Two ends that have not met yet.
#[derive(Debug)]
pub struct Stage {
    /// The agent's end.
    pub carrier: Box<dyn Carrier>,
    /// The server's end.
    pub listener: Box<dyn Listener>,
    /// What is between them.
    pub network: Box<dyn Network>,
}

/// What is between two ends.
#[async_trait]
pub trait Network: fmt::Debug + Send + Sync {
    /// Ends the transport of every connection, with or without telling the ends.
    fn cut(&self);

    /// Delivers nothing more, in either direction, and tells nobody.
    fn silence(&self);

    /// Lets a stranger begin to connect to the listener and then say nothing for as long as the value lives.
    async fn knock(&self) -> Result<Box<dyn Any + Send>, SetupError>;
}
