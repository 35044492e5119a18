//! The command line of `tunnel-server`.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use super::common::{AdminAddr, KeepaliveArgs, LogArgs, QuicArgs, StreamArgs, TcpArgs, admin_addr};
use crate::{program::Program, runtimes::cores, values};

const EXAMPLES: &str = "\
Examples:
  Everything on this machine, to try it out:
    tunnel-server --dev

  Agents by QUIC with client certificates, clients by HTTP CONNECT on loopback:
    tunnel-server --carrier quic --tls-cert gw.crt --tls-key gw.key --agent-ca agents.crt \\
                  --frontend connect://127.0.0.1:8090

  Agents by QUIC and, where UDP does not pass, by WebSocket:
    tunnel-server --carrier quic --carrier ws --tls-cert gw.crt --tls-key gw.key --agent-ca agents.crt \\
                  --frontend connect://127.0.0.1:8090

  kube-apiserver through a Unix socket (egress selector, HTTPConnect):
    tunnel-server --carrier quic://0.0.0.0:8091 --tls-cert gw.crt --tls-key gw.key --agent-ca agents.crt \\
                  --frontend 'connect+unix:///run/tunnel/connect.sock?mode=0660'

  Streams through an Envoy that ends CONNECT, which clients know as the agent site-a:
    tunnel-server --upstream 'site-a=h2://proxy.example:8443?label=zone=a' --upstream-ca proxies.crt \\
                  --upstream-cert gw.crt --upstream-key gw.key --frontend connect://127.0.0.1:8090

