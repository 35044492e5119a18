//! Streams that servers open, and what becomes of them.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    time::{Instant, sleep},
};
use tunnel_core::{
    AgentPolicy, AgentPolicyConfig, Client, Inbound, InboundHandler, OpenRequest, Opener, Peer, RefusalKind, Resolve,
    StreamHead, TargetDialOptions, TargetDialer,
    agent::AgentConfig,
    policy::{AgentRuleConfig, Effect},
    proto::DnsName,
};

use crate::support::{Site, echo_target, id, metric, round_trip, settle, soon, tcp};

const SECOND: Duration = Duration::from_secs(1);

/// Knows a few names, and never answers about the others.
#[derive(Debug)]
struct Names;

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, name: &DnsName) -> io::Result<Vec<IpAddr>> {
        match name.as_str() {
            "local.example" => Ok(vec!["127.0.0.1".parse().unwrap()]),
            "rebound.example" => Ok(vec!["::ffff:169.254.169.254".parse().unwrap()]),
            _ => std::future::pending().await,
        }
    }
}

fn dialer() -> TargetDialer {
    TargetDialer::with_resolver(TargetDialOptions::default(), Arc::new(Names))
}

fn policy(rules: Vec<AgentRuleConfig>) -> Arc<AgentPolicy> {
    let default = Some(Effect::Allow);
    Arc::new(AgentPolicy::new(AgentPolicyConfig { default, rules }).unwrap())
}

#[tokio::test]
async fn a_stream_reaches_its_target() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder).await;
    let target = tcp(echo_target().await);
    for size in [0, 1, 300_000] {
        let io = soon(site.server.dial(id(), target.clone())).await.unwrap();
        round_trip(io, &vec![7; size]).await;
    }
    assert_eq!(metric(&agent, "streams_total{opener=\"server\"}"), 3.0);
    assert_eq!(
        metric(&agent, "stream_bytes_total{direction=\"from_server\"}"),
        300_001.0
    );
    assert_eq!(metric(&agent, "stream_bytes_total{direction=\"to_server\"}"), 300_001.0);
    assert_eq!(metric(&agent, "dial_duration_seconds_count{result=\"reached\"}"), 3.0);
    settle().await;
    assert_eq!(metric(&agent, "streams_open{opener=\"server\"}"), 0.0);
    assert_eq!(metric(&agent, "dials_pending"), 0.0);
}

#[tokio::test]
async fn a_target_that_refuses_is_told_as_such() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let failure = soon(site.server.dial(id(), tcp(closed))).await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::ConnectionRefused);
    assert_eq!(failure.agent, Some(id()));
    assert_eq!(metric(&agent, "refusals_total{kind=\"connection_refused\"}"), 1.0);
}

#[tokio::test]
async fn a_unix_socket_needs_a_rule() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let target = format!("unix://{}", path.display())
        .parse::<tunnel_core::Target>()
        .unwrap();
    let site = Site::new("a");
    let agent = site.agent(|builder| builder).await;
    let failure = soon(site.server.dial(id(), target.clone())).await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::DestinationIpProhibited);

    agent.set_policy(policy(vec![AgentRuleConfig {
        unix: vec![format!("{}/*", dir.path().display())],
        ..AgentRuleConfig::default()
    }]));
    let mut io = soon(site.server.dial(id(), target)).await.unwrap();
    let (mut socket, _) = soon(listener.accept()).await.unwrap();
    socket.write_all(b"hello").await.unwrap();
    drop(socket);
    let mut greeting = String::new();
    soon(io.read_to_string(&mut greeting)).await.unwrap();
    assert_eq!(greeting, "hello");
}

