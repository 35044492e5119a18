//! The program `tunnel-agent`, behind its command line.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tunnel_core::{
    Agent, AgentConfig, AgentId, AgentPolicy, AgentPolicyConfig, Callers, Carrier, CredentialSource, Labels,
    RunningAgent, Secret, TargetDialOptions, TargetDialer, Threads,
    agent::{ListenerStatus, ServerState, ServerStatus},
};
use tunnel_tcp::Proxies;
use tunnel_tls::{ClientTls, ServerTls};

use crate::{
    admin::{Admin, Status},
    carriers::{DialSpec, Settings},
    cli::AgentArgs,
    connect::{ForwardSpec, callers},
    host, policy,
    reload::{Reloaded, Reloads},
    signals::{self, Signals},
    tls,
};

/// What the flags mean, with every file read and understood.
#[derive(Debug)]
pub struct Plan {
    args: AgentArgs,
    id: AgentId,
    agent: Agent,
    tls: Option<ClientTls>,
    settings: Settings,
    forward: Vec<ForwardSpec>,
    callers: Callers,
    callers_tls: Option<ServerTls>,
}

/// Runs until it is told to stop.
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // Everything is bound before anything serves, so that a port that is taken is an error and not half an agent.
    let admin = match plan.args.admin.0 {
        Some(addr) => Some(Admin::bind(addr).await?),
        None => None,
    };
    let mut listeners = Vec::with_capacity(plan.forward.len());
    for forward in &plan.forward {
        listeners.push(forward.listen(&plan.id, plan.callers_tls.as_ref(), &plan.settings)?);
    }
    let Plan { args, agent, tls, .. } = plan;
    let agent = agent.start();
    info!("agent {} starts", agent.id());
    for listener in listeners {
        agent.listen(listener, plan.callers.clone())?;
    }
    let reloads = reloads(&args, &agent, tls.as_ref(), plan.callers_tls);
    let mut registry = Registry::default();
    agent.metrics().register(&mut registry);
    let admin_stop = CancellationToken::new();
    let admin = admin.map(|admin| {
        let status = AgentStatus(agent.clone());
        tokio::spawn(admin.serve(status, registry, admin_stop.clone()))
    });

    signals::wait_for_stop(&mut signals, &reloads).await;
    info!(
        "draining: streams may go on for {:?}; a second signal ends at once",
        args.streams.drain_timeout
    );
    agent.drain();
    let (why, cut) = tokio::select! {
        cut = agent.shutdown(args.streams.drain_timeout) => (signals::LATE, cut),
        () = signals::wait_for_stop(&mut signals, &reloads) => {
            (signals::TOLD_TWICE, agent.shutdown(Duration::ZERO).await)
        }
    };
    if cut > 0 {
        warn!("{why}; streams cut short: {cut}");
    }
    admin_stop.cancel();
    if let Some(admin) = admin {
        admin.await.context("the admin task failed")?;
    }
    info!("agent {} has ended", agent.id());
    Ok(())
}

/// Starts the agent that the flags describe, without signals and administration.
pub fn start(args: AgentArgs) -> anyhow::Result<RunningAgent> {
    Ok(plan(args, &Threads::default())?.agent.start())
}

/// Understands the flags and reads every file; nothing is dialled yet.
pub fn plan(args: AgentArgs, threads: &Threads) -> anyhow::Result<Plan> {
    if args.server.is_empty() && args.forward.is_empty() {
        bail!(
            "there is no server to connect to: give --server, for example --server quic://gw.example:8091, or --forward \
             for others to connect here"
        );
    }
    let mut servers = Vec::with_capacity(args.server.len());
    for server in &args.server {
        servers.push(
            server
                .split(',')
                .map(DialSpec::parse)
                .collect::<anyhow::Result<Vec<_>>>()?,
        );
    }
    let secure = servers.iter().flatten().any(DialSpec::is_secure);
    let tls = secure.then(|| tls::for_servers(&args)).transpose()?;
    if servers.iter().flatten().any(|spec| !spec.is_secure()) && args.token_file.is_none() {
        bail!("this agent has nothing to prove itself with in clear text: give --token-file");
    }
    let settings = Settings {
        keepalive: args.keepalive.keepalive(),
        max_streams: args.streams.max_streams,
        quic: args.quic.clone(),
        tcp: args.tcp.clone(),
        sockets: args.tcp.sockets()?,
        budget: args.tcp.budget()?,
        proxies: proxies(&args, &servers)?,
        ws_headers: args.ws_header.clone(),
    };
    if !args.ws_header.is_empty() && !servers.iter().flatten().any(DialSpec::takes_ws_headers) {
        warn!("--ws-header is of no use, because no URL of --server is wss:// or ws://");
    }
    let forward = ForwardSpec::parse_all(&args, &settings)?;
    let callers_tls = forward
        .iter()
        .any(ForwardSpec::is_secure)
        .then(|| tls::for_callers(&args));
    let mut config = AgentConfig::default();
    config.connections = args.connections;
    config.max_connections = args.max_connections;
    config.max_accepted = args.max_forward_connections;
    config.connect_timeout = args.connect_timeout;
    config.max_pending_dials = args.max_pending_dials;
    config.idle_timeout = args.streams.idle_timeout.0;
    let mut dialing = TargetDialOptions::default();
    dialing.timeout = args.target_timeout;
    let id: AgentId = host::id(args.id.as_deref())?;
    let mut agent = Agent::builder(id.clone())
        .threads(threads.clone())
        .labels(labels(&args.label)?)
        .policy(Arc::new(read_policy(&args)?))
        .dialer(TargetDialer::new(dialing))
        .config(config);
    for server in servers {
        let carriers = server.iter().map(|spec| spec.carrier(tls.as_ref(), &settings));
        agent = agent.server(carriers.collect::<anyhow::Result<Vec<Arc<dyn Carrier>>>>()?);
    }
    if let Some(path) = args.token_file.clone() {
        token(&path)?;
        agent = agent.credential(CredentialSource::new(move || token(&path).map_err(io::Error::other)));
    }
    Ok(Plan {
        id,
        agent: agent.build()?,
        tls,
        settings,
        forward,
        callers: callers(&args)?,
        callers_tls: callers_tls.transpose()?,
        args,
    })
}

