//! TLS alerts in words (RFC 8446 §6, RFC 9001 §4.8).
//!
//! QUIC carries the alert's number as a transport error code, and the TLS library's own words only on the side that
//! raised it.

use quinn::{ConnectionError, TransportErrorCode};

/// Where this process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Agent,
    Server,
}

/// One clause that says which side did not accept what, if the connection ended for a reason of TLS.
pub(crate) fn explain(error: &ConnectionError, side: Side) -> Option<String> {
    match error {
        ConnectionError::TransportError(error) => {
            let alert = alert(error.code)?;
            let words = error.reason.trim_start_matches("TLS error: ");
            Some(raised_here(alert, side, words))
        }
        ConnectionError::ConnectionClosed(close) => Some(raised_there(alert(close.error_code)?, side)),
        _ => None,
    }
}

/// The alert in a transport error code, which is 0x100 more.
fn alert(code: TransportErrorCode) -> Option<u8> {
    let number = u64::from(code).checked_sub(0x100)?;
    u8::try_from(number).ok()
}

const NO_APPLICATION_PROTOCOL: u8 = 120;
const CERTIFICATE_REQUIRED: u8 = 116;

fn raised_here(alert: u8, side: Side, words: &str) -> String {
    match (alert, side) {
        (NO_APPLICATION_PROTOCOL, Side::Agent) => no_protocol("the server"),
        (NO_APPLICATION_PROTOCOL, Side::Server) => no_protocol("the peer"),
        (CERTIFICATE_REQUIRED, Side::Server) => "the agent showed no client certificate".to_owned(),
        (42..=51, Side::Agent) => format!("the server's certificate was not accepted: {words}"),
        (42..=51, Side::Server) => format!("the agent's certificate was not accepted: {words}"),
        _ => words.to_owned(),
    }
}

fn raised_there(alert: u8, side: Side) -> String {
    let (they, whose) = match side {
        Side::Agent => ("the server", "this agent's"),
        Side::Server => ("the agent", "this server's"),
    };
    let problem = match alert {
        NO_APPLICATION_PROTOCOL => return no_protocol(they),
        CERTIFICATE_REQUIRED => return format!("{they} requires a client certificate, and this agent showed none"),
        112 => return format!("{they} does not know the name that was asked for"),
        42 => "it is not valid",
        43 => "it is of an unsupported kind",
        44 => "it is revoked",
        45 => "it has expired, or a clock is wrong",
        46 => "of an unspecified problem",
        48 => "it was not issued by a CA that the other side trusts",
        49 => "access was denied",
        51 => "its signature does not verify",
        _ => return format!("{they} raised TLS alert {alert}"),
    };
    format!("{they} did not accept {whose} certificate: {problem}")
}

fn no_protocol(who: &str) -> String {
    format!("{who} does not speak {} (ALPN)", String::from_utf8_lossy(crate::ALPN))
}
