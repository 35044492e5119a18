//! Who counts as an agent.
//!
//! A claim is accepted when something was proven, by a certificate, a token or both; when the identity may be this
//! agent; and when nobody else is.

mod token;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;
use tunnel_proto::Secret;

pub use self::token::{InvalidTokens, TokenAuthenticator};
use crate::carrier::Arrival;

/// Verifies the credential of a claim.
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// Gives the name that the credential was issued to, which becomes the identity's
    /// [`subject`](tunnel_proto::Identity::subject), or `None` if this authenticator takes no notice of credentials.
    ///
    /// The time it may take is what is left of the handshake's deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future decides nothing.
    async fn authenticate(&self, credential: &Secret, arrival: &Arrival) -> Result<Option<String>, AuthError>;
}

/// Why a credential proved nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// It is not valid; the text reaches the agent.
    #[error("{0}")]
    Invalid(String),
    /// It cannot be verified at the moment; the text reaches the agent.
    #[error("{text}")]
    Unavailable {
        /// Why.
        text: String,
        /// When the agent may try again.
        not_before: Duration,
    },
}

/// Takes no notice of credentials: certificates alone count.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoToken;

#[async_trait]
impl Authenticator for NoToken {
    async fn authenticate(&self, _: &Secret, _: &Arrival) -> Result<Option<String>, AuthError> {
        Ok(None)
    }
}

/// What an agent must prove itself with. A credential that is presented must be valid in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Require {
    /// A certificate.
    Certificate,
    /// A token.
    Token,
    /// A certificate or a token.
    #[default]
    Either,
    /// A certificate and a token.
    Both,
}

impl Require {
    /// What is missing, as a sentence that says what to do.
    pub(crate) fn missing(self, certificate: bool, token: bool) -> Option<&'static str> {
        match (self, certificate, token) {
            (Self::Certificate | Self::Both, false, _) => {
                Some("this server requires a client certificate from its agent CA; configure the agent with one")
            }
            (Self::Token | Self::Both, _, false) => Some("this server requires a token; configure the agent with one"),
            (Self::Either, false, false) => {
                Some("this server requires a client certificate or a token; configure the agent with one")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_never_enough() {
        for (require, certificate, token, enough) in [
            (Require::Certificate, true, false, true),
            (Require::Certificate, false, true, false),
            (Require::Token, false, true, true),
            (Require::Token, true, false, false),
            (Require::Either, true, false, true),
            (Require::Either, false, true, true),
            (Require::Both, true, false, false),
            (Require::Both, false, true, false),
            (Require::Both, true, true, true),
        ] {
            assert_eq!(require.missing(certificate, token).is_none(), enough, "{require:?}");
            assert!(require.missing(false, false).is_some(), "{require:?}");
        }
    }
}
