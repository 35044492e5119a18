//! Who may reach what through whom, on both ends.
//!
//! Policies are pure and synchronous, so that they can be tested as a table and asked anywhere.

mod pattern;
mod server;
mod target;

pub use self::{
    pattern::{InvalidPattern, Pattern},
    server::{Access, ClaimConfig, Denied, Effect, InvalidPolicy, Policy, PolicyConfig, RuleConfig, Scope},
    target::{HostRule, InvalidHostRule, InvalidPortRange, PortRange, TargetRule},
};
