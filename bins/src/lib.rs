//! What the programs `tunnel-server` and `tunnel-agent` are made of: command line, configuration, logs, the admin
//! address, and the tables of carriers and frontends. The tunnel itself is in the libraries.

pub mod admin;
pub mod cli;
pub mod logging;
pub mod values;