#[tokio::test(start_paused = true)]
async fn metadata_services_are_out_of_reach() {
    let site = Site::new("a");
    let _agent = site.agent(|builder| builder.dialer(dialer())).await;
    for target in [
        "tcp://169.254.169.254:80",
        "tcp://[64:ff9b::a9fe:a9fe]:80",
        "tcp://metadata.google.internal:80",
        "tcp://rebound.example:80",
    ] {
        let failure = soon(site.server.dial(id(), target.parse().unwrap())).await.unwrap_err();
        assert_eq!(failure.refusal.kind, RefusalKind::DestinationIpProhibited, "{target}");
        let text = failure.refusal.text.as_str();
        assert!(
            text.starts_with(&format!("cannot reach {target}: the agent's policy forbids ")),
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_hangs_ends_at_the_stream_s_deadline_or_at_the_agent_s() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder.dialer(dialer())).await;
    // The server keeps a tenth of the deadline for itself, up to half a second.
    for (asked, millis) in [(Some(SECOND), 900), (None, 5000), (Some(60 * SECOND), 5000)] {
        let mut head = StreamHead::new("tcp://silent.example:80".parse().unwrap());
        head.deadline = asked;
        let before = Instant::now();
        let failure = soon(site.server.open(OpenRequest {
            client: Client::default(),
            selector: id().into(),
            head,
            early: Bytes::new(),
        }));
        let failure = failure.await.unwrap_err();
        assert_eq!(failure.refusal.kind, RefusalKind::DnsTimeout);
        let took = before.elapsed().as_millis();
        assert!((millis..millis + 10).contains(&took), "{took}");
    }
    assert_eq!(
        metric(&agent, "dial_duration_seconds_count{result=\"dns_timeout\"}"),
        3.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_given_up_is_dialled_no_further() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder.dialer(dialer())).await;
    let server = site.server.clone();
    let dial = tokio::spawn(async move { server.dial(id(), "tcp://silent.example:80".parse().unwrap()).await });
    sleep(SECOND).await;
    assert_eq!(metric(&agent, "dials_pending"), 1.0);
    dial.abort();
    settle().await;
    assert_eq!(metric(&agent, "dials_pending"), 0.0);
    assert_eq!(metric(&agent, "streams_abandoned_total"), 1.0);
}

#[tokio::test]
async fn dials_that_hang_delay_nobody_and_are_limited() {
    let site = Site::new("a");
    let mut config = AgentConfig::default();
    config.max_pending_dials = 3;
    let agent = site.agent(|builder| builder.dialer(dialer()).config(config)).await;
    let hanging = |number: u16| {
        let server = site.server.clone();
        let target = format!("tcp://silent.example:{number}").parse().unwrap();
        tokio::spawn(async move { server.dial(id(), target).await })
    };
    let held = [hanging(1), hanging(2)];
    let target = tcp(echo_target().await);
    for _ in 0..20 {
        round_trip(soon(site.server.dial(id(), target.clone())).await.unwrap(), b"quick").await;
    }
    let last = hanging(3);
    soon(async {
        while metric(&agent, "dials_pending") < 3.0 {
            settle().await;
        }
    })
    .await;
    let failure = soon(site.server.dial(id(), target.clone())).await.unwrap_err();
    assert_eq!(failure.refusal.kind, RefusalKind::ConnectionLimitReached);
    assert_eq!(
        failure.refusal.text.as_str(),
        "3 streams wait for their target, which is this agent's limit; try again later"
    );
    held.iter().chain([&last]).for_each(tokio::task::JoinHandle::abort);
    soon(async {
        while metric(&agent, "dials_pending") > 0.0 {
            settle().await;
        }
    })
    .await;
    round_trip(soon(site.server.dial(id(), target)).await.unwrap(), b"again").await;
}

#[tokio::test]
async fn open_streams_keep_to_a_new_policy() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder.dialer(dialer())).await;
    let (shut, open) = (echo_target().await, echo_target().await);
    let by_name = format!("tcp://local.example:{}", shut.port()).parse().unwrap();
    let mut ended = [
        soon(site.server.dial(id(), tcp(shut))).await.unwrap(),
        soon(site.server.dial(id(), by_name)).await.unwrap(),
    ];
    let kept = soon(site.server.dial(id(), tcp(open))).await.unwrap();
    agent.set_policy(policy(vec![AgentRuleConfig {
        effect: Effect::Deny,
        hosts: vec!["127.0.0.0/8".into()],
        ports: vec![shut.port().to_string().parse().unwrap()],
        ..AgentRuleConfig::default()
    }]));
    for io in &mut ended {
        let error = soon(io.read_u8()).await.unwrap_err();
        assert_eq!(error.to_string(), "the peer reset the stream: policy (0x7)");
    }
    round_trip(kept, b"still allowed").await;
    let failure = soon(site.server.dial(id(), tcp(shut))).await.unwrap_err();
    assert!(
        failure.refusal.text.as_str().ends_with("rule 1 forbids it"),
        "{failure}"
    );
}

/// Serves streams itself: says hello, or panics.
#[derive(Debug)]
struct Greeter;

#[async_trait]
impl InboundHandler for Greeter {
    async fn handle(&self, inbound: Box<dyn Inbound>, peer: &Peer) {
        let fails = inbound.head().target.to_string().contains("panic");
        let server = peer.welcome().map(|welcome| welcome.server.to_string());
        let stream = inbound.accept().await.unwrap();
        assert!(!fails, "as asked");
        let mut io = stream.into_io();
        io.write_all(format!("hello {}", server.unwrap()).as_bytes())
            .await
            .unwrap();
        io.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_embedder_can_serve_the_streams_itself() {
    let site = Site::new("a");
    let agent = site.agent(|builder| builder.handler(Arc::new(Greeter))).await;
    let mut failing = soon(site.server.dial(id(), "tcp://panic.example:1".parse().unwrap()))
        .await
        .unwrap();
    assert!(soon(failing.read_u8()).await.is_err());
    let mut io = soon(site.server.dial(id(), "tcp://169.254.169.254:80".parse().unwrap()))
        .await
        .unwrap();
    let mut greeting = String::new();
    soon(io.read_to_string(&mut greeting)).await.unwrap();
    assert_eq!(greeting, "hello a");
    assert_eq!(metric(&agent, "stream_bytes_total{direction=\"to_server\"}"), 7.0);
}

/// Sends back what it is sent.
#[derive(Debug)]
struct Echo;

#[async_trait]
impl InboundHandler for Echo {
    async fn handle(&self, inbound: Box<dyn Inbound>, _: &Peer) {
        let (mut read, mut write) = tokio::io::split(inbound.accept().await.unwrap().into_io());
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_opens_streams_towards_a_server() {
    let site = Site::with("a", |builder| builder.inbound(Arc::new(Echo)));
    let agent = site.agent(|builder| builder).await;
    let head = StreamHead::new("tcp://service:1".parse().unwrap());
    let stream = soon(agent.open(head)).await.unwrap();
    assert_eq!(metric(&agent, "streams_open{opener=\"agent\"}"), 1.0);
    round_trip(stream.into_io(), b"to the server and back").await;
    assert_eq!(metric(&agent, "streams_open{opener=\"agent\"}"), 0.0);
}
