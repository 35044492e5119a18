use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tunnel_core::{Admission, Admitted, Arrival, Rejection, Welcome};

/// Accepts every claim as the server `server-1`, or rejects every one; remembers the last.
#[derive(Debug, Default)]
pub struct Verdict {
    rejection: Option<Rejection>,
    seen: Mutex<Option<Arrival>>,
}

impl Verdict {
    /// One that rejects.
    #[must_use]
    pub fn reject(rejection: Rejection) -> Self {
        Self {
            rejection: Some(rejection),
            ..Self::default()
        }
    }

    /// What it was asked about last.
    #[must_use]
    pub fn arrival(&self) -> Option<Arrival> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Admission for Verdict {
    async fn admit(&self, arrival: &Arrival) -> Result<Admitted, Rejection> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(arrival.clone());
        match &self.rejection {
            Some(rejection) => Err(rejection.clone()),
            None => Ok(Admitted {
                identity: arrival.identity.clone(),
                welcome: Welcome::new("server-1".parse().expect("an id")),
            }),
        }
    }
}
