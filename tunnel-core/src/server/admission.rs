//! The server's judgement of claims.

use std::time::Duration;

use async_trait::async_trait;
use tracing::debug;
use tunnel_proto::{Claim, CloseCode, Identity, Rejection, Welcome};

use super::Inner;
use crate::{
    admission::AuthError,
    carrier::{Admission, Admitted, Arrival},
};

/// How long an agent stays away from a server that is about to go: its address may soon be that of a successor, which
/// the agent should not miss for long.
const AFTER_DRAIN: Duration = Duration::from_secs(5);

#[async_trait]
impl Admission for Inner {
    /// Asks for proof first, then for the right to the agent id, then for room.
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        if self.is_draining() {
            return Err(Rejection {
                not_before: Some(AFTER_DRAIN),
                ..Rejection::new(CloseCode::SHUTDOWN, "this server is shutting down; use another one")
            });
        }
        let Some(claim) = &arrival.claim else {
            return Err(Rejection::new(
                CloseCode::FORBIDDEN,
                "only agents, which make a claim, are taken here",
            ));
        };
        let identity = self.identify(arrival, claim).await?;
        self.may_claim(&identity, claim)?;
        self.registry.check(&identity, claim)?;
        Ok(Admitted {
            identity,
            welcome: self.welcome(),
        })
    }
}

impl Inner {
    /// What the certificate and the credential prove together.
    async fn identify(&self, arrival: &Arrival, claim: &Claim) -> Result<Identity, Rejection> {
        let mut identity = arrival.identity.clone();
        let certificate = !identity.is_anonymous();
        if let Some(credential) = &claim.credential {
            identity.subject = match self.authenticator.authenticate(credential, arrival).await {
                Ok(subject) => subject,
                Err(AuthError::Invalid(text)) => return Err(Rejection::new(CloseCode::UNAUTHORIZED, text)),
                Err(AuthError::Unavailable { text, not_before }) => {
                    return Err(Rejection {
                        not_before: Some(not_before),
                        ..Rejection::new(CloseCode::OVERLOADED, text)
                    });
                }
            };
        }
        match self.config.require.missing(certificate, identity.subject.is_some()) {
            Some(text) => Err(Rejection::new(CloseCode::UNAUTHORIZED, text)),
            None => Ok(identity),
        }
    }

    pub(super) fn may_claim(&self, identity: &Identity, claim: &Claim) -> Result<(), Rejection> {
        self.policy
            .load()
            .check_claim(identity, &claim.agent)
            .map_err(|denied| {
                debug!(%identity, agent = %claim.agent, %denied, "claim forbidden");
                let text = format!(
                    "{identity} may not connect as agent {}; change the agent's id or the server's claim rules",
                    claim.agent
                );
                Rejection::new(CloseCode::FORBIDDEN, text)
            })
    }

    fn welcome(&self) -> Welcome {
        let mut welcome = Welcome::new(self.id.clone());
        welcome.server_count = self.config.server_count;
        welcome.limits = self.config.limits;
        welcome.keepalive = self.config.keepalive;
        welcome.software = concat!("tunnel/", env!("CARGO_PKG_VERSION")).into();
        welcome
    }
}
