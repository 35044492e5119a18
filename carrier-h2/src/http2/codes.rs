//! HTTP/2's error codes and the tunnel's (`docs/wire.md` §12.6).

use h2::Reason;
use tunnel_core::{CloseCode, ConnectionError, StreamCode, proto::VarInt};

/// Where the codes begin that HTTP/2 has no equivalent of, and how many fit there.
const PRIVATE: u32 = 0x5400_0000;
const PRIVATE_COUNT: u64 = 1 << 24;

/// Stream codes that have an equivalent.
const EQUIVALENTS: [(StreamCode, Reason); 6] = [
    (StreamCode::CANCELLED, Reason::CANCEL),
    (StreamCode::TARGET_RESET, Reason::CONNECT_ERROR),
    (StreamCode::MEMORY, Reason::ENHANCE_YOUR_CALM),
    (StreamCode::REFUSED, Reason::REFUSED_STREAM),
    (StreamCode::PROTOCOL, Reason::PROTOCOL_ERROR),
    (StreamCode::INTERNAL, Reason::INTERNAL_ERROR),
];

/// What RST_STREAM says for a stream code.
pub(crate) fn reason(code: StreamCode) -> Reason {
    if let Some((_, reason)) = EQUIVALENTS.iter().find(|(equivalent, _)| *equivalent == code) {
        return *reason;
    }
    match u32::try_from(code.value().into_inner()) {
        Ok(value) if u64::from(value) < PRIVATE_COUNT => Reason::from(PRIVATE + value),
        _ => Reason::CANCEL,
    }
}

/// What RST_STREAM says for a stream code to a peer that knows the codes of RFC 9113 §7 alone.
#[cfg(feature = "forward")]
pub(crate) fn plain_reason(code: StreamCode) -> Reason {
    match code {
        // RFC 9113 §8.5.
        StreamCode::TARGET_RESET | StreamCode::TARGET_ERROR => Reason::CONNECT_ERROR,
        StreamCode::MEMORY => Reason::ENHANCE_YOUR_CALM,
        StreamCode::PROTOCOL => Reason::PROTOCOL_ERROR,
        StreamCode::INTERNAL => Reason::INTERNAL_ERROR,
        _ => Reason::CANCEL,
    }
}

/// What GOAWAY says for the code with which a connection is closed.
#[cfg(feature = "forward")]
pub(crate) fn close_reason(code: CloseCode) -> Reason {
    match code {
        CloseCode::PROTOCOL | CloseCode::VERSION => Reason::PROTOCOL_ERROR,
        CloseCode::UNAUTHORIZED | CloseCode::FORBIDDEN => Reason::INADEQUATE_SECURITY,
        CloseCode::OVERLOADED | CloseCode::FLOOD => Reason::ENHANCE_YOUR_CALM,
        CloseCode::INTERNAL => Reason::INTERNAL_ERROR,
        _ => Reason::NO_ERROR,
    }
}

/// What the code of a GOAWAY means.
pub(crate) fn close_code(reason: Option<Reason>) -> CloseCode {
    match reason {
        Some(Reason::ENHANCE_YOUR_CALM) => CloseCode::FLOOD,
        Some(Reason::NO_ERROR) => CloseCode::DONE,
        Some(Reason::INTERNAL_ERROR) => CloseCode::INTERNAL,
        Some(Reason::INADEQUATE_SECURITY) => CloseCode::FORBIDDEN,
        _ => CloseCode::PROTOCOL,
    }
}

/// What a RST_STREAM means.
pub(crate) fn stream_code(reason: Reason) -> StreamCode {
    if let Some((code, _)) = EQUIVALENTS.iter().find(|(_, equivalent)| *equivalent == reason) {
        return *code;
    }
    match u32::from(reason).checked_sub(PRIVATE) {
        Some(value) if u64::from(value) < PRIVATE_COUNT => StreamCode::new(VarInt::from_u32(value)),
        _ if reason == Reason::NO_ERROR => StreamCode::CANCELLED,
        // What is left of RFC 9113 §7 finds fault with a frame.
        _ if u32::from(reason) <= u32::from(Reason::HTTP_1_1_REQUIRED) => StreamCode::PROTOCOL,
        _ => StreamCode::CANCELLED,
    }
}

/// Why a connection ended that nobody has closed in the tunnel's own words.
pub(crate) fn connection_error(error: h2::Error) -> ConnectionError {
    if !error.is_go_away() {
        return ConnectionError::transport(error);
    }
    let code = close_code(error.reason());
    if error.is_remote() {
        ConnectionError::remote(code, error.to_string())
    } else {
        ConnectionError::local(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_reset_of_http2() {
        let unknown = [0x0a, 0x4242, PRIVATE_COUNT - 1]
            .map(|value| StreamCode::new(VarInt::from_u32(u32::try_from(value).unwrap())));
        for code in StreamCode::NAMED.iter().copied().chain(unknown) {
            assert_eq!(stream_code(reason(code)), code);
        }
    }

    #[test]
    fn codes_that_do_not_fit_and_codes_of_strangers_become_ordinary_ones() {
        let large = StreamCode::new(VarInt::from_u32(1 << 24));
        assert_eq!(reason(large), Reason::CANCEL);
        for (reason, code) in [
            (Reason::NO_ERROR, StreamCode::CANCELLED),
            (Reason::FLOW_CONTROL_ERROR, StreamCode::PROTOCOL),
            (Reason::HTTP_1_1_REQUIRED, StreamCode::PROTOCOL),
            (Reason::from(0xdead_beef), StreamCode::CANCELLED),
        ] {
            assert_eq!(stream_code(reason), code, "{reason:?}");
        }
    }
}
