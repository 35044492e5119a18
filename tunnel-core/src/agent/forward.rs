//! What an agent does with a stream by default: dials its target and relays.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tracing::debug;
use tunnel_proto::{Refusal, RefusalKind, StreamCode, Target};

use super::{AgentMetrics, targets::Targets};
use crate::{
    carrier::{Inbound, Peer},
    dial::{TargetDialer, TargetSocket},
    inbound::InboundHandler,
    policy::{AgentPolicy, TargetDenied},
    relay::{Party, RelayOptions, relay},
};

/// Dials targets as far as the policy allows, and relays.
#[derive(Debug)]
pub(super) struct Forward {
    dialer: TargetDialer,
    targets: Arc<Targets>,
    idle_limit: Option<Duration>,
    metrics: AgentMetrics,
}

impl Forward {
    pub(super) fn new(
        dialer: TargetDialer,
        targets: Arc<Targets>,
        idle_limit: Option<Duration>,
        metrics: AgentMetrics,
    ) -> Self {
        Self {
            dialer,
            targets,
            idle_limit,
            metrics,
        }
    }

    /// Dials a target within what is left of its stream's deadline.
    async fn dial(
        &self,
        policy: &AgentPolicy,
        target: &Target,
        within: Option<Duration>,
    ) -> Result<TargetSocket, Refusal> {
        policy.check(target).map_err(|denied| forbidden(target, &denied))?;
        let started = Instant::now();
        let dialled = self.dialer.dial(target, within, |ip| policy.check_ip(target, ip)).await;
        let result = match &dialled {
            Ok(_) => "reached",
            Err(refusal) => refusal.kind.name(),
        };
        self.metrics.traffic.dialled(result, started.elapsed());
        dialled
    }
}

#[async_trait]
impl InboundHandler for Forward {
    async fn handle(&self, mut inbound: Box<dyn Inbound>, peer: &Peer) {
        let target = inbound.head().target.clone();
        let within = inbound.head().deadline;
        let client = inbound.head().client.map(tracing::field::display);
        let server = peer.welcome().map(|welcome| &welcome.server);
        let server = server.map_or("", |server| server.as_str());
        let policy = self.targets.policy();
        let dialled = tokio::select! {
            biased;
            () = inbound.cancelled() => {
                self.metrics.streams_abandoned.inc();
                debug!(server, %target, client, "stream given up before its target was reached");
                return;
            }
            dialled = self.dial(&policy, &target, within) => dialled,
        };
        let socket = match dialled {
            Ok(socket) => socket,
            Err(refusal) => {
                debug!(server, %target, client, %refusal, "stream refused");
                return inbound.refuse(refusal);
            }
        };
        let mut tracked = match self.targets.track(target.clone(), remote_ip(&socket), &policy) {
            Ok(tracked) => tracked,
            Err(denied) => return inbound.refuse(forbidden(&target, &denied)),
        };
        let stream = match inbound.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                self.metrics.streams_abandoned.inc();
                debug!(server, %target, client, %error, "stream given up while its target was reached");
                return;
            }
        };
        debug!(server, %target, client, "stream opened");
        let mut options = RelayOptions::new(Party::Target);
        options.idle_limit = self.idle_limit;
        let mut relay = relay(socket, Bytes::new(), stream, options);
        let report = tokio::select! {
            report = &mut relay => Ok(report),
            denied = tracked.denied() => Err(denied),
        };
        match report {
            Ok(report) => {
                debug!(server, %target, sent = report.sent, received = report.received, "stream ended: {report}")
            }
            Err(denied) => {
                let report = relay.end(StreamCode::POLICY);
                debug!(server, %target, sent = report.sent, received = report.received, "stream ended: {denied}");
            }
        }
    }
}

/// The address that a target was reached at, unless it is a Unix socket.
fn remote_ip(socket: &TargetSocket) -> Option<IpAddr> {
    match socket {
        TargetSocket::Tcp(socket) => socket.peer_addr().ok().map(|addr| addr.ip()),
        TargetSocket::Unix(_) => None,
    }
}

fn forbidden(target: &Target, denied: &TargetDenied) -> Refusal {
    let text = format!("cannot reach {target}: the agent's policy forbids it: {denied}");
    Refusal::new(RefusalKind::DestinationIpProhibited, text)
}
