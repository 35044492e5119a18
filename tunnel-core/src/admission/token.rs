//! Tokens from a list.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tunnel_proto::Secret;

use super::{AuthError, Authenticator};
use crate::carrier::Arrival;

/// Knows tokens from a list, each with the name that it was issued to. The list can be replaced at run time; whoever
/// is connected stays.
///
/// The text form has one entry a line: a name, blanks, the token. Empty lines and lines that begin with `#` are
/// skipped. A name may have several tokens, so that they can be rotated.
#[derive(Debug, Default)]
pub struct TokenAuthenticator {
    tokens: ArcSwap<Vec<Token>>,
}

#[derive(Debug)]
struct Token {
    subject: String,
    secret: Secret,
}

/// A list of tokens that cannot be used. No message holds a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTokens {
    /// The file cannot be read.
    #[error("cannot read the tokens in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is not a name and a token.
    #[error("line {0} of the tokens is not a name, a blank and a token")]
    Line(usize),
    /// A token is so short that it could be guessed, or longer than a claim can hold.
    #[error(
        "the token on line {line} must have {} to {} bytes",
        TokenAuthenticator::MIN,
        Secret::MAX
    )]
    Length {
        /// The number of the line, from one.
        line: usize,
    },
    /// A token was issued to two names, so that it proves neither.
    #[error("the token on line {line} is on an earlier line, too; give every name a token of its own")]
    Duplicate {
        /// The number of the line, from one.
        line: usize,
    },
    /// There is no token.
    #[error("there is no token in the list")]
    Empty,
}

impl TokenAuthenticator {
    /// The shortest token, in bytes.
    pub const MIN: usize = 16;

    /// Knows the tokens in a text.
    pub fn new(text: &str) -> Result<Self, InvalidTokens> {
        let this = Self::default();
        this.replace(text)?;
        Ok(this)
    }

    /// Knows the tokens in a file.
    pub fn from_file(path: &Path) -> Result<Self, InvalidTokens> {
        let this = Self::default();
        this.replace_from_file(path)?;
        Ok(this)
    }

    /// Takes the tokens in a text instead of those it knows; keeps those if there is an error.
    pub fn replace(&self, text: &str) -> Result<(), InvalidTokens> {
        let lines = text.lines().map(str::trim).enumerate();
        let entries = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let mut tokens = Vec::new();
        let mut seen = HashSet::new();
        for (at, entry) in entries {
            let token = Token::parse(at + 1, entry)?;
            if !seen.insert(token.secret.expose().to_vec()) {
                return Err(InvalidTokens::Duplicate { line: at + 1 });
            }
            tokens.push(token);
        }
        if tokens.is_empty() {
            return Err(InvalidTokens::Empty);
        }
        self.tokens.store(Arc::new(tokens));
        Ok(())
    }

    /// Takes the tokens in a file instead of those it knows; keeps those if there is an error.
    pub fn replace_from_file(&self, path: &Path) -> Result<(), InvalidTokens> {
        let text = fs::read_to_string(path).map_err(|source| InvalidTokens::Read {
            path: path.to_owned(),
            source,
        })?;
        self.replace(&text)
    }
}

impl Token {
    fn parse(line: usize, text: &str) -> Result<Self, InvalidTokens> {
        let (subject, secret) = text.split_once(char::is_whitespace).ok_or(InvalidTokens::Line(line))?;
        let secret = secret.trim_start();
        if secret.contains(char::is_whitespace) {
            return Err(InvalidTokens::Line(line));
        }
        match Secret::new(secret) {
            Ok(secret) if secret.expose().len() >= TokenAuthenticator::MIN => Ok(Self {
                subject: subject.to_owned(),
                secret,
            }),
            _ => Err(InvalidTokens::Length { line }),
        }
    }
}

#[async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(&self, credential: &Secret, _: &Arrival) -> Result<Option<String>, AuthError> {
        let tokens = self.tokens.load();
        // Every token is compared, each in constant time, so that how long it takes says nothing about any.
        let mut found = None;
        for token in tokens.iter() {
            if token.secret == *credential {
                found = Some(&token.subject);
            }
        }
        match found {
            Some(subject) => Ok(Some(subject.clone())),
            None => Err(AuthError::Invalid(
                "this server does not know the token; check the agent's token, or add it to the server's".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use tunnel_proto::{Claim, Generation, Identity};

    use super::*;

    const LIST: &str = "# agents\n\nnode-7\t0123456789abcdef\n  edge  fedcba9876543210 \nedge fedcba9876543211\n";

    async fn subject(tokens: &TokenAuthenticator, token: &str) -> Option<String> {
        let claim = Claim::new("a".parse().unwrap(), Generation(1));
        let arrival = Arrival::new("memory", ([127, 0, 0, 1], 1).into(), Identity::anonymous(), claim);
        let subject = tokens.authenticate(&Secret::new(token).unwrap(), &arrival).await;
        subject.ok().flatten()
    }

    #[tokio::test]
    async fn a_token_proves_the_name_it_was_issued_to() {
        let tokens = TokenAuthenticator::new(LIST).unwrap();
        assert_eq!(subject(&tokens, "0123456789abcdef").await.as_deref(), Some("node-7"));
        assert_eq!(subject(&tokens, "fedcba9876543210").await.as_deref(), Some("edge"));
        assert_eq!(subject(&tokens, "fedcba9876543211").await.as_deref(), Some("edge"));
        for wrong in ["0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "agents"] {
            assert_eq!(subject(&tokens, wrong).await, None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_bad_list_leaves_the_old_one_in_force() {
        let tokens = TokenAuthenticator::new(LIST).unwrap();
        assert!(matches!(
            tokens.replace("a short"),
            Err(InvalidTokens::Length { line: 1 })
        ));
        assert!(matches!(
            tokens.replace("\n0123456789abcdef"),
            Err(InvalidTokens::Line(2))
        ));
        assert!(matches!(tokens.replace("# nothing"), Err(InvalidTokens::Empty)));
        let twice = "a 0123456789abcdef\nb 0123456789abcdef";
        assert!(matches!(
            tokens.replace(twice),
            Err(InvalidTokens::Duplicate { line: 2 })
        ));
        assert!(subject(&tokens, "0123456789abcdef").await.is_some());
        tokens.replace("x aaaaaaaaaaaaaaaa").unwrap();
        assert!(subject(&tokens, "0123456789abcdef").await.is_none());
    }

    #[test]
    fn tokens_do_not_show_in_debug_output() {
        let tokens = TokenAuthenticator::new(LIST).unwrap();
        let shown = format!("{tokens:?}");
        assert!(shown.contains("node-7") && !shown.contains("0123456789abcdef"));
    }
}
