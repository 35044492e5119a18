//! What server, agent and client have used so far.

use std::time::Instant;

use super::{Job, Outcome};
use crate::process;

/// CPU time at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    at: Instant,
    server: f64,
    agent: f64,
    client: f64,
}

impl Reading {
    pub(super) fn now(job: &Job) -> Self {
        let cpu = |pids: &[u32]| pids.iter().filter_map(|pid| process::cpu_seconds(*pid)).sum();
        Self {
            at: Instant::now(),
            server: cpu(&job.server),
            agent: cpu(&job.agent),
            client: cpu(&[std::process::id()]),
        }
    }

    pub(super) fn seconds_since(&self, before: &Self) -> f64 {
        (self.at - before.at).as_secs_f64()
    }

    /// CPU seconds of server and agent.
    pub(super) fn cpu_since(&self, before: &Self) -> f64 {
        self.server + self.agent - before.server - before.agent
    }

    /// Notes what each used for so many bytes.
    pub(super) fn note_cost(&self, before: &Self, gb: f64, job: &Job, outcome: &mut Outcome) {
        if gb > 0.0 {
            if !job.server.is_empty() {
                outcome.set("server_cpu_per_gb", (self.server - before.server) / gb);
            }
            if !job.agent.is_empty() {
                outcome.set("agent_cpu_per_gb", (self.agent - before.agent) / gb);
            }
            outcome.set("client_cpu_per_gb", (self.client - before.client) / gb);
        }
    }
}
