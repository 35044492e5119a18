//! What proves an agent's claim when no certificate does.

use std::{fmt, io, sync::Arc};

use tunnel_proto::Secret;

/// Gives the credential for the next connection, so that a token file may change at any time.
///
/// It is asked before every dial, on a thread that may block. An error fails the attempt, and there is another one.
///
/// ```
/// use std::{fs, io};
/// use tunnel_core::{Secret, agent::CredentialSource};
///
/// let token = || Secret::new(fs::read("/run/secrets/token")?.trim_ascii()).map_err(io::Error::other);
/// let source = CredentialSource::new(token);
/// ```
#[derive(Clone)]
pub struct CredentialSource(Arc<dyn Fn() -> io::Result<Secret> + Send + Sync>);

impl CredentialSource {
    /// Makes a source of a function.
    pub fn new(source: impl Fn() -> io::Result<Secret> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The credential of this moment.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the function.
    pub(super) async fn get(&self) -> io::Result<Secret> {
        let source = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || source()).await?
    }
}

impl From<Secret> for CredentialSource {
    fn from(secret: Secret) -> Self {
        Self::new(move || Ok(secret.clone()))
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialSource(..)")
    }
}
