//! Telling an agent that it speaks the wrong protocol.

/// What an agent got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mistake {
    /// TLS where there is none.
    #[error("the agent speaks TLS, and this port speaks clear text")]
    TlsOnPlain,
    /// HTTP in clear text where there is TLS.
    #[error("the agent speaks HTTP in clear text, and this port speaks TLS")]
    PlainOnTls,
}

impl Mistake {
    /// A response that a HTTP client understands, and that TLS clients recognise as not TLS.
    pub(super) fn response(self) -> &'static str {
        match self {
            Self::TlsOnPlain => concat!(
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 28\r\n\r\n",
                "this port speaks clear text\n"
            ),
            Self::PlainOnTls => concat!(
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\n",
                "this port speaks TLS\n"
            ),
        }
    }
}

/// Whether a first byte begins a TLS handshake: the content type of a record (RFC 8446 §5.1), which begins nothing in
/// HTTP.
pub(super) fn is_tls(first: u8) -> bool {
    first == 22
}

/// Whether a first byte begins a HTTP request: a method, or the preface of HTTP/2 (RFC 9113 §3.4).
pub(super) fn is_http(first: u8) -> bool {
    first.is_ascii_uppercase()
}
