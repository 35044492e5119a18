//! The targets that streams are open to, and the policy that they must keep to.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tunnel_proto::Target;

use crate::policy::{AgentPolicy, TargetDenied};

/// The targets that streams are open to, and the policy in force.
#[derive(Debug)]
pub(super) struct Targets {
    policy: ArcSwap<AgentPolicy>,
    open: Mutex<HashMap<u64, OpenTarget>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct OpenTarget {
    target: Target,
    /// Where it was reached, unless it is a Unix socket.
    ip: Option<IpAddr>,
    deny: oneshot::Sender<TargetDenied>,
}

/// An open target until it is dropped.
#[derive(Debug)]
pub(super) struct Tracked {
    targets: Arc<Targets>,
    key: u64,
    denied: oneshot::Receiver<TargetDenied>,
}

impl Targets {
    pub(super) fn new(policy: Arc<AgentPolicy>) -> Self {
        Self {
            policy: ArcSwap::new(policy),
            open: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    pub(super) fn policy(&self) -> Arc<AgentPolicy> {
        self.policy.load_full()
    }

    /// Puts another policy in force and gives the number of open streams that it ends.
    pub(super) fn set_policy(&self, policy: Arc<AgentPolicy>) -> usize {
        self.policy.store(Arc::clone(&policy));
        let mut open = self.open();
        let denied = open.extract_if(|_, open| open.check(&policy).is_err());
        let denied: Vec<_> = denied.map(|(_, open)| open).collect();
        drop(open);
        let mut ended = 0;
        for open in denied {
            if let Err(denied) = open.check(&policy) {
                ended += usize::from(open.deny.send(denied).is_ok());
            }
        }
        ended
    }

    /// Keeps a target that was reached under `policy` to whatever policy is in force.
    pub(super) fn track(
        self: &Arc<Self>,
        target: Target,
        ip: Option<IpAddr>,
        policy: &Arc<AgentPolicy>,
    ) -> Result<Tracked, TargetDenied> {
        let (deny, denied) = oneshot::channel();
        let open = OpenTarget { target, ip, deny };
        let (target, key) = (open.target.clone(), self.next.fetch_add(1, Ordering::Relaxed));
        self.open().insert(key, open);
        let tracked = Tracked {
            targets: Arc::clone(self),
            key,
            denied,
        };
        // It is in the table now: either this sees a policy that came meanwhile, or whoever sets it sees the target.
        let current = self.policy();
        if !Arc::ptr_eq(&current, policy) {
            check(&current, &target, ip)?;
        }
        Ok(tracked)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, OpenTarget>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenTarget {
    fn check(&self, policy: &AgentPolicy) -> Result<(), TargetDenied> {
        check(policy, &self.target, self.ip)
    }
}

fn check(policy: &AgentPolicy, target: &Target, ip: Option<IpAddr>) -> Result<(), TargetDenied> {
    policy.check(target)?;
    ip.map_or(Ok(()), |ip| policy.check_ip(target, ip))
}

impl Tracked {
    /// Waits for a policy that does not allow the target any more; cancel safe.
    pub(super) async fn denied(&mut self) -> TargetDenied {
        match (&mut self.denied).await {
            Ok(denied) => denied,
            // The sender waits in the table for as long as this lives.
            Err(_gone) => std::future::pending().await,
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.targets.open().remove(&self.key);
    }
}
