//! What a server answers to a claim that it does not accept.

use std::time::Duration;

use crate::{CloseCode, Text};

/// What a server answers to a claim that it does not accept (`docs/wire.md` §3.3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({code})")]
pub struct Rejection {
    /// Why, as the code with which the connection closes.
    pub code: CloseCode,
    /// One sentence that says what to do, without secrets.
    pub text: Text,
    /// How long the agent should wait before it tries this server again; kept to milliseconds.
    pub not_before: Option<Duration>,
}

impl Rejection {
    /// Makes a rejection that says nothing about when to come back.
    #[must_use]
    pub fn new(code: CloseCode, text: impl Into<Text>) -> Self {
        Self {
            code,
            text: text.into(),
            not_before: None,
        }
    }
}
