//! What can be set about taking connections in.

use std::time::Duration;

/// How connections are taken in, before anything is known of them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AcceptConfig {
    /// How long a handshake may take, the claim and the check of the credential included. Default 10 s.
    pub handshake_timeout: Duration,
    /// How many handshakes may be pending at once, over all listeners. Default 1,024: memory for a TLS handshake each.
    pub max_pending: u32,
    /// How many of them one source may have: an IPv4 address or an IPv6 /64 network. Default 64, enough for a
    /// site behind one address; fewer while few places are free.
    pub max_pending_per_source: u32,
}

impl Default for AcceptConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            max_pending: 1024,
            max_pending_per_source: 64,
        }
    }
}

impl AcceptConfig {
    /// Its settings by name, each with whether it is nothing, with which no handshake would come to an end.
    pub(crate) fn zeros(&self) -> [(&'static str, bool); 3] {
        [
            ("accept.handshake_timeout", self.handshake_timeout.is_zero()),
            ("accept.max_pending", self.max_pending == 0),
            ("accept.max_pending_per_source", self.max_pending_per_source == 0),
        ]
    }
}
