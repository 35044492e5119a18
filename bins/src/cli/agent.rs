//! The command line of `tunnel-agent`.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use clap::Parser;

use super::common::{AdminAddr, KeepaliveArgs, LogArgs, QuicArgs, StreamArgs, TcpArgs, admin_addr};
use crate::{
    program::Program,
    runtimes::cores,
    values::{self, Hidden},
};

const EXAMPLES: &str = "\
Examples:
  One server, a client certificate:
    tunnel-agent --server quic://gw.example:8091 --id node-7 --ca ca.crt --cert node-7.crt --key node-7.key

  QUIC where it passes, otherwise a WebSocket through the proxy that HTTPS_PROXY names:
    tunnel-agent --server quic://gw.example:8091,wss://gw.example/tunnel --id node-7 --ca ca.crt --token-file token

  Two servers, a token, a label, and only the kubelet and one network as targets (by rules):
    tunnel-agent --server quic://gw-1.example:8091 --server quic://gw-2.example:8091 --id node-7 --ca ca.crt \\
                 --token-file /run/secrets/token --label zone=a --policy agent-policy.toml

  No server: an HTTP/2 CONNECT proxy for Envoy and others with a certificate of the gateways' CA:
    tunnel-agent --forward h2://0.0.0.0:8443 --forward-cert node-7.crt --forward-key node-7.key \\
                 --forward-client-ca gateways.crt --id node-7

