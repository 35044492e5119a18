//! From names to addresses.

use std::{
    fmt, io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::{sync::Semaphore, task::spawn_blocking};
use tunnel_proto::DnsName;

/// Resolves the names of targets.
#[async_trait]
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of a name, best first (RFC 6724).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the lookup up.
    async fn resolve(&self, name: &DnsName) -> io::Result<Vec<IpAddr>>;
}

/// Resolves as every other program of the system does, with getaddrinfo(3): `/etc/hosts`, search domains and the name
/// service switch count, and the order is the system's.
///
/// A lookup holds a thread until it ends, even if nobody waits any more, so their number is limited.
#[derive(Debug)]
pub struct SystemResolver {
    threads: Arc<Semaphore>,
}

impl SystemResolver {
    /// How many lookups may be under way at once: enough for hundreds of fresh names each second, and few enough to
    /// leave most of the runtime's blocking threads to others when the name servers are silent.
    pub const MAX_LOOKUPS: usize = 64;
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self {
            threads: Arc::new(Semaphore::new(Self::MAX_LOOKUPS)),
        }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &DnsName) -> io::Result<Vec<IpAddr>> {
        let permit = self.threads.clone().acquire_owned().await.map_err(io::Error::other)?;
        let name = name.clone();
        let lookup = spawn_blocking(move || {
            let _permit = permit;
            let addrs = (name.as_str(), 0).to_socket_addrs()?;
            Ok(addrs.map(|addr| addr.ip()).collect())
        });
        lookup.await.map_err(io::Error::other)?
    }
}
