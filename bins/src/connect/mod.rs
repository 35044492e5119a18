//! CONNECT over HTTP/2 with programs of others: what `--forward` of an agent and `--upstream` of a server mean.

mod forward;
mod upstream;

use std::fmt;

use anyhow::bail;

pub(crate) use self::forward::callers;
pub use self::{
    forward::ForwardSpec,
    upstream::{Upstream, UpstreamSpec},
};

/// How it is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `h2`: over TLS.
    H2,
    /// `h2c`: in clear text.
    H2c,
    /// `hbone`: over TLS with certificates that hold SPIFFE IDs.
    Hbone,
}

impl Scheme {
    const ALL: [Self; 3] = [Self::H2, Self::H2c, Self::Hbone];

    /// The scheme of a URL that a flag was given.
    fn of_url(flag: &str, scheme: &str) -> anyhow::Result<Self> {
        if !cfg!(feature = "h2") {
            bail!("{flag} is not compiled in: build with the cargo feature `h2`");
        }
        match Self::ALL.into_iter().find(|known| known.name() == scheme) {
            Some(known) => Ok(known),
            None => bail!("{scheme:?} is nothing that {flag} knows; there is h2://, h2c://, hbone://"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::H2c => "h2c",
            Self::Hbone => "hbone",
        }
    }

    /// Whether the wire is encrypted.
    #[must_use]
    pub const fn is_secure(self) -> bool {
        !matches!(self, Self::H2c)
    }

    /// Whether it is HBONE.
    #[must_use]
    pub const fn is_hbone(self) -> bool {
        matches!(self, Self::Hbone)
    }

    /// The port of a proxy whose URL names none, if there is a usual one.
    const fn port(self) -> Option<u16> {
        match self {
            Self::H2 => Some(443),
            Self::H2c => None,
            Self::Hbone => Some(15008),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
