//! TLS alerts, which QUIC carries as transport errors (RFC 9001 §4.8).

use quinn::{ConnectionError, TransportErrorCode};

/// One clause that says which side did not accept what, if the connection ended for a reason of TLS.
pub(crate) fn explain(error: &ConnectionError) -> Option<String> {
    match error {
        ConnectionError::TransportError(error) => {
            Some(tunnel_tls::explain_sent_alert(alert(error.code)?, &error.reason))
        }
        ConnectionError::ConnectionClosed(close) => Some(tunnel_tls::explain_received_alert(alert(close.error_code)?)),
        _ => None,
    }
}

/// The alert in the code of a transport error, which is 0x100 more.
fn alert(code: TransportErrorCode) -> Option<u8> {
    u8::try_from(u64::from(code).checked_sub(0x100)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_codes_of_alerts_are_alerts() {
        assert_eq!(alert(TransportErrorCode::crypto(0)), Some(0));
        assert_eq!(alert(TransportErrorCode::crypto(255)), Some(255));
        assert_eq!(alert(TransportErrorCode::NO_VIABLE_PATH), None);
    }
}
