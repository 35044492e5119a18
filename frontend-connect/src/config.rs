//! What can be set.

use std::{sync::Arc, time::Duration};

use tunnel_core::{ServerId, Threads};

use crate::auth::ClientAuthenticator;

/// The settings of a frontend. Memory for one connection before its tunnel stands is at most
/// [`max_head`](Self::max_head) + [`max_early`](Self::max_early).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How this server calls itself in `Proxy-Status` and in the body of refusals.
    pub server_id: ServerId,
    /// Whether clients may choose the agent by [`Tunnel-Agent`](crate::AGENT_HEADER) or
    /// [`Tunnel-Agent-Labels`](crate::AGENT_LABELS_HEADER); a request that tries although it may not is refused with
    /// 403. Default: no, for many a network is behind one agent only. If they may, the server's policy still decides
    /// about each choice.
    pub agent_headers: bool,
    /// Judges `Proxy-Authorization`; without one the field is ignored. Default: none.
    pub authenticator: Option<Arc<dyn ClientAuthenticator>>,

    /// The largest request head in bytes; a longer one is refused with 431. Default: 16 KiB, which is what common
    /// proxies take.
    pub max_head: usize,
    /// The largest number of header fields; more are refused with 431. Default: 100.
    pub max_headers: usize,
    /// How long a client may take for its request head, from accept or from the end of the TLS handshake; then the
    /// answer is 408. Default: 10 s.
    pub head_timeout: Duration,
    /// How long a client may take for the TLS handshake. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How long opening the tunnel may take, authentication included; then the answer is 504. The agent is told, so
    /// that it gives up in time. Default: 30 s, because clients such as kube-apiserver have no limit of their own.
    pub dial_timeout: Duration,
    /// How many dials of one client may be pending; the next request is refused with 429. A client is the principal
    /// of its identity if it has one, else its IP address (a /64 counts as one in IPv6), else its Unix user.
    /// Default: 100.
    pub max_pending_dials_per_client: usize,
    /// How many dials may be pending in all; the next request is refused with 503. Default: 4096.
    pub max_pending_dials: usize,
    /// How many bytes of a client are taken before the answer: what came with the request is given to the opener, and
    /// the rest is held. Then no more are read until the answer. Default: 64 KiB.
    pub max_early: usize,
    /// How long the target's first bytes are held back while the client is silent. Clients such as kube-apiserver
    /// fail if their read of the 200 returns bytes of the tunnel, too; they speak first, so holding the target's bytes
    /// until the client's first has arrived is safe for them. This limit is for protocols in which the target speaks
    /// first: it delays their first bytes until so long after the 200, once for each tunnel. Default: 20 ms.
    pub hold: Duration,

    /// How many connections may be open at once, tunnels included; one more is refused with 503. Default: 32,768.
    pub max_connections: usize,
    /// How long a client may take to read a refusal before the connection is closed. Default: 2 s.
    pub linger: Duration,
    /// After how long without a byte either way a tunnel is ended. Default: never, for a quiet tunnel may be a watch
    /// that waits; dead clients are found by [`tcp_keepalive`](Self::tcp_keepalive).
    pub idle_timeout: Option<Duration>,
    /// After how long without a byte a tunnel is ended of which one direction has ended. Default: never, as for TCP
    /// itself: a request may be followed by the end of its half and hours of work.
    pub half_close_timeout: Option<Duration>,
    /// After how long a silent TCP client is probed; three unanswered probes, each after a third of that time, end
    /// its connection. Default: 60 s.
    pub tcp_keepalive: Option<Duration>,

    /// Among which threads clients are divided until they have a tunnel, which then runs where its stream does
    /// ([`Opened::home`](tunnel_core::Opened::home)). Default: none, and clients begin in the runtime that
    /// [serves](crate::ConnectFrontend::serve).
    pub threads: Threads,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(server_id: ServerId) -> Self {
        Self {
            server_id,
            agent_headers: false,
            authenticator: None,
            max_head: 16 * 1024,
            max_headers: 100,
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(30),
            max_pending_dials_per_client: 100,
            max_pending_dials: 4096,
            max_early: 64 * 1024,
            hold: Duration::from_millis(20),
            max_connections: 32_768,
            linger: Duration::from_secs(2),
            idle_timeout: None,
            half_close_timeout: None,
            tcp_keepalive: Some(Duration::from_secs(60)),
            threads: Threads::default(),
        }
    }
}
