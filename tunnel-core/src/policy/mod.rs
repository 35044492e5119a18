//! Who may reach what through whom, on both ends.
//!
//! Policies are pure and synchronous, so that they can be tested as a table and asked anywhere.

mod agent;
mod pattern;
mod rules;
mod server;
mod special;
mod target;

pub use self::{
    agent::{AgentPolicy, AgentPolicyConfig, AgentRuleConfig, TargetDenied},
    pattern::{InvalidPattern, Pattern},
    rules::{Effect, InvalidPolicy},
    server::{Access, ClaimConfig, Denied, Policy, PolicyConfig, RuleConfig, Scope},
    target::{HostRule, InvalidHostRule, InvalidPortRange, PortRange, TargetRule},
};