fn token(path: &PathBuf) -> anyhow::Result<Secret> {
    Secret::new(tls::read_token(path)?).with_context(|| format!("the token file {}", path.display()))
}

/// The way out of this network. What the environment says of proxies matters only to carriers that take them.
fn proxies(args: &AgentArgs, servers: &[Vec<DialSpec>]) -> anyhow::Result<Proxies> {
    if !servers.iter().flatten().any(DialSpec::takes_proxies) {
        return Ok(Proxies::none());
    }
    let proxies = match args.proxy.as_str() {
        "off" => Proxies::none(),
        "env" => Proxies::from_env()?,
        url => Proxies::one(url.parse().context("--proxy")?),
    };
    Ok(match &args.no_proxy {
        Some(list) => proxies.except(list),
        None => proxies,
    })
}

fn labels(given: &[String]) -> anyhow::Result<Labels> {
    let mut labels = Labels::default();
    for label in given {
        let fits = label
            .split_once('=')
            .is_some_and(|(name, value)| labels.insert(name, value));
        if !fits {
            bail!("--label {label:?} is not NAME=VALUE in visible ASCII, or there are too many");
        }
    }
    Ok(labels)
}

fn read_policy(args: &AgentArgs) -> anyhow::Result<AgentPolicy> {
    match &args.policy {
        Some(path) => {
            let config: AgentPolicyConfig = policy::read(path)?;
            AgentPolicy::new(config).with_context(|| format!("the policy file {}", path.display()))
        }
        None => Ok(AgentPolicy::default()),
    }
}

fn reloads(args: &AgentArgs, agent: &RunningAgent, tls: Option<&ClientTls>, callers_tls: Option<ServerTls>) -> Reloads {
    let mut reloads = Reloads::default();
    if let Some(tls) = callers_tls {
        let files = tls.files().to_vec();
        reloads.add("certificates of --forward", files, move || Ok(tls.reload()?.into()));
    }
    if let Some(tls) = tls {
        let (files, reloaded, redialled) = (tls.files().to_vec(), tls.clone(), agent.clone());
        reloads.add("certificates", files, move || {
            let reload = reloaded.reload()?;
            if reload == tunnel_tls::Reload::Changed {
                // What kept this agent away may be mended.
                redialled.redial();
            }
            Ok(reload.into())
        });
    }
    if let Some(path) = args.token_file.clone() {
        let agent = agent.clone();
        // The token is read anew for every connection; what remains is not to wait for the next attempt.
        reloads.add("token", [path.clone()], move || {
            token(&path)?;
            agent.redial();
            Ok(Reloaded::Anew)
        });
    }
    if let Some(path) = args.policy.clone() {
        let (agent, args) = (agent.clone(), args.clone());
        reloads.add("policy", [path], move || {
            agent.set_policy(Arc::new(read_policy(&args)?));
            Ok(Reloaded::Anew)
        });
    }
    reloads
}

struct AgentStatus(RunningAgent);

impl Status for AgentStatus {
    fn ready(&self) -> Result<(), String> {
        if self.0.is_draining() {
            return Err("draining".to_owned());
        }
        if !self.0.is_connected() && !self.0.status().servers.is_empty() {
            return Err("no server is connected".to_owned());
        }
        Ok(())
    }

    fn sessions(&self) -> serde_json::Value {
        let status = self.0.status();
        json!({
            "agent": status.agent.as_str(),
            "generation": status.generation.0,
            "servers": status.servers.iter().map(server_json).collect::<Vec<_>>(),
            "listeners": status.listeners.iter().map(listener_json).collect::<Vec<_>>(),
        })
    }
}

fn listener_json(listener: &ListenerStatus) -> serde_json::Value {
    json!({
        "carrier": listener.carrier,
        "address": listener.addr.to_string(),
        "connections": listener.connections,
    })
}

fn server_json(server: &ServerStatus) -> serde_json::Value {
    json!({
        "urls": server.remotes,
        "connection": state_json(&server.state),
        "connections": server.connections.iter().map(state_json).collect::<Vec<_>>(),
        "last_error": server.last_error.as_ref().map(|error| error.text.clone()),
        "draining_connections": server.draining_connections,
        "same_as": server.same_as,
    })
}

fn state_json(state: &ServerState) -> serde_json::Value {
    match state {
        ServerState::Connected {
            server,
            carrier,
            remote,
            since,
            ..
        } => json!({
            "state": "connected",
            "server": server.as_str(),
            "carrier": carrier,
            "remote": remote,
            "since_seconds": since.as_secs(),
        }),
        ServerState::Waiting { next_try, .. } => json!({ "state": "waiting", "next_try_ms": next_try.as_millis() }),
        ServerState::Queued => json!({ "state": "queued" }),
        ServerState::Ended => json!({ "state": "ended" }),
        _ => json!({ "state": "connecting" }),
    }
}
