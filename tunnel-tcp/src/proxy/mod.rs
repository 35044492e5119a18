//! Proxies on the way out.

/// Which servers are reached through which proxy.
#[derive(Clone, Debug, Default)]
pub struct Proxies {}

impl Proxies {
    /// No server is reached through a proxy.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
}
