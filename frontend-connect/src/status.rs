//! Reason phrases.

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
    use tunnel_core::RefusalKind;

    use super::*;

    #[test]
    fn every_refusal_has_a_status_with_a_phrase() {
        for &kind in RefusalKind::ALL {
            let status = kind.status();
            assert!((400..600).contains(&status), "{kind}: {status}");
            assert!(!reason_phrase(status).is_empty(), "{kind}: {status}");
        }
    }
}
