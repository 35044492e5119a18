//! The program `tunnel-server`, behind its command line.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tunnel_core::{
    Authenticator, NoToken, Policy, PolicyConfig, Require, Server, ServerConfig, ServerId, Threads, TokenAuthenticator,
    registry::Session,
    server::{UpstreamState, UpstreamStatus},
};
use tunnel_tcp::Proxies;
use tunnel_tls::ServerTls;

use crate::{
    admin::{Admin, Status},
    agent,
    carriers::{ListenSpec, Settings},
    cli::{AgentArgs, AgentAuth, ServerArgs},
    connect::{Upstream, UpstreamSpec},
    dev::{self, Dev},
    frontends::{Bound, Frontends, Stop},
    host, policy,
    reload::{Reloaded, Reloads},
    signals::{self, Signals},
    tls,
};

/// Understands the flags and reads every file; nothing listens yet. For `--dev` it makes the files that are missing.
pub fn plan(mut args: ServerArgs, threads: &Threads) -> anyhow::Result<Plan> {
    let dev = args.dev.then(|| develop(&mut args)).transpose()?;
    Plan::new(args, dev, threads.clone())
}

/// Runs until it is told to stop.
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    let (args, dev) = (plan.args, plan.dev);
    let mut signals = Signals::new()?;
    let mut registry = Registry::default();

    // Everything is bound before anything serves, so that a port that is taken is an error and not half a server.
    let admin = match args.admin.0 {
        Some(addr) => Some(Admin::bind(addr).await?),
        None => None,
    };
    let mut listeners = Vec::new();
    for spec in &plan.listen {
        listeners.push((spec, spec.listen(plan.agent_tls.as_ref(), &plan.settings)?));
    }
    let reloads_tls = plan.frontends.tls.clone();
    let frontends = plan
        .frontends
        .bind(&plan.id, &args, &plan.threads, &mut registry)
        .await?;

    let server = Server::builder(plan.id.clone())
        .config(plan.config)
        .authenticator(authenticator(plan.tokens.clone()))
        .policy(Arc::new(plan.policy))
        .threads(plan.threads)
        .build()?;
    server.metrics().register(&mut registry);
    let mut reloads = reloads(&args, &server, plan.agent_tls.clone(), reloads_tls, plan.tokens);
    for upstream in &plan.upstreams {
        reload_upstream(&mut reloads, &server, upstream);
    }

    let carrier = match listeners.first() {
        Some((spec, listener)) => Some((
            *spec,
            listener.local_addr().context("the carrier's address is not known")?,
        )),
        None => None,
    };
    let ready = next_steps(dev.as_ref(), &frontends, carrier);
    let inside = dev
        .as_ref()
        .zip(carrier)
        .map(|(dev, carrier)| inside_agent(&args, dev, carrier));
    let inside = inside.transpose()?;
    info!("server {} starts", plan.id);
    // Their names are theirs before an agent can ask for them.
    for upstream in plan.upstreams {
        server.upstream(upstream.claim, upstream.carrier, upstream.connections)?;
    }
    for (_, listener) in listeners {
        server.listen(listener)?;
    }
    let stop = Stop::default();
    let mut tasks = JoinSet::new();
    for frontend in frontends {
        tasks.spawn(frontend.serve(Arc::new(server.clone()), stop.clone()));
    }
    let admin_stop = CancellationToken::new();
    let admin = admin.map(|admin| {
        let status = ServerStatus(server.clone());
        tokio::spawn(admin.serve(status, registry, admin_stop.clone()))
    });
    let inside = inside.map(agent::start).transpose()?;
    if let (Some(inside), Some(text)) = (&inside, ready) {
        let (server, agent) = (server.clone(), inside.id().clone());
        tokio::spawn(async move {
            server.wait_for(&agent).await;
            print(&text);
        });
    }

    signals::wait_for_stop(&mut signals, &reloads).await;
    info!(
        "draining: streams may go on for {:?}; a second signal ends at once",
        args.streams.drain_timeout
    );
    server.drain();
    stop.drain.cancel();
    if let Some(inside) = &inside {
        inside.drain();
    }
    let began = Instant::now();
    let ended = async {
        while tasks.join_next().await.is_some() {}
        // What the clients have sent last is on its way to the agents.
        server
            .shutdown(args.streams.drain_timeout.saturating_sub(began.elapsed()))
            .await;
    };
    let late = tokio::select! {
        () = ended => None,
        () = tokio::time::sleep(args.streams.drain_timeout) => Some(signals::LATE),
        () = signals::wait_for_stop(&mut signals, &reloads) => Some(signals::TOLD_TWICE),
    };
    if let Some(why) = late {
        // Before the frontends, or there would be nothing left to count.
        let cut = server.shutdown(Duration::ZERO).await;
        stop.kill.cancel();
        warn!("{why}; streams cut short: {cut}");
    }
    if let Some(inside) = inside {
        inside.shutdown(Duration::ZERO).await;
    }
    while tasks.join_next().await.is_some() {}
    admin_stop.cancel();
    if let Some(admin) = admin {
        admin.await.context("the admin task failed")?;
    }
    info!("server {} has ended", plan.id);
    Ok(())
}

