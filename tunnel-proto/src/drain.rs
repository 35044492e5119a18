//! What an end says when it wants no more streams.

use crate::{
    FrameKind, Text,
    field::{FieldWriter, Fields, once},
    message::{Body, BodyError},
};

/// Asks the peer to open no new stream on this connection and to go elsewhere; the streams that are open finish
/// (`docs/wire.md` §3.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drain {
    /// One sentence that says why, for people.
    pub text: Text,
}

impl Drain {
    /// Makes one.
    #[must_use]
    pub fn new(text: impl Into<Text>) -> Self {
        Self { text: text.into() }
    }
}

const TEXT: u64 = 1;

impl Body for Drain {
    const KIND: FrameKind = FrameKind::Drain;
    const FIELDS: &'static [(u64, &'static str)] = &[(TEXT, "text")];

    fn write(&self, out: &mut FieldWriter) {
        out.text_if_any(TEXT, self.text.as_str());
    }

    fn read(fields: Fields<'_>) -> Result<Self, BodyError> {
        let mut text = None;
        fields.each(|id, value| match id {
            TEXT => once(&mut text, Text::new(value.text(Text::MAX)?)),
            _ => Ok(()),
        })?;
        Ok(Self {
            text: text.unwrap_or_default(),
        })
    }
}
