//! Clients that prove who they are by `Proxy-Authorization` (RFC 9110 §11.7).

use std::fmt;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tunnel_core::{Client, Identity, Secret, Text};

/// Judges what clients send in `Proxy-Authorization`.
#[async_trait]
pub trait ClientAuthenticator: fmt::Debug + Send + Sync {
    /// Decides who the client is. `client` holds what is known without the credentials, for example from a
    /// certificate; the identity to give is that one, with what the credentials prove added to it. Without
    /// credentials it may be enough as it is.
    ///
    /// The time limit of the dial bounds it.
    ///
    /// # Cancel safety
    ///
    /// It is dropped when the client leaves.
    async fn authenticate(
        &self,
        client: &Client,
        credentials: Option<&Credentials>,
    ) -> Result<Identity, Unauthenticated>;

    /// What to ask of a client that was turned away (`Proxy-Authenticate`); at least one, RFC 9110 §15.5.8.
    fn challenges(&self) -> Vec<Challenge>;
}

/// What a client sent in `Proxy-Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// A name and a password (RFC 7617).
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token (RFC 6750).
    Bearer(Secret),
}

/// The client has not proven who it is; answered with 407. The text is for the client, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unauthenticated(pub Text);

/// How a client can prove who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Challenge {
    /// A name and a password, in UTF-8, for this realm.
    Basic(Text),
    /// A token for this realm.
    Bearer(Text),
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic(realm) => write!(f, "Basic realm={}, charset=\"UTF-8\"", quoted(realm)),
            Self::Bearer(realm) => write!(f, "Bearer realm={}", quoted(realm)),
        }
    }
}

/// A quoted-string (RFC 9110 §5.6.4); a text has no control characters.
fn quoted(text: &Text) -> String {
    let escaped = text.as_str().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

impl Credentials {
    /// Reads the value of `Proxy-Authorization`. The error never quotes it.
    pub(crate) fn parse(value: &Secret) -> Result<Self, Unauthenticated> {
        let malformed = || Unauthenticated("the credentials in Proxy-Authorization are malformed".into());
        let value = std::str::from_utf8(value.expose()).map_err(|_| malformed())?;
        let (scheme, rest) = value.split_once(' ').ok_or_else(malformed)?;
        let rest = rest.trim_start_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD.decode(rest).map_err(|_| malformed())?;
            let colon = decoded.iter().position(|&byte| byte == b':').ok_or_else(malformed)?;
            let (user, password) = decoded.split_at(colon);
            let user = std::str::from_utf8(user).map_err(|_| malformed())?;
            Ok(Self::Basic {
                user: user.to_owned(),
                password: Secret::new(&password[1..]).map_err(|_| malformed())?,
            })
        } else if scheme.eq_ignore_ascii_case("bearer") {
            if rest.contains(' ') {
                return Err(malformed());
            }
            Secret::new(rest).map(Self::Bearer).map_err(|_| malformed())
        } else {
            Err(Unauthenticated(
                "Proxy-Authorization has neither the Basic nor the Bearer scheme".into(),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Credentials, Unauthenticated> {
        Credentials::parse(&Secret::new(value).unwrap())
    }

    #[test]
    fn basic_and_bearer_are_read() {
        // RFC 7617 §2.
        assert_eq!(
            parse("bAsIc QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            Ok(Credentials::Basic {
                user: "Aladdin".into(),
                password: Secret::new("open sesame").unwrap(),
            })
        );
        assert_eq!(
            parse("Bearer mF_9.B5f-4.1JqM"),
            Ok(Credentials::Bearer(Secret::new("mF_9.B5f-4.1JqM").unwrap()))
        );
    }

    #[test]
    fn malformed_credentials_are_not_repeated() {
        for value in [
            "Basic",
            "Basic ZGV2Og==",
            "Basic hunter2!",
            "Basic aHVudGVyMg==",
            "Bearer ",
            "Bearer hunter2 b",
            "Digest hunter2",
        ] {
            let error = parse(value).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{value}");
        }
    }

    #[test]
    fn a_realm_stays_in_its_quotes() {
        assert_eq!(
            Challenge::Basic("a \"b\\".into()).to_string(),
            r#"Basic realm="a \"b\\", charset="UTF-8""#
        );
    }
}
