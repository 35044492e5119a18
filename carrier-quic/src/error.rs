//! quinn's errors and codes in the words of the seam.

use std::time::Duration;

use tunnel_core::{CloseCode, ConnectionError, StreamCode, Text, proto::VarInt};

/// A stateless reset came (RFC 9000 §10.3).
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the peer has started anew and knows nothing of this connection")]
struct Forgotten;

/// The code of a RESET_STREAM or STOP_SENDING that arrived.
pub(crate) fn stream_code(code: quinn::VarInt) -> StreamCode {
    StreamCode::new(VarInt::saturating_from_u64(code.into_inner()))
}

/// The code as QUIC sends it.
pub(crate) fn quic_stream_code(code: StreamCode) -> quinn::VarInt {
    quic_code(code.value())
}

/// The code as QUIC sends it.
pub(crate) fn quic_close_code(code: CloseCode) -> quinn::VarInt {
    quic_code(code.value())
}

fn quic_code(value: VarInt) -> quinn::VarInt {
    // Both count to 2^62 - 1, so nothing is cut.
    quinn::VarInt::from_u64(value.into_inner()).unwrap_or(quinn::VarInt::MAX)
}

/// Why a connection ended. `local` is what this side closed it with, `silence` how long the peer may be silent.
pub(crate) fn connection_error(
    error: quinn::ConnectionError,
    local: Option<&(CloseCode, Text)>,
    silence: Duration,
) -> ConnectionError {
    match error {
        quinn::ConnectionError::LocallyClosed => match local {
            Some((code, reason)) => ConnectionError::local(*code, reason.clone()),
            None => ConnectionError::local(CloseCode::DONE, ""),
        },
        quinn::ConnectionError::ApplicationClosed(close) => ConnectionError::remote(
            CloseCode::new(VarInt::saturating_from_u64(close.error_code.into_inner())),
            String::from_utf8_lossy(&close.reason).as_ref(),
        ),
        quinn::ConnectionError::TimedOut => ConnectionError::TimedOut { after: silence },
        quinn::ConnectionError::Reset => ConnectionError::transport(Forgotten),
        other => ConnectionError::transport(other),
    }
}