Every flag is also a key of the TOML file that --config names (server = [\"quic://gw.example:8091\"]) and has an
environment variable. The command line wins over the environment, which wins over the file.";

/// Dials out to servers and opens streams to targets in this network on their behalf
#[derive(Clone, Debug, Parser)]
#[command(name = "tunnel-agent", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct AgentArgs {
    /// TOML file with any of these flags as keys
    #[arg(long, env = "TUNNEL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check flags, files and certificates, say what is wrong, and exit
    #[arg(long)]
    pub check_config: bool,

    /// A server: the URLs by which it is reached, best first, joined by commas: quic://HOST, wss://HOST/PATH,
    /// grpc://HOST, each with or without :PORT, and in clear text h2c://, ws:// and grpc+plain://; repeatable (in the
    /// environment: separated by spaces)
    #[arg(
        long,
        env = "TUNNEL_SERVER",
        value_name = "URL[,URL…]",
        value_delimiter = ' ',
        help_heading = "Servers"
    )]
    pub server: Vec<String>,

    /// This agent's name [default: the host name]
    #[arg(long, env = "TUNNEL_ID", value_name = "NAME", help_heading = "Servers")]
    pub id: Option<String>,

    /// A label by which clients may choose this agent; repeatable
    #[arg(
        long,
        env = "TUNNEL_LABEL",
        value_name = "NAME=VALUE",
        value_delimiter = ',',
        help_heading = "Servers"
    )]
    pub label: Vec<String>,

    /// CA certificates (PEM) that the servers' certificates must be signed by
    #[arg(long, env = "TUNNEL_CA", value_name = "FILE", help_heading = "Servers")]
    pub ca: Option<PathBuf>,

    /// This agent's certificate chain (PEM)
    #[arg(long, env = "TUNNEL_CERT", value_name = "FILE", help_heading = "Servers")]
    pub cert: Option<PathBuf>,

    /// Private key (PEM) of --cert
    #[arg(long, env = "TUNNEL_KEY", value_name = "FILE", help_heading = "Servers")]
    pub key: Option<PathBuf>,

    /// File with the token that this agent shows to servers; read anew for every connection
    #[arg(long, env = "TUNNEL_TOKEN_FILE", value_name = "FILE", help_heading = "Servers")]
    pub token_file: Option<PathBuf>,

    /// Name to expect in the servers' certificates, if it is not the host of the URL
    #[arg(long, env = "TUNNEL_SERVER_NAME", value_name = "NAME", help_heading = "Servers")]
    pub server_name: Option<String>,

    /// Proxy to the servers, for all carriers but quic, which no proxy passes: http://HOST:PORT (HTTP CONNECT),
    /// http://USER:PASSWORD@HOST:PORT, socks5:// or socks5h:// alike; `env` takes HTTPS_PROXY or ALL_PROXY, `off` none
    #[arg(
        long,
        env = "TUNNEL_PROXY",
        value_name = "URL|env|off",
        default_value = "env",
        hide_env_values = true,
        help_heading = "Servers"
    )]
    pub proxy: String,

    /// Servers to be reached without --proxy: names, addresses, networks, joined by commas [default with
    /// --proxy env: NO_PROXY]
    #[arg(long, env = "TUNNEL_NO_PROXY", value_name = "LIST", help_heading = "Servers")]
    pub no_proxy: Option<String>,

    /// A header field of the request for a WebSocket (wss://, ws://), for a proxy or gateway before the server: a Host, an
    /// Authorization, a Cookie; repeatable (in the environment: one a line). Other users of this machine see the command
    /// line: secrets belong in the environment or in the file of --config
    #[arg(
        long,
        env = "TUNNEL_WS_HEADER",
        value_name = "NAME: VALUE",
        value_delimiter = '\n',
        hide_env_values = true,
        help_heading = "Servers"
    )]
    pub ws_header: Vec<Hidden>,

    /// How many connections are always kept with each server, at most 32; new streams go to the one with the fewest. More
    /// than one where one congestion window or the losses of one TCP connection are the limit
    #[arg(
        long,
        env = "TUNNEL_CONNECTIONS",
        value_name = "N",
        default_value = "1",
        help_heading = "Servers"
    )]
    pub connections: NonZeroU32,

    /// How many connections are kept with a server while it has many streams open, at most 32: one for every eight, since
    /// one thread serves a connection. What is more than --connections drains when it was not needed for a minute or two
    /// [default: as many as --threads, and no more than --connections where a URL of the server is quic://]
    #[arg(long, env = "TUNNEL_MAX_CONNECTIONS", value_name = "N", help_heading = "Servers")]
    pub max_connections: Option<NonZeroU32>,

    /// Where others connect to this agent and open streams by CONNECT over HTTP/2, as Envoy, curl and a tunnel-server's
    /// --upstream do: h2://ADDR, hbone://ADDR, and in clear text h2c://ADDR; repeatable
    #[arg(
        long,
        env = "TUNNEL_FORWARD",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    pub forward: Vec<String>,

    /// Certificate chain (PEM) for those who connect to --forward, if it is not --cert
    #[arg(long, env = "TUNNEL_FORWARD_CERT", value_name = "FILE", help_heading = "Listeners")]
    pub forward_cert: Option<PathBuf>,

    /// Private key (PEM) of --forward-cert
    #[arg(long, env = "TUNNEL_FORWARD_KEY", value_name = "FILE", help_heading = "Listeners")]
    pub forward_key: Option<PathBuf>,

    /// CA certificates (PEM) that the certificates of those who connect must be signed by
    #[arg(
        long,
        env = "TUNNEL_FORWARD_CLIENT_CA",
        value_name = "FILE",
        help_heading = "Listeners"
    )]
    pub forward_client_ca: Option<PathBuf>,

    /// Who may connect, if not everybody with such a certificate: names such as spiffe://example/gateway, dns:*.example
    /// or cn:gateway, with * for any run of characters; repeatable
    #[arg(
        long,
        env = "TUNNEL_FORWARD_CLIENT",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    pub forward_client: Vec<String>,

    /// Let whoever reaches --forward use this agent, without proof of who that is
    #[arg(long, env = "TUNNEL_FORWARD_ANYONE", help_heading = "Listeners")]
    pub forward_anyone: bool,

    /// How many connections by --forward there may be at once
    #[arg(
        long,
        env = "TUNNEL_MAX_FORWARD_CONNECTIONS",
        value_name = "N",
        default_value_t = 1024,
        help_heading = "Limits"
    )]
    pub max_forward_connections: u32,

    /// Rules (TOML) about which targets this agent dials; without it all but link-local, cloud metadata and other
    /// special addresses. Reloaded on change and on SIGHUP
    #[arg(long, env = "TUNNEL_POLICY", value_name = "FILE", help_heading = "Targets")]
    pub policy: Option<PathBuf>,

    /// How long connecting to a target may take, name resolution included
    #[arg(long, env = "TUNNEL_TARGET_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = values::duration, help_heading = "Targets")]
    pub target_timeout: Duration,

    /// How long connecting to a server may take, for each URL
    #[arg(long, env = "TUNNEL_CONNECT_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = values::duration, help_heading = "Limits")]
    pub connect_timeout: Duration,

    /// How many targets may be being dialled at once
    #[arg(
        long,
        env = "TUNNEL_MAX_PENDING_DIALS",
        value_name = "N",
        default_value_t = 1024,
        help_heading = "Limits"
    )]
    pub max_pending_dials: u32,

    #[command(flatten)]
    #[allow(missing_docs)] // clap would print it
    pub streams: StreamArgs,

    #[command(flatten)]
    #[allow(missing_docs)] // clap would print it
    pub keepalive: KeepaliveArgs,

    #[command(flatten)]
    #[allow(missing_docs)] // clap would print it
    pub quic: QuicArgs,

    #[command(flatten)]
    #[allow(missing_docs)] // clap would print it
    pub tcp: TcpArgs,

    /// How many threads serve connections [default: 2, or 1 on a single core]. Each connection is served by one, which
    /// fills a gigabit several times over; more share the work of several (--max-connections, --connections, --forward)
    #[arg(long, env = "TUNNEL_THREADS", value_name = "N", value_parser = values::threads, help_heading = "Limits")]
    pub threads: Option<NonZeroUsize>,

    #[command(flatten)]
    #[allow(missing_docs)] // clap would print it
    pub log: LogArgs,

    /// Where /livez, /readyz, /metrics and /sessions are served in clear text; `off` for nowhere
    #[arg(long, env = "TUNNEL_ADMIN", value_name = "ADDR|off", default_value = "127.0.0.1:8096", value_parser = admin_addr, help_heading = "Logs and administration")]
    pub admin: AdminAddr,
}

impl Program for AgentArgs {
    fn log(&self) -> &LogArgs {
        &self.log
    }

    fn only_check(&self) -> bool {
        self.check_config
    }

    fn threads(&self) -> NonZeroUsize {
        // An agent is a guest on a machine that is there for others.
        const MOST: NonZeroUsize = NonZeroUsize::new(2).unwrap();
        self.threads.unwrap_or_else(|| cores().min(MOST))
    }
}
