//! How a peer breaks RFC 6455, and with which code it is told (§7.4.1).

use tungstenite::{
    Error,
    error::ProtocolError,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// Something that a peer must not do.
#[derive(Debug)]
pub(crate) struct Violation {
    code: CloseCode,
    pub(crate) text: String,
}

impl Violation {
    /// Everything that ends with an error and is neither the end of the pipe nor an error of it.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        let code = match error {
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
            Error::Protocol(_) => CloseCode::Protocol,
            Error::Capacity(_) => CloseCode::Size,
            // The reason of a close frame, or a text message, which is not wanted anyway.
            Error::Utf8(_) => CloseCode::Invalid,
            _ => return None,
        };
        let text = error.to_string();
        Some(Self { code, text })
    }

    /// A text message. The mux has binary ones alone.
    pub(crate) fn text_message() -> Self {
        Self {
            code: CloseCode::Unsupported,
            text: "a text message; only binary messages are understood".to_owned(),
        }
    }

    /// The close frame that says so. A reason has at most 123 bytes (RFC 6455 §5.5).
    pub(crate) fn frame(&self) -> CloseFrame {
        let end = self.text.floor_char_boundary(123);
        CloseFrame {
            code: self.code,
            reason: self.text[..end].into(),
        }
    }
}
