//! TLS failures in words for people.

use std::error::Error as StdError;
use std::io;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use tunnel_proto::Text;

use crate::client::WrongSpiffeId;
use crate::date::Date;
use crate::identity::IdentityError;

/// Says in one clause why a handshake failed, for example `the peer's certificate expired on 2026-11-21
/// 10:03:21 UTC`.
///
/// It finds the error of the TLS library wherever it is in the chain of causes, also inside an [`io::Error`].
/// What came from the peer is made safe to print.
#[must_use]
pub fn explain(error: &(dyn StdError + 'static)) -> String {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return safe(&clause(error));
        }
        if let Some(error) = error.downcast_ref::<IdentityError>() {
            return safe(&error.to_string());
        }
        next = match error.downcast_ref::<io::Error>() {
            // `source` of an I/O error skips the error that it holds.
            Some(error) => match error.get_ref() {
                Some(inner) => Some(inner),
                None => return safe(&io_clause(error)),
            },
            None => error.source(),
        };
    }
    match error.downcast_ref::<io::Error>() {
        Some(error) => safe(&io_clause(error)),
        None => safe(&error.to_string()),
    }
}

/// Gives an error of reading under TLS words for people if the peer's end was not announced by a `close_notify` (RFC 8446
/// §6.1), of which the TLS library says what programmers should do. The kind stays.
#[must_use]
pub fn explain_end(error: io::Error) -> io::Error {
    const BROKEN_OFF: &str = "the peer broke off without a close_notify of TLS: its process ended, or something on the way cut \
                              the connection";
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::UnexpectedEof, BROKEN_OFF),
        _ => error,
    }
}

/// Says in one clause what the peer did not accept, given the TLS alert that it sent (RFC 8446 §6). In QUIC
/// the alert is the low byte of a CRYPTO_ERROR code (RFC 9001 §4.8).
#[must_use]
pub fn explain_received_alert(alert: u8) -> String {
    received(AlertDescription::from(alert))
}

/// Says in one clause what this side did not accept, given the TLS alert that it sent and the text of the TLS
/// library's error: for QUIC, where the error itself is not to be had.
#[must_use]
pub fn explain_sent_alert(alert: u8, detail: &str) -> String {
    let detail = detail.strip_prefix("invalid peer certificate: ").unwrap_or(detail);
    let clause = match AlertDescription::from(alert) {
        AlertDescription::CertificateExpired => match validity_bound(detail) {
            Some((bound, date)) => format!("the peer's certificate {bound} {date}"),
            None => "the peer's certificate has expired or is not valid yet".into(),
        },
        AlertDescription::UnknownCA if detail == "UnknownIssuer" => {
            certificate_clause(&CertificateError::UnknownIssuer)
        }
        AlertDescription::CertificateRevoked => certificate_clause(&CertificateError::Revoked),
        AlertDescription::CertificateRequired => clause(&Error::NoCertificatesPresented),
        AlertDescription::NoApplicationProtocol => clause(&Error::NoApplicationProtocol),
        // The library shows it inside its own names for other errors.
        _ if detail.contains(CA_AS_LEAF) => ca_as_leaf(),
        _ => format!("this side refused the handshake: {detail}"),
    };
    safe(&clause)
}

/// Finds the date in the library's text, which gives it in seconds since 1970.
fn validity_bound(detail: &str) -> Option<(&'static str, Date)> {
    let seconds = |marker| {
        let (_, rest) = detail.split_once(marker)?;
        let digits = rest.split_once(' ').map_or(rest, |(digits, _)| digits);
        digits.parse().ok().map(Date::from_unix)
    };
    let expired = seconds("is not valid after ").map(|date| ("expired on", date));
    expired.or_else(|| seconds("is not valid before ").map(|date| ("is not valid before", date)))
}

fn safe(clause: &str) -> String {
    Text::new(clause).as_str().to_owned()
}

fn io_clause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the peer closed the connection in the middle of the handshake".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the peer reset the connection in the middle of the handshake".into()
        }
        _ => error.to_string(),
    }
}

fn clause(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "the peer sent no certificate, and this side requires one".into(),
        Error::InvalidCertificate(error) => certificate_clause(error),
        Error::AlertReceived(alert) => received(*alert),
        Error::NoApplicationProtocol => "the two sides have no application protocol (ALPN) in common".into(),
        Error::PeerIncompatible(lack) => incompatible(lack),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "the peer does not speak TLS here: is one side set to plain text?".into()
        }
        Error::InvalidMessage(what) => format!("the peer sent a malformed TLS message ({what:?})"),
        Error::PeerMisbehaved(how) => format!("the peer broke the TLS protocol ({how:?})"),
        Error::DecryptError => "a message of the peer did not decrypt: it was damaged on the way".into(),
        Error::InvalidCertRevocationList(why) => {
            format!("the certificate revocation list cannot be used ({why:?})")
        }
        other => other.to_string(),
    }
}