Every flag is also a key of the TOML file that --config names (carrier = [\"quic\"]) and has an environment variable.
The command line wins over the environment, which wins over the file.";

/// Accepts agents from private networks and opens streams through them on behalf of clients
#[derive(Clone, Debug, Parser)]
#[command(name = "tunnel-server", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct ServerArgs {
    /// Everything on loopback with a development CA and an agent inside; prints what to type next
    #[arg(long, env = "TUNNEL_DEV")]
    pub dev: bool,

    /// Where --dev keeps its CA, certificates and token [default: tunnel-dev in the user's state directory]
    #[arg(long, env = "TUNNEL_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// TOML file with any of these flags as keys
    #[arg(long, env = "TUNNEL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check flags, files and certificates, say what is wrong, and exit
    #[arg(long)]
    pub check_config: bool,

    /// This server's name, as agents and Proxy-Status see it [default: the host name]
    #[arg(long, env = "TUNNEL_ID", value_name = "NAME")]
    pub id: Option<String>,

    /// How many servers an agent should keep connections with
    #[arg(long, env = "TUNNEL_SERVER_COUNT", value_name = "N", default_value_t = 1)]
    pub server_count: u32,

    /// How agents connect: quic, h2, ws or grpc (0.0.0.0:8091), or a URL: quic://ADDR, h2://ADDR[/PATH], wss://ADDR[/PATH],
    /// grpc://ADDR, and in clear text h2c://ADDR[/PATH], ws://ADDR[/PATH], grpc+plain://ADDR; repeatable
    #[arg(
        long,
        env = "TUNNEL_CARRIER",
        value_name = "NAME|URL",
        value_delimiter = ',',
        help_heading = "Agents"
    )]
    pub carrier: Vec<String>,

    /// Certificate chain (PEM) for agents, and for connect+tls frontends without one of their own
    #[arg(long, env = "TUNNEL_TLS_CERT", value_name = "FILE", help_heading = "Agents")]
    pub tls_cert: Option<PathBuf>,

    /// Private key (PEM) of --tls-cert
    #[arg(long, env = "TUNNEL_TLS_KEY", value_name = "FILE", help_heading = "Agents")]
    pub tls_key: Option<PathBuf>,

    /// CA certificates (PEM) that agents' certificates must be signed by
    #[arg(long, env = "TUNNEL_AGENT_CA", value_name = "FILE", help_heading = "Agents")]
    pub agent_ca: Option<PathBuf>,

    /// Tokens of agents: a file with a name and a token on each line
    #[arg(long, env = "TUNNEL_AGENT_TOKENS", value_name = "FILE", help_heading = "Agents")]
    pub agent_tokens: Option<PathBuf>,

    /// What an agent must prove [default: whichever of --agent-ca and --agent-tokens are given]
    #[arg(long, env = "TUNNEL_AGENT_AUTH", value_enum, help_heading = "Agents")]
    pub agent_auth: Option<AgentAuth>,

    /// A proxy that this server dials itself, and that is to clients an agent of this name: h2://HOST (port 443),
    /// hbone://HOST?spiffe=ID (port 15008), each with or without :PORT, or in clear text h2c://HOST:PORT; with parameters
    /// such as ?label=zone=a&label=tier=1, spiffe=ID and server-name=NAME (what its certificate must hold) and
    /// baggage=TEXT; repeatable (in the environment: separated by spaces)
    #[arg(
        long,
        env = "TUNNEL_UPSTREAM",
        value_name = "NAME=URL",
        value_delimiter = ' ',
        help_heading = "Upstreams"
    )]
    pub upstream: Vec<String>,

    /// CA certificates (PEM) that the certificates of upstreams must be signed by
    #[arg(long, env = "TUNNEL_UPSTREAM_CA", value_name = "FILE", help_heading = "Upstreams")]
    pub upstream_ca: Option<PathBuf>,

    /// Certificate chain (PEM) that this server shows to upstreams
    #[arg(long, env = "TUNNEL_UPSTREAM_CERT", value_name = "FILE", help_heading = "Upstreams")]
    pub upstream_cert: Option<PathBuf>,

    /// Private key (PEM) of --upstream-cert
    #[arg(long, env = "TUNNEL_UPSTREAM_KEY", value_name = "FILE", help_heading = "Upstreams")]
    pub upstream_key: Option<PathBuf>,

    /// How clients connect: connect://ADDR, connect+tls://ADDR, connect+unix:///PATH[?mode=0660&owner=UID:GID]; repeatable
    #[arg(
        long,
        env = "TUNNEL_FRONTEND",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Clients"
    )]
    pub frontend: Vec<String>,

    /// Certificate chain (PEM) for clients, if it is not --tls-cert
    #[arg(long, env = "TUNNEL_FRONTEND_CERT", value_name = "FILE", help_heading = "Clients")]
    pub frontend_cert: Option<PathBuf>,

    /// Private key (PEM) of --frontend-cert
    #[arg(long, env = "TUNNEL_FRONTEND_KEY", value_name = "FILE", help_heading = "Clients")]
    pub frontend_key: Option<PathBuf>,

    /// CA certificates (PEM) that clients' certificates must be signed by
    #[arg(long, env = "TUNNEL_CLIENT_CA", value_name = "FILE", help_heading = "Clients")]
    pub client_ca: Option<PathBuf>,

    /// Whether a client without a certificate is accepted when there is a --client-ca
    #[arg(long, env = "TUNNEL_CLIENT_CERTS", value_enum, default_value_t = ClientCerts::Required, help_heading = "Clients")]
    pub client_certs: ClientCerts,

    /// Rules (TOML) about which client may reach which target through which agent, and which identity may be which
    /// agent; without it everybody who can connect may reach everything. Reloaded on change and on SIGHUP
    #[arg(long, env = "TUNNEL_POLICY", value_name = "FILE", help_heading = "Clients")]
    pub policy: Option<PathBuf>,

    /// Let clients choose an agent by the request headers Tunnel-Agent and Tunnel-Agent-Labels
    #[arg(long, env = "TUNNEL_ALLOW_SELECT", help_heading = "Clients")]
    pub allow_select: bool,

    /// How long an agent may take to connect and make its claim
    #[arg(long, env = "TUNNEL_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = values::duration, help_heading = "Limits")]
    pub handshake_timeout: Duration,

    /// How many agents may be connecting at once
    #[arg(
        long,
        env = "TUNNEL_MAX_HANDSHAKES",
        value_name = "N",
        default_value_t = 1024,
        help_heading = "Limits"
    )]
    pub max_handshakes: u32,

    /// How long opening a stream may take, from the client's request to the agent's answer
    #[arg(long, env = "TUNNEL_DIAL_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = values::duration, help_heading = "Limits")]
    pub dial_timeout: Duration,

    /// How many dials one client may have pending
    #[arg(
        long,
        env = "TUNNEL_MAX_PENDING_DIALS",
        value_name = "N",
        default_value_t = 100,
        help_heading = "Limits"
    )]
    pub max_pending_dials: usize,

    /// How many client connections each frontend may have open at once; fewer where the system grants too few open files
    #[arg(
        long,
        env = "TUNNEL_MAX_CLIENTS",
        value_name = "N",
        default_value_t = 32_768,
        help_heading = "Limits"
    )]
    pub max_clients: usize,

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

    /// How many threads serve agents and clients [default: one for each core]. Each connection of an agent is served by
    /// one of them, with the clients of its streams; with QUIC the first has more to do
    #[arg(long, env = "TUNNEL_THREADS", value_name = "N", value_parser = values::threads, help_heading = "Limits")]
    pub threads: Option<NonZeroUsize>,

    #[command(flatten)]
    #[allow(missing_docs)] // clap would print it
    pub log: LogArgs,

    /// Where /livez, /readyz, /metrics and /sessions are served in clear text; `off` for nowhere
    #[arg(long, env = "TUNNEL_ADMIN", value_name = "ADDR|off", default_value = "127.0.0.1:8095", value_parser = admin_addr, help_heading = "Logs and administration")]
    pub admin: AdminAddr,
}

/// What an agent must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AgentAuth {
    /// A certificate that --agent-ca has signed.
    Certificate,
    /// A token of --agent-tokens.
    Token,
    /// One of the two.
    Either,
    /// Both.
    Both,
}

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientCerts {
    /// A client without one is refused in the TLS handshake.
    Required,
    /// A client without one is anonymous to the policy.
    Optional,
}

impl Program for ServerArgs {
    fn log(&self) -> &LogArgs {
        &self.log
    }

    fn only_check(&self) -> bool {
        self.check_config
    }

    fn threads(&self) -> NonZeroUsize {
        self.threads.unwrap_or_else(cores)
    }
}
