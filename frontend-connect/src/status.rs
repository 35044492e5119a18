//! The one table from refusals to HTTP status codes.

use tunnel_core::RefusalKind;

/// The status with which a refusal of this kind is answered.
///
/// It is what RFC 9209 §2.3 recommends, except that a target which policy forbids is 403 (the client can do
/// something about it, the gateway is not bad) and an unknown agent or target is 404.
pub(crate) const fn of_refusal(kind: RefusalKind) -> u16 {
    match kind {
        RefusalKind::HttpRequestError => 400,
        RefusalKind::HttpRequestDenied | RefusalKind::DestinationIpProhibited => 403,
        RefusalKind::DestinationNotFound => 404,
        RefusalKind::ProxyInternalError | RefusalKind::ProxyConfigurationError => 500,
        RefusalKind::DnsError
        | RefusalKind::DestinationIpUnroutable
        | RefusalKind::ConnectionRefused
        | RefusalKind::ConnectionTerminated
        | RefusalKind::ProxyLoopDetected => 502,
        RefusalKind::DestinationUnavailable | RefusalKind::ConnectionLimitReached => 503,
        RefusalKind::DnsTimeout | RefusalKind::ConnectionTimeout => 504,
        _ => kind.recommended_status(),
    }
}

/// The reason phrase of each status that this frontend sends (RFC 9110 §15, RFC 6585).
pub(crate) const fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        // The phrase may be empty, RFC 9112 §4.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_status_with_a_phrase() {
        for &kind in RefusalKind::ALL {
            let status = of_refusal(kind);
            assert!((400..600).contains(&status), "{kind}: {status}");
            assert!(!reason_phrase(status).is_empty(), "{kind}: {status}");
        }
    }
}
