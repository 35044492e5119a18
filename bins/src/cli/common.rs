//! Flags that both programs have.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tunnel_core::{Keepalive, proto::mux::Budget};
use tunnel_tcp::{Congestion, SocketOptions};

use crate::values::{self, OptionalDuration};

/// Logs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs and administration")]
pub struct LogArgs {
    /// What to log: a level, or a filter such as `info,carrier_quic=debug`
    #[arg(long, env = "TUNNEL_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How to log, on standard error
    #[arg(long, env = "TUNNEL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where to serve administration. (A type of its own, because clap reads `Option` as "may be absent".)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddr(pub Option<SocketAddr>);

/// Parses the value of --admin.
pub(crate) fn admin_addr(text: &str) -> Result<AdminAddr, String> {
    match text {
        "off" => Ok(AdminAddr(None)),
        text => text
            .parse()
            .map(|addr| AdminAddr(Some(addr)))
            .map_err(|_| "write an address and a port such as 127.0.0.1:8095, or off".to_owned()),
    }
}

/// How dead paths are noticed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct KeepaliveArgs {
    /// How long a connection may be silent before it is probed
    #[arg(long, env = "TUNNEL_KEEPALIVE_INTERVAL", value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    pub keepalive_interval: Duration,

    /// How long the answer to a probe may take; the connection is then given up
    #[arg(long, env = "TUNNEL_KEEPALIVE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = values::duration)]
    pub keepalive_timeout: Duration,
}

impl KeepaliveArgs {
    /// Both values.
    #[must_use]
    pub fn keepalive(&self) -> Keepalive {
        Keepalive {
            interval: self.keepalive_interval,
            timeout: self.keepalive_timeout,
        }
    }
}

/// How many streams there are, and for how long.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct StreamArgs {
    /// How many streams one connection may have open at once, in each direction
    #[arg(long, env = "TUNNEL_MAX_STREAMS", value_name = "N", default_value_t = 16_384)]
    pub max_streams: u32,

    /// End a stream on which no byte has moved for so long
    #[arg(long, env = "TUNNEL_IDLE_TIMEOUT", value_name = "TIME|off", default_value = "off", value_parser = values::optional_duration)]
    pub idle_timeout: OptionalDuration,

    /// How long open streams may go on after SIGTERM or SIGINT; then, or at a second signal, they are cut short, and the exit
    /// code is 0 all the same. Whoever kills in the end should wait longer
    #[arg(long, env = "TUNNEL_DRAIN_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub drain_timeout: Duration,
}

/// The least that makes sense for `--tcp-memory`.
const LEAST_MEMORY: u64 = 1 << 20;

/// The carriers over TCP.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "WebSocket and gRPC carriers")]
pub struct TcpArgs {
    /// The most that the streams of all connections may hold in memory; near it windows shrink, and beyond it the
    /// longest-stalled streams are reset
    #[arg(long, env = "TUNNEL_TCP_MEMORY", value_name = "BYTES", default_value = "512MiB", value_parser = values::bytes)]
    pub tcp_memory: u64,

    /// How far the credit of a stream may grow whose reader keeps up; it bounds its speed (window / round-trip time)
    #[arg(long, env = "TUNNEL_TCP_STREAM_WINDOW", value_name = "BYTES", default_value = "16MiB", value_parser = values::bytes)]
    pub tcp_stream_window: u64,

    /// Congestion control of what this end sends: adaptive is cubic, and bbr once a connection loses packets, if the kernel
    /// allows it; system is the system's; others are names of the kernel
    #[arg(
        long,
        env = "TUNNEL_TCP_CONGESTION",
        value_name = "adaptive|system|NAME",
        default_value = "adaptive"
    )]
    pub tcp_congestion: Congestion,
}

impl TcpArgs {
    /// What all connections may hold together.
    pub fn budget(&self) -> anyhow::Result<Budget> {
        if self.tcp_memory < LEAST_MEMORY {
            bail!("--tcp-memory is less than 1 MiB, with which no stream would get far");
        }
        Ok(Budget::new(self.tcp_memory))
    }

    /// What is asked of the kernel for each socket.
    pub fn sockets(&self) -> anyhow::Result<SocketOptions> {
        self.tcp_congestion.check().with_context(|| {
            let name = self.tcp_congestion.to_string();
            format!("--tcp-congestion: the kernel does not allow {name:?} (see sysctl net.ipv4.tcp_allowed_congestion_control)")
        })?;
        let mut options = SocketOptions::default();
        options.congestion.clone_from(&self.tcp_congestion);
        Ok(options)
    }
}

/// The QUIC carrier.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "QUIC carrier")]
pub struct QuicArgs {
    /// Congestion controller of what this end sends: adaptive is cubic that keeps up its speed where packets are lost
    #[arg(long, env = "TUNNEL_QUIC_CONGESTION", value_parser = ["adaptive", "cubic", "bbr"], default_value = "adaptive")]
    pub quic_congestion: String,

    /// Credit for each stream, which bounds both its speed (window / round-trip time) and its memory
    #[arg(long, env = "TUNNEL_QUIC_STREAM_WINDOW", value_name = "BYTES", default_value = "6MiB", value_parser = values::bytes)]
    pub quic_stream_window: u64,

    /// The most that stalled streams of one connection may hold in memory; beyond it the longest-stalled is reset
    #[arg(long, env = "TUNNEL_QUIC_RECEIVE_BUDGET", value_name = "BYTES", default_value = "768MiB", value_parser = values::bytes)]
    pub quic_receive_budget: u64,

    /// UDP payload to begin with; at least 1200
    #[arg(long, env = "TUNNEL_QUIC_INITIAL_MTU", value_name = "BYTES", default_value_t = 1200)]
    pub quic_initial_mtu: u16,

    /// Largest UDP payload that MTU discovery tries and that is taken, at both ends; no more is tried than the first link on the
    /// way carries (on Ethernet 1452), and the initial one switches discovery off
    #[arg(long, env = "TUNNEL_QUIC_MAX_MTU", value_name = "BYTES", default_value_t = 6400)]
    pub quic_max_mtu: u16,

    /// Send one datagram a system call, for network adapters that announce segmentation offload and fail at it
    #[arg(long, env = "TUNNEL_QUIC_NO_GSO")]
    pub quic_no_gso: bool,
}
