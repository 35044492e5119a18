//! A connection, whoever dials.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;
use tunnel_core::{
    Admission, Admitted, Arrival, Carrier, Claim, CloseCode, Connection, DialError, Keepalive, Listener, Rejection,
    Welcome,
};

use super::{Config, pair};

/// Both ends of a connection that an agent with this claim has made: the agent's and the server's. For tests in which
/// neither end is the one that dials, as when a server dials an agent.
pub async fn ends(config: Config, claim: &Claim) -> Result<Ends, DialError> {
    let (carrier, mut listener) = pair(config);
    let remote = carrier.remote();
    let deadline = Instant::now() + Keepalive::default().bound();
    let welcomed = async {
        let incoming = listener.accept().await.ok();
        let incoming = incoming.ok_or(DialError::TimedOut { remote })?;
        let connection = incoming.handshake(&Welcoming).await;
        connection.map_err(|error| DialError::Unusable(error.to_string()))
    };
    let (agent, server) = tokio::try_join!(carrier.dial(claim, deadline), welcomed)?;
    Ok(Ends { agent, server })
}

/// Both ends of one connection.
#[derive(Debug)]
pub struct Ends {
    /// The agent's: its peer is the server.
    pub agent: Arc<dyn Connection>,
    /// The server's: its peer is the agent.
    pub server: Arc<dyn Connection>,
}

/// Lets everybody in.
#[derive(Debug)]
struct Welcoming;

#[async_trait]
impl Admission for Welcoming {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        let server = "memory".parse();
        let server = server.map_err(|_| Rejection::new(CloseCode::INTERNAL, "no name"))?;
        Ok(Admitted {
            identity: arrival.identity.clone(),
            welcome: Welcome::new(server),
        })
    }
}
