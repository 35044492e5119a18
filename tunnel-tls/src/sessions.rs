//! Server-side session resumption that ends with the material under which a session began.

use std::fmt;
use std::sync::Arc;

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

use crate::reload::{Material, Reloadable};

/// Sessions that one configuration remembers; the oldest are forgotten first. A session takes about 0.3 KiB,
/// and a TLS 1.3 handshake adds two, so this is 1.2 MiB and the last 2048 clients.
const CAPACITY: usize = 4096;

/// A store of sessions, each marked with the version of the material under which it was stored.
///
/// They are kept here rather than in tickets that clients carry: a stolen ticket key would open every TLS 1.2
/// connection that used it.
pub(crate) struct Sessions<M: Material> {
    material: Arc<Reloadable<M>>,
    inner: Arc<ServerSessionMemoryCache>,
}

impl<M: Material> Sessions<M> {
    pub(crate) fn new(material: Arc<Reloadable<M>>) -> Self {
        Self {
            material,
            inner: ServerSessionMemoryCache::new(CAPACITY),
        }
    }

    fn version(&self) -> [u8; 8] {
        self.material.current().number.to_be_bytes()
    }

    /// Takes the mark off, if it is the current one.
    fn unmark(&self, marked: Vec<u8>) -> Option<Vec<u8>> {
        marked.strip_prefix(&self.version()).map(<[u8]>::to_vec)
    }
}

impl<M: Material> fmt::Debug for Sessions<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl<M: Material + Send + Sync> StoresServerSessions for Sessions<M>
where
    M::Recipe: Send + Sync,
{
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(key, [&self.version(), &value[..]].concat())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.unmark(self.inner.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.unmark(self.inner.take(key)?)
    }

    fn can_cache(&self) -> bool {
        true
    }
}
