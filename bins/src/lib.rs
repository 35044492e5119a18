//! What the programs `tunnel-server` and `tunnel-agent` are made of: command line, configuration, logs, the admin
//! address, and the tables of carriers and frontends. The tunnel itself is in the libraries.

pub mod admin;
pub mod agent;
pub mod carriers;
pub mod cli;
pub mod connect;
mod descriptors;
pub mod dev;
pub mod frontends;
pub mod host;
mod logging;
pub mod policy;
mod program;
pub mod reload;
mod runtimes;
pub mod server;
pub mod signals;
pub mod tls;
pub mod url;
pub mod values;

pub use program::{Program, main};

#[global_allocator]
static ALLOCATOR: tunnel_alloc::Apart = tunnel_alloc::Apart;
