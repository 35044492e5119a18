//! Benches of the parts, a load program for a running tunnel, and comparisons of the carriers.
//!
//! [`target`] is what stands behind a tunnel, [`client`] reaches it directly or through a CONNECT proxy, [`stats`]
//! sums up, [`process`] reads what the processes under test use, [`realtime`] puts them first, and [`open_loop`] measures
//! latency at a fixed rate.
//! [`workload`] has fixed pieces of work. [`carrier`] measures carriers without a frontend; [`compare`] measures whole tunnels, as programs, beside what the
//! best relay of the same crates does.

pub mod carrier;
pub mod client;
pub mod compare;
pub mod credentials;
pub mod open_loop;
pub mod process;
pub mod realtime;
pub mod stats;
pub mod target;
pub mod workload;

/// That of the programs under test, so that the relays are as fast as they can be.
#[global_allocator]
static ALLOCATOR: tunnel_alloc::Apart = tunnel_alloc::Apart;
