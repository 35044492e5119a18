//! Carriers as people run them, beside what bounds them and beside each other.
//!
//! The [`runner`] starts the server, the agent, the client and the target of each [peer](peers) as processes of their own and
//! makes each [measurement](cell) with all peers in turn, so that all of them meet the same noise. A
//! [client process](client) makes one measurement; the [`report`] has medians with their spread. With a [`link`] there is
//! an impaired path between client and server on one side and agent and target on the other.

pub mod agents;
pub mod calibration;
pub mod cell;
pub mod child;
pub mod client;
pub mod link;
pub mod machine;
pub mod options;
pub mod peers;
pub mod progress;
pub mod report;
pub mod runner;
