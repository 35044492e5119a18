//! What a server answers to a claim that it does not accept.

use std::time::Duration;

use crate::{
    CloseCode, FrameKind, Text, VarInt,
    field::{FieldWriter, Fields, once, required},
    message::{Body, BodyError},
};

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

const CODE: u64 = 1;
const TEXT: u64 = 2;
const NOT_BEFORE: u64 = 3;

impl Body for Rejection {
    const KIND: FrameKind = FrameKind::Rejection;
    const FIELDS: &'static [(u64, &'static str)] = &[(CODE, "code"), (TEXT, "text"), (NOT_BEFORE, "not_before")];

    fn write(&self, out: &mut FieldWriter) {
        out.integer(CODE, self.code.value());
        out.text_if_any(TEXT, self.text.as_str());
        if let Some(wait) = self.not_before {
            out.integer(NOT_BEFORE, VarInt::from_millis(wait));
        }
    }

    fn read(fields: Fields<'_>) -> Result<Self, BodyError> {
        let (mut code, mut text, mut not_before) = (None, None, None);
        fields.each(|id, value| match id {
            CODE => once(&mut code, CloseCode::new(value.integer()?)),
            TEXT => once(&mut text, Text::new(value.text(Text::MAX)?)),
            NOT_BEFORE => once(&mut not_before, value.integer()?.into_millis()),
            _ => Ok(()),
        })?;
        Ok(Self {
            code: required(CODE, code)?,
            text: text.unwrap_or_default(),
            not_before,
        })
    }
}
