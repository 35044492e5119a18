//! A simulated network in virtual time.
//!
//! [`Net`] carries bytes as TCP would, with latency, bandwidth, jitter and small buffers, and breaks on request. It is
//! [dialled](tunnel_tcp::Dial) and [accepts](tunnel_tcp::Accept) like the real one, so that a carrier over TCP runs in
//! a test as it is. [`PipeLink`] carries messages over its pipes, and [`LinkCarrier`] with [`LinkListener`] shows what a
//! carrier on the mux has to do; [`LinkHarness`] holds them to the laws, and [`TcpHarness`] a carrier over TCP.
//!
//! The same seed and the same calls give the same bytes at the same times.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! use std::time::Duration;
//! use tokio::{io::{AsyncReadExt, AsyncWriteExt}, time::Instant};
//! use tunnel_tcp::{Accept, Dial};
//! use tunnel_testkit::sim::{Net, Profile};
//!
//! let net = Net::new(Profile::new(Duration::from_millis(50), 1_000_000));
//! let mut listener = net.listen();
//! let mut near = net.dial(&"gw.example:8091".parse().unwrap()).await.unwrap().io;
//! let mut far = listener.accept().await.unwrap().open().unwrap();
//!
//! let start = Instant::now();
//! near.write_all(&[7; 100_000]).await.unwrap();
//! far.read_exact(&mut [0; 100_000]).await.unwrap();
//! assert_eq!(start.elapsed(), Duration::from_millis(150));
//! # }
//! ```

mod carrier;
mod harness;
mod line;
mod link;
mod net;
mod network;
mod pipe;
mod profile;
mod tcp;

pub use self::{
    carrier::{Known, LinkCarrier, LinkListener},
    harness::LinkHarness,
    link::PipeLink,
    net::{AGENT, Net, SERVER, SimAcceptor, SimConnection},
    pipe::SimIo,
    profile::Profile,
    tcp::{Make, TcpHarness},
};
