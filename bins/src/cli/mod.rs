//! Command line, environment and configuration file.

mod agent;
mod common;
mod layers;
mod server;

pub use agent::AgentArgs;
pub use common::{AdminAddr, KeepaliveArgs, LogArgs, LogFormat, QuicArgs, StreamArgs, TcpArgs};
pub use layers::parse;
pub use server::{AgentAuth, ClientCerts, ServerArgs};
