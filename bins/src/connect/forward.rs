//! Where an agent lets others connect to it.

use std::{fmt, net::SocketAddr};

use anyhow::{Context as _, bail};
use tracing::warn;
use tunnel_core::{AgentId, Callers, Listener, policy::Pattern};
use tunnel_tls::ServerTls;

use super::Scheme;
use crate::{
    carriers::{Settings, forward},
    cli::AgentArgs,
    url,
};

/// A `--forward` that was understood.
#[derive(Clone, Debug)]
pub struct ForwardSpec {
    /// How it is spoken.
    pub scheme: Scheme,
    /// Where to listen.
    pub addr: SocketAddr,
}

impl ForwardSpec {
    /// Understands all of them.
    pub fn parse_all(args: &AgentArgs, settings: &Settings) -> anyhow::Result<Vec<Self>> {
        let specs = args.forward.iter().map(|url| Self::parse(url));
        let specs = specs.collect::<anyhow::Result<Vec<_>>>()?;
        for spec in &specs {
            spec.check_callers(args)?;
            forward::check(spec.scheme, settings)?;
        }
        Ok(specs)
    }

    fn parse(forward: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = url::split(forward)?;
        Ok(Self {
            scheme: Scheme::of_url("--forward", scheme)?,
            addr: url::listen_addr(forward, rest)?,
        })
    }

    /// Whoever connects opens streams into this agent's network, so somebody has to say who that may be.
    fn check_callers(&self, args: &AgentArgs) -> anyhow::Result<()> {
        let proven = self.scheme.is_secure() && args.forward_client_ca.is_some();
        if proven {
            return Ok(());
        }
        if !args.forward_client.is_empty() {
            bail!(
                "--forward-client asks for proof of who connects, and {self} gets none: use h2:// or hbone:// with \
                 --forward-client-ca"
            );
        }
        if self.scheme.is_secure() && !args.forward_anyone {
            bail!(
                "nothing says who may connect to {self}: give --forward-client-ca, or --forward-anyone if whoever \
                 reaches it may use this agent"
            );
        }
        if !self.addr.ip().is_loopback() {
            if !args.forward_anyone {
                bail!(
                    "{self} would let whoever reaches it use this agent: give a loopback address, use h2:// or hbone://, \
                     or give --forward-anyone if that is meant"
                );
            }
            warn!("{self} lets whoever reaches it open streams through this agent");
        }
        Ok(())
    }

    /// Whether it needs a certificate.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.scheme.is_secure()
    }

    /// Binds it. `tls` has to be there for one that is secure. Must be called in a tokio runtime.
    pub fn listen(
        &self,
        agent: &AgentId,
        tls: Option<&ServerTls>,
        settings: &Settings,
    ) -> anyhow::Result<Box<dyn Listener>> {
        let listener = forward::listen(self, agent, tls.filter(|_| self.is_secure()), settings);
        listener.with_context(|| format!("cannot listen on {self} (TCP)"))
    }
}

/// Who may connect, of those whose certificate is accepted.
pub(crate) fn callers(args: &AgentArgs) -> anyhow::Result<Callers> {
    if args.forward_client.is_empty() {
        return Ok(Callers::Anyone);
    }
    let patterns = args.forward_client.iter().map(|name| {
        let pattern = name.parse::<Pattern>();
        pattern.with_context(|| format!("--forward-client {name:?}"))
    });
    Ok(Callers::These(patterns.collect::<anyhow::Result<_>>()?))
}

impl fmt::Display for ForwardSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.addr)
    }
}
