//! Benches of the parts, a load program for a running tunnel, and a comparison of the carriers.
//!
//! [`target`] is what stands behind the tunnel, [`client`] reaches it directly or through a CONNECT proxy, [`stats`]
//! sums up, [`process`] reads what the processes under test use, and
//! [`carrier`] measures carriers without a frontend.

pub mod carrier;
pub mod client;
pub mod process;
pub mod stats;
pub mod target;
