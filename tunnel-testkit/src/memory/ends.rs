//! A connection, whoever dials.

use std::sync::Arc;

use tunnel_core::{Claim, Connection, DialError};

use super::{Config, pair};
use crate::ends::{Verdict, meet};

/// Both ends of one connection.
#[derive(Debug)]
pub struct Ends {
    /// The agent's: its peer is the server.
    pub agent: Arc<dyn Connection>,
    /// The server's: its peer is the agent.
    pub server: Arc<dyn Connection>,
}

/// Both ends of a connection that an agent with this claim has made. For tests in which neither end is the one that
/// dials, as when a server dials an agent.
pub async fn ends(config: Config, claim: &Claim) -> Result<Ends, DialError> {
    let (carrier, mut listener) = pair(config);
    let (agent, server) = meet(&carrier, &mut listener, claim, &Verdict::default()).await;
    let server = server.map_err(|error| DialError::Unusable(error.to_string()))?;
    Ok(Ends { agent: agent?, server })
}