fn certificate_clause(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the peer's certificate expired on {}", date(*not_after))
        }
        CertificateError::Expired => "the peer's certificate has expired".into(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the peer's certificate is not valid before {}", date(*not_before))
        }
        CertificateError::NotValidYet => "the peer's certificate is not valid yet".into(),
        CertificateError::UnknownIssuer => "the peer's certificate is not signed by a CA that this side trusts".into(),
        CertificateError::BadSignature => {
            "a signature in the peer's certificate chain or handshake does not verify".into()
        }
        CertificateError::Revoked => "the peer's certificate has been revoked".into(),
        CertificateError::UnknownRevocationStatus => {
            "no revocation list of this side covers the peer's certificate chain".into()
        }
        CertificateError::ExpiredRevocationListContext { next_update, .. } => {
            format!(
                "this side's certificate revocation list expired on {}",
                date(*next_update)
            )
        }
        CertificateError::NotValidForNameContext { expected, presented } => wrong_name(expected, presented),
        CertificateError::NotValidForName => "the server name is not among the names of the peer's certificate".into(),
        CertificateError::InvalidPurposeContext { required, .. } => {
            format!("the peer's certificate is not meant for {required}")
        }
        CertificateError::InvalidPurpose => "the peer's certificate is not meant for this use".into(),
        CertificateError::BadEncoding => "the peer's certificate is malformed".into(),
        CertificateError::Other(other) if other.0.to_string() == CA_AS_LEAF => ca_as_leaf(),
        CertificateError::Other(other) if other.0.is::<WrongSpiffeId>() || other.0.is::<IdentityError>() => {
            other.0.to_string()
        }
        other => format!("the peer's certificate is not acceptable ({other})"),
    }
}

/// What the library calls it, which has no variant for it.
const CA_AS_LEAF: &str = "CaUsedAsEndEntity";

fn ca_as_leaf() -> String {
    "the peer shows a CA certificate as its own: it needs one that the CA has issued".into()
}

fn wrong_name(expected: &ServerName<'_>, presented: &[String]) -> String {
    let expected = expected.to_str();
    // The library shows names as `DnsName("a.example")` and `IpAddress(10.0.0.1)`.
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let names: Vec<String> = presented.iter().map(plain).collect();
    if names.is_empty() {
        return format!("the peer's certificate holds no name, and {expected} was expected");
    }
    format!("the peer's certificate is for {}, not for {expected}", names.join(", "))
}

fn incompatible(lack: &PeerIncompatible) -> String {
    let what = match lack {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic => "TLS version",
        PeerIncompatible::NoCipherSuitesInCommon => "cipher suite",
        PeerIncompatible::NoKxGroupsInCommon => "key exchange group",
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => "signature scheme",
        other => return format!("the peer lacks a feature of TLS that this side requires ({other:?})"),
    };
    format!("the two sides have no {what} in common")
}

fn received(alert: AlertDescription) -> String {
    let refused = match alert {
        AlertDescription::UnknownCA => "it is not signed by a CA that the peer trusts",
        AlertDescription::CertificateExpired => "it has expired or is not valid yet",
        AlertDescription::CertificateRevoked => "it has been revoked",
        AlertDescription::BadCertificate => "it is malformed or lacks the name that the peer expects",
        AlertDescription::UnsupportedCertificate => "it is not meant for this use",
        AlertDescription::CertificateUnknown => "the peer does not say why",
        AlertDescription::AccessDenied => "it is valid, but its holder is not let in",
        AlertDescription::DecryptError => "a signature does not verify",
        other => return received_otherwise(other),
    };
    format!("the peer refused our certificate: {refused}")
}

fn received_otherwise(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "the peer requires a certificate, and this side sent none".into(),
        AlertDescription::NoApplicationProtocol => {
            "the peer speaks none of the application protocols (ALPN) that this side offers".into()
        }
        AlertDescription::ProtocolVersion => "the peer speaks no TLS version that this side offers".into(),
        AlertDescription::HandshakeFailure => {
            "the peer accepts nothing that this side offers: it may require a certificate or another cipher suite"
                .into()
        }
        AlertDescription::UnrecognisedName => "the peer has no certificate for the server name".into(),
        AlertDescription::InternalError => "the peer had an internal error".into(),
        other => format!("the peer ended the handshake with the TLS alert {other:?}"),
    }
}

fn date(time: UnixTime) -> Date {
    Date::from_unix(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
