//! What proves an agent's claim when no certificate does.

use std::{fmt, io, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use tunnel_proto::Secret;

/// How many calls there may be at once. Nobody can end a call that hangs; so many of them still leave threads for others
/// that block, such as the resolution of names, and are not reached while a source works.
const MAX_CALLS: usize = 32;

/// Gives the credential for the next connection, so that a token file may change at any time.
///
/// It is asked before every dial, on a thread that may block. An error fails the attempt, and there is another one. So does
/// a call that takes longer than [`connect_timeout`](super::AgentConfig::connect_timeout): it is left to itself, and its
/// credential is lost. A function that waits for others should have a timeout of its own nevertheless: of calls that
/// hang there may be 32, and then attempts fail until one of them returns.
///
/// ```
/// use std::{fs, io};
/// use tunnel_core::{Secret, agent::CredentialSource};
///
/// let token = || Secret::new(fs::read("/run/secrets/token")?.trim_ascii()).map_err(io::Error::other);
/// let source = CredentialSource::new(token);
/// ```
#[derive(Clone)]
pub struct CredentialSource {
    source: Arc<dyn Fn() -> io::Result<Secret> + Send + Sync>,
    calls: Arc<Semaphore>,
}

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialError {
    #[error("the source of the credential did not give it within {0:?}")]
    TimedOut(Duration),
    #[error("cannot get the credential")]
    Failed(#[source] io::Error),
}

impl CredentialSource {
    /// Makes a source of a function.
    pub fn new(source: impl Fn() -> io::Result<Secret> + Send + Sync + 'static) -> Self {
        Self {
            source: Arc::new(source),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        }
    }

    /// The credential of this moment.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the function.
    pub(super) async fn get(&self, limit: Duration) -> Result<Secret, CredentialError> {
        match timeout(limit, self.call()).await {
            Ok(called) => called.map_err(CredentialError::Failed),
            Err(_elapsed) => Err(CredentialError::TimedOut(limit)),
        }
    }

    async fn call(&self) -> io::Result<Secret> {
        let source = Arc::clone(&self.source);
        // It is never closed.
        let call = Arc::clone(&self.calls)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let called = spawn_blocking(move || {
            let _call = call;
            source()
        });
        called.await?
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use tokio::{task::yield_now, time::advance};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn calls_that_hang_do_not_take_all_threads() {
        let (release, released) = mpsc::sync_channel::<()>(0);
        let (released, calls) = (Mutex::new(released), Arc::new(AtomicUsize::new(0)));
        let source = CredentialSource::new({
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
                // Until the sender is gone.
                let _ = released.lock().unwrap().recv();
                Secret::new("token").map_err(io::Error::other)
            }
        });
        for _ in 0..2 * MAX_CALLS {
            // Time does not pass by itself while a thread blocks.
            let (secret, ()) = tokio::join!(source.get(LIMIT), advance(LIMIT));
            assert!(matches!(secret, Err(CredentialError::TimedOut(LIMIT))), "{secret:?}");
        }
        drop(release);
        while source.calls.available_permits() < MAX_CALLS {
            yield_now().await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), MAX_CALLS);
        assert_eq!(source.get(LIMIT).await.unwrap().expose(), b"token");
    }
}
