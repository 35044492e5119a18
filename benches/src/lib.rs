//! Benches of the parts, and a load program for a running tunnel.
//!
//! [`target`] is what stands behind the tunnel, [`client`] reaches it directly or through a CONNECT proxy, [`stats`]
//! sums up, and [`process`] reads what the processes under test use.

pub mod client;
pub mod process;
pub mod stats;
pub mod target;
