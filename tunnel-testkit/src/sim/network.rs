//! A network between the ends of a stage, for the laws of carriers over TCP.

use std::any::Any;

use async_trait::async_trait;
use tunnel_tcp::Dial;

use super::net::Net;
use crate::conformance::{Network, SetupError};

/// There has to be a listener.
#[async_trait]
impl Network for Net {
    fn cut(&self) {
        Self::cut(self);
    }

    fn silence(&self) {
        Self::silence(self);
    }

    /// A stranger who connects to the first listener and sends nothing.
    async fn knock(&self) -> Result<Box<dyn Any + Send>, SetupError> {
        let server = self.first_listener().ok_or("nobody listens")?;
        let stranger = self.dial(&server.to_string().parse()?).await?;
        Ok(Box::new(stranger.io))
    }
}