/// What the flags mean, with every file read and understood.
#[derive(Debug)]
pub struct Plan {
    args: ServerArgs,
    dev: Option<Dev>,
    id: ServerId,
    config: ServerConfig,
    settings: Settings,
    listen: Vec<ListenSpec>,
    upstreams: Vec<Upstream>,
    agent_tls: Option<ServerTls>,
    tokens: Option<Arc<TokenAuthenticator>>,
    frontends: Frontends,
    policy: Policy,
    threads: Threads,
}

impl Plan {
    fn new(args: ServerArgs, dev: Option<Dev>, threads: Threads) -> anyhow::Result<Self> {
        if args.carrier.is_empty() && args.upstream.is_empty() {
            bail!(
                "there is nothing to open streams through: give --carrier for agents, for example --carrier quic, or \
                 --upstream for proxies (or try --dev)"
            );
        }
        if args.frontend.is_empty() {
            warn!("no client can connect, because there is no --frontend");
        }
        let unspecified = if args.dev {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let settings = Settings {
            keepalive: args.keepalive.keepalive(),
            max_streams: args.streams.max_streams,
            quic: args.quic.clone(),
            tcp: args.tcp.clone(),
            sockets: args.tcp.sockets()?,
            budget: args.tcp.budget()?,
            proxies: Proxies::none(),
            ws_headers: Vec::new(),
        };
        let mut listen = Vec::with_capacity(args.carrier.len());
        for carrier in &args.carrier {
            let spec = ListenSpec::parse(carrier, unspecified.into())?;
            spec.check(&settings)?;
            listen.push(spec);
        }
        if !listen.is_empty() {
            check_clear_text(&args, &listen)?;
        }
        let secure = listen.iter().any(ListenSpec::is_secure);
        let tokens = match &args.agent_tokens {
            Some(path) => Some(Arc::new(TokenAuthenticator::from_file(path)?)),
            None => None,
        };
        Ok(Self {
            id: host::id(args.id.as_deref())?,
            config: config(&args, &listen)?,
            upstreams: UpstreamSpec::ready_all(&args, &settings)?,
            settings,
            agent_tls: secure.then(|| tls::for_agents(&args)).transpose()?,
            listen,
            tokens,
            frontends: Frontends::parse(&args)?,
            policy: read_policy(&args)?,
            threads,
            dev,
            args,
        })
    }
}

/// In clear text no agent can show a certificate, and everybody on the way can read along.
fn check_clear_text(args: &ServerArgs, listen: &[ListenSpec]) -> anyhow::Result<()> {
    let auth = tls::agent_auth(args)?;
    for spec in listen.iter().filter(|spec| !spec.is_secure()) {
        if matches!(auth, AgentAuth::Certificate | AgentAuth::Both) {
            bail!("agents cannot show a certificate on {spec}, which has no TLS: give --agent-tokens, or use TLS");
        }
        if spec.is_public() {
            warn!(
                "{spec} takes tokens and data in clear text; it is meant for a network that is safe, or for loopback \
                 behind a proxy that ends TLS"
            );
        }
    }
    Ok(())
}

fn config(args: &ServerArgs, listen: &[ListenSpec]) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::default();
    config.server_count = args.server_count;
    config.limits.max_streams = args.streams.max_streams;
    config.keepalive = args.keepalive.keepalive();
    config.dial_timeout = args.dial_timeout;
    config.accept.handshake_timeout = args.handshake_timeout;
    config.accept.max_pending = args.max_handshakes;
    config.accept.max_pending_per_source = config.accept.max_pending_per_source.min(args.max_handshakes);
    if listen.is_empty() {
        return Ok(config);
    }
    config.require = match tls::agent_auth(args)? {
        AgentAuth::Certificate => Require::Certificate,
        AgentAuth::Token => Require::Token,
        AgentAuth::Either => Require::Either,
        AgentAuth::Both => Require::Both,
    };
    Ok(config)
}

fn authenticator(tokens: Option<Arc<TokenAuthenticator>>) -> Arc<dyn Authenticator> {
    match tokens {
        Some(tokens) => tokens,
        None => Arc::new(NoToken),
    }
}

fn read_policy(args: &ServerArgs) -> anyhow::Result<Policy> {
    match &args.policy {
        Some(path) => {
            let config: PolicyConfig = policy::read(path)?;
            Policy::new(config).with_context(|| format!("the policy file {}", path.display()))
        }
        None => Ok(Policy::allow_all()),
    }
}

fn reloads(
    args: &ServerArgs,
    server: &Server,
    agent_tls: Option<ServerTls>,
    client_tls: Option<ServerTls>,
    tokens: Option<Arc<TokenAuthenticator>>,
) -> Reloads {
    let mut reloads = Reloads::default();
    for (name, tls) in [
        ("certificates for agents", agent_tls),
        ("certificates for clients", client_tls),
    ] {
        if let Some(tls) = tls {
            let files = tls.files().to_vec();
            reloads.add(name, files, move || Ok(tls.reload()?.into()));
        }
    }
    if let (Some(tokens), Some(path)) = (tokens, args.agent_tokens.clone()) {
        reloads.add("tokens", [path.clone()], move || {
            tokens.replace_from_file(&path)?;
            Ok(Reloaded::Anew)
        });
    }
    if let Some(path) = args.policy.clone() {
        let (server, args) = (server.clone(), args.clone());
        reloads.add("policy", [path], move || {
            server.set_policy(Arc::new(read_policy(&args)?));
            Ok(Reloaded::Anew)
        });
    }
    reloads
}

fn reload_upstream(reloads: &mut Reloads, server: &Server, upstream: &Upstream) {
    if let Some(tls) = upstream.tls.clone() {
        let (files, server) = (tls.files().to_vec(), server.clone());
        reloads.add("certificates for an upstream", files, move || {
            let reload = tls.reload()?;
            if reload == tunnel_tls::Reload::Changed {
                // What kept the upstream away may be mended.
                server.redial();
            }
            Ok(reload.into())
        });
    }
}

/// Fills in what `--dev` implies.
fn develop(args: &mut ServerArgs) -> anyhow::Result<Dev> {
    let dir = match &args.state_dir {
        Some(dir) => dir.clone(),
        None => dev::default_dir()?,
    };
    let dev = Dev::prepare(&dir)?;
    let given: [(&str, &Option<PathBuf>); 2] = [("--tls-cert", &args.tls_cert), ("--agent-tokens", &args.agent_tokens)];
    if let Some((flag, _)) = given.iter().find(|(_, file)| file.is_some()) {
        bail!("--dev brings its own certificates and token, so {flag} cannot be given with it");
    }
    args.tls_cert = Some(dev.cert.clone());
    args.tls_key = Some(dev.key.clone());
    args.agent_tokens = Some(dev.tokens.clone());
    args.allow_select = true;
    if args.carrier.is_empty() {
        args.carrier.push("quic".to_owned());
    }
    if args.frontend.is_empty() {
        args.frontend.push("connect://127.0.0.1:8090".to_owned());
    }
    Ok(dev)
}

/// The command line of the agent inside: the same program as elsewhere, over the same carrier.
fn inside_agent(
    server: &ServerArgs,
    dev: &Dev,
    (spec, mut addr): (&ListenSpec, SocketAddr),
) -> anyhow::Result<AgentArgs> {
    if addr.ip().is_unspecified() {
        let loopback = if addr.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        };
        addr.set_ip(loopback);
    }
    let words = [
        "tunnel-agent".into(),
        "--id=dev".into(),
        format!("--server={}", spec.url(&addr.to_string())).into(),
        format!("--server-name={}", dev::SERVER_NAME).into(),
        "--proxy=off".into(),
        "--admin=off".into(),
        "--ca".into(),
        dev.ca.clone().into_os_string(),
        "--token-file".into(),
        dev.token.clone().into_os_string(),
    ];
    let mut args = <AgentArgs as clap::Parser>::try_parse_from(words)?;
    // Flags that the server has, too, may have come from its environment.
    args.policy = None;
    (args.keepalive, args.quic, args.tcp) = (server.keepalive.clone(), server.quic.clone(), server.tcp.clone());
    Ok(args)
}

fn next_steps(dev: Option<&Dev>, frontends: &[Bound], carrier: Option<(&ListenSpec, SocketAddr)>) -> Option<String> {
    let frontend = frontends.iter().find_map(|frontend| frontend.addr)?;
    let (spec, addr) = carrier?;
    Some(dev::next_steps(dev?, frontend, spec, addr))
}

#[allow(clippy::print_stdout)] // what to type next is this mode's output
fn print(text: &str) {
    println!("{text}");
}

struct ServerStatus(Server);

impl Status for ServerStatus {
    fn ready(&self) -> Result<(), String> {
        if self.0.is_draining() {
            Err("draining".to_owned())
        } else {
            Ok(())
        }
    }

    fn sessions(&self) -> serde_json::Value {
        let now = Instant::now();
        let view = self.0.agents();
        let agents = view.sessions().iter().map(|session| agent_json(session, now));
        let upstreams = self.0.upstreams();
        json!({
            "server": self.0.id().as_str(),
            "agents": agents.collect::<Vec<_>>(),
            "upstreams": upstreams.iter().map(upstream_json).collect::<Vec<_>>(),
        })
    }
}

fn upstream_json(upstream: &UpstreamStatus) -> serde_json::Value {
    let state = |state: &UpstreamState| match state {
        UpstreamState::Connected { since, .. } => json!({ "state": "connected", "since_seconds": since.as_secs() }),
        UpstreamState::Waiting { next_try, .. } => json!({ "state": "waiting", "next_try_ms": next_try.as_millis() }),
        UpstreamState::Queued => json!({ "state": "queued" }),
        UpstreamState::Ended => json!({ "state": "ended" }),
        _ => json!({ "state": "connecting" }),
    };
    json!({
        "name": upstream.name.as_str(),
        "url": upstream.remote,
        "connection": state(&upstream.state),
        "connections": upstream.connections.iter().map(state).collect::<Vec<_>>(),
        "last_error": upstream.last_error.as_ref().map(|error| error.text.clone()),
    })
}

fn agent_json(session: &Session, now: Instant) -> serde_json::Value {
    let connections = session.connections().iter().map(|connection| {
        let (stats, load) = (connection.stats(), connection.load(now));
        json!({
            "carrier": connection.carrier(),
            "remote": connection.remote_addr().to_string(),
            "age_seconds": connection.age().as_secs(),
            "draining": load.draining,
            "suspect": load.suspect,
            "streams": load.streams,
            "bytes_to_agent": stats.bytes_sent,
            "bytes_from_agent": stats.bytes_received,
            "rtt_ms": stats.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        })
    });
    json!({
        "agent": session.agent().as_str(),
        "generation": session.generation().0,
        "identity": session.principal(),
        "software": session.software().as_str(),
        "labels": session.labels().iter().collect::<std::collections::BTreeMap<_, _>>(),
        "connections": connections.collect::<Vec<_>>(),
    })
}
