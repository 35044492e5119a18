//! Proxies that the server dials itself.

use std::{
    io,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::{Instant, sleep},
};
use tunnel_core::{
    Carrier, Claim, CloseCode, Connection, DialError, OpenRequest, Policy, PolicyConfig, RefusalKind, Selector, Server,
    ServerConfig,
    policy::{ClaimConfig, Effect},
    server::UpstreamState,
};
use tunnel_testkit::memory;

use crate::support::{Behaviour, World, claim, common_name, kind, request, round_trip, settle, soon};

const SECOND: Duration = Duration::from_secs(1);
const ONE: NonZeroU32 = NonZeroU32::MIN;

/// A proxy that is there or not.
#[derive(Debug)]
struct Proxy {
    up: watch::Sender<bool>,
    dials: Mutex<Vec<Instant>>,
    /// What the proxy calls itself, if not what it is called.
    name: Option<&'static str>,
    /// Its ends of the connections that were made.
    ends: watch::Sender<Vec<Arc<dyn Connection>>>,
}

impl Proxy {
    fn new(up: bool) -> Arc<Self> {
        Self::named(up, None)
    }

    fn named(up: bool, name: Option<&'static str>) -> Arc<Self> {
        Arc::new(Self {
            up: watch::Sender::new(up),
            dials: Mutex::default(),
            name,
            ends: watch::Sender::default(),
        })
    }

    fn dials(&self) -> usize {
        self.dials.lock().unwrap().len()
    }

    /// Waits for its end of the connection with this number.
    async fn end(&self, number: usize) -> Arc<dyn Connection> {
        let mut ends = self.ends.subscribe();
        let ends = soon(ends.wait_for(|ends| ends.len() > number)).await;
        Arc::clone(&ends.unwrap()[number])
    }
}

#[async_trait]
impl Carrier for Proxy {
    fn name(&self) -> &'static str {
        "proxy"
    }

    fn remote(&self) -> String {
        "h2://proxy.example".to_owned()
    }

    async fn dial(&self, claimed: &Claim, _: Instant) -> Result<Arc<dyn Connection>, DialError> {
        self.dials.lock().unwrap().push(Instant::now());
        if !*self.up.borrow() {
            return Err(DialError::Unreachable {
                remote: self.remote(),
                source: Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused)),
            });
        }
        let claimed = self.name.map_or(claimed.clone(), |name| claim(name, 1));
        let config = memory::Config {
            agent: common_name("proxy.example"),
            ..memory::Config::default()
        };
        let ends = memory::ends(config, &claimed).await?;
        tokio::spawn(Behaviour::Echo.run(Arc::clone(&ends.agent)));
        self.ends.send_modify(|all| all.push(ends.agent));
        Ok(ends.server)
    }
}

fn up(server: &Server, name: &str, proxy: &Arc<Proxy>) {
    server.upstream(claim(name, 1), Arc::clone(proxy) as _, ONE).unwrap();
}

fn state(server: &Server) -> UpstreamState {
    server.upstreams()[0].state
}

fn through(selector: impl Into<Selector>) -> OpenRequest {
    OpenRequest {
        selector: selector.into(),
        ..request()
    }
}

async fn exchange(world: &World, selector: impl Into<Selector>) {
    let opened = {
        use tunnel_core::Opener as _;
        world.server.open(through(selector)).await.unwrap()
    };
    round_trip(opened.stream.into_io(), b"hello").await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_carries_streams_as_an_agent_does() {
    let world = World::new();
    let proxy = Proxy::new(true);
    let mut claimed = claim("site-a", 1);
    assert!(claimed.labels.insert("zone", "a"));
    let zone_a = claimed.labels.clone();
    world.server.upstream(claimed, Arc::clone(&proxy) as _, ONE).unwrap();
    let session = soon(world.server.wait_for(&"site-a".parse().unwrap())).await;
    assert_eq!(session.principal(), Some("cn:proxy.example"));
    exchange(&world, Selector::Any).await;
    exchange(&world, Selector::Agent("site-a".parse().unwrap())).await;
    exchange(&world, zone_a).await;
    assert_eq!(world.connected(), [("site-a".to_owned(), 1)]);
    let status = world.server.upstreams();
    assert_eq!(
        (status[0].name.as_str(), status[0].remote.as_str()),
        ("site-a", "h2://proxy.example")
    );
    assert!(matches!(status[0].state, UpstreamState::Connected { .. }));
    assert!(world.server.agents().is_upstream(session.agent()));
    assert_eq!(world.metric("upstream_attempts_total{upstream=\"site-a\"}"), 1.0);
    assert_eq!(world.metric("connections{carrier=\"memory\"}"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_away_is_dialled_until_it_is_there() {
    let world = World::new();
    let proxy = Proxy::new(false);
    up(&world.server, "site-a", &proxy);
    sleep(20 * SECOND).await;
    assert!((15..=60).contains(&proxy.dials()), "{}", proxy.dials());
    assert_eq!(kind(world.open().await), RefusalKind::DestinationUnavailable);
    let status = &world.server.upstreams()[0];
    assert!(matches!(status.state, UpstreamState::Waiting { .. }));
    let error = status.last_error.as_ref().unwrap();
    assert_eq!(error.text, "cannot reach h2://proxy.example: connection refused");
    let failures = "upstream_failures_total{upstream=\"site-a\",cause=\"unreachable\"}";
    assert_eq!(world.metric(failures), proxy.dials() as f64);

    proxy.up.send_replace(true);
    world.server.redial();
    proxy.end(0).await;
    settle().await;
    exchange(&world, Selector::Any).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_lost_takes_no_streams_and_is_dialled_at_once() {
    let world = World::new();
    let proxy = Proxy::new(true);
    up(&world.server, "site-a", &proxy);
    for number in 0..4 {
        let end = proxy.end(number).await;
        sleep(11 * SECOND).await;
        exchange(&world, Selector::Any).await;
        proxy.up.send_replace(number % 2 == 0);
        let lost = Instant::now();
        end.close(CloseCode::SHUTDOWN, "the proxy is restarted");
        settle().await;
        if number % 2 == 0 {
            proxy.end(number + 1).await;
            assert!(lost.elapsed() <= Duration::from_millis(60), "{:?}", lost.elapsed());
        } else {
            assert_eq!(kind(world.open().await), RefusalKind::DestinationUnavailable);
            assert_eq!(world.connected(), []);
            proxy.up.send_replace(true);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_connection_comes_while_a_draining_one_finishes_its_streams() {
    let world = World::new();
    let proxy = Proxy::new(true);
    up(&world.server, "site-a", &proxy);
    let old = proxy.end(0).await;
    settle().await;
    let held = world.open().await.unwrap();
    old.drain();
    proxy.end(1).await;
    settle().await;
    assert_eq!(world.connected(), [("site-a".to_owned(), 2)]);
    exchange(&world, Selector::Any).await;
    round_trip(held.stream.into_io(), b"still here").await;
    settle().await;
    assert_eq!(world.connected(), [("site-a".to_owned(), 1)]);
    assert_eq!(soon(old.closed()).await.code(), Some(CloseCode::DRAINED));
}

#[tokio::test(start_paused = true)]
async fn one_that_keeps_draining_has_no_more_connections_than_an_agent() {
    let mut config = ServerConfig::default();
    config.max_connections_per_agent = 2;
    let world = World::with(|builder| builder.config(config).policy(Arc::new(Policy::allow_all())));
    let proxy = Proxy::new(true);
    up(&world.server, "site-a", &proxy);
    let mut held = Vec::new();
    for number in 0..2 {
        let end = proxy.end(number).await;
        settle().await;
        held.push(world.open().await.unwrap());
        end.drain();
    }
    sleep(10 * SECOND).await;
    assert_eq!(world.connected(), [("site-a".to_owned(), 2)]);
    let error = world.server.upstreams().swap_remove(0).last_error.unwrap();
    assert!(
        error.text.contains("2 connections, which is the limit"),
        "{}",
        error.text
    );
    held.clear();
    sleep(10 * SECOND).await;
    exchange(&world, Selector::Any).await;
}

#[tokio::test(start_paused = true)]
async fn no_agent_can_have_the_name_of_an_upstream() {
    for is_up in [true, false] {
        let world = World::new();
        let before = world.agent("site-a", Behaviour::Echo).await;
        let proxy = Proxy::new(is_up);
        up(&world.server, "site-a", &proxy);
        assert_eq!(soon(before.end()).await.code(), Some(CloseCode::CONFLICT));
        settle().await;
        for (identity, generation) in [("site-a", 9), ("proxy.example", 1)] {
            let carrier = world.carrier.another(common_name(identity));
            let refused = world
                .connect(&carrier, claim("site-a", generation), Behaviour::Echo)
                .await;
            match refused.map(|agent| agent.id.clone()) {
                Err(DialError::Rejected { rejection, .. }) => {
                    assert_eq!(rejection.code, CloseCode::CONFLICT);
                    assert!(rejection.text.as_str().contains("dials site-a itself"), "{rejection}");
                }
                other => panic!("not rejected: {other:?}"),
            }
        }
        assert_eq!(world.connected().len(), usize::from(is_up));
    }
}

#[tokio::test(start_paused = true)]
async fn rules_about_claims_and_the_limit_on_agents_are_not_about_upstreams() {
    let mut config = ServerConfig::default();
    config.max_agents = 1;
    let world = World::with(|builder| builder.config(config).policy(Arc::new(Policy::allow_all())));
    let _agent = world.agent("node-7", Behaviour::Echo).await;
    let proxy = Proxy::new(true);
    up(&world.server, "site-a", &proxy);
    proxy.end(0).await;
    settle().await;
    let claims = vec![ClaimConfig {
        identities: vec!["cn:node-*".into()],
        agents: vec!["{name}".into()],
        ..ClaimConfig::default()
    }];
    let config = PolicyConfig {
        default: Some(Effect::Allow),
        claims,
        ..PolicyConfig::default()
    };
    world.server.set_policy(Arc::new(Policy::new(config).unwrap()));
    settle().await;
    assert_eq!(world.connected(), [("node-7".to_owned(), 1), ("site-a".to_owned(), 1)]);
}

/// A server, and a proxy with which it has three connections.
async fn three_connections() -> (World, Arc<Proxy>) {
    let world = World::new();
    let proxy = Proxy::new(true);
    let three = NonZeroU32::new(3).unwrap();
    world
        .server
        .upstream(claim("site-a", 1), Arc::clone(&proxy) as _, three)
        .unwrap();
    proxy.end(2).await;
    settle().await;
    (world, proxy)
}

#[tokio::test(start_paused = true)]
async fn several_connections_with_an_upstream_are_one_session() {
    let (world, proxy) = three_connections().await;
    assert_eq!(world.connected(), [("site-a".to_owned(), 3)]);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(world.open().await.unwrap());
    }
    let busy = async |number: usize| proxy.end(number).await.stats().streams_open;
    assert_eq!([busy(0).await, busy(1).await, busy(2).await], [1, 1, 1]);

    proxy.end(0).await.close(CloseCode::DONE, "");
    settle().await;
    assert!(matches!(state(&world.server), UpstreamState::Connected { .. }));
    proxy.end(3).await;
    settle().await;
    let states = world.server.upstreams().swap_remove(0).connections;
    let is_up = |state: &UpstreamState| matches!(state, UpstreamState::Connected { .. });
    assert!(states.len() == 3 && states.iter().all(is_up), "{states:?}");
    let mut cut = 0;
    for opened in held {
        let mut stream = opened.stream.into_io();
        let mut back = Vec::new();
        let echoed = async {
            stream.write_all(b"still here").await?;
            stream.shutdown().await?;
            stream.read_to_end(&mut back).await
        };
        match echoed.await {
            Ok(_) => assert_eq!(back, b"still here"),
            Err(_) => cut += 1,
        }
    }
    assert_eq!(cut, 1);
}

#[tokio::test(start_paused = true)]
async fn any_of_those_that_are_equally_busy_is_chosen() {
    let (world, proxy) = three_connections().await;
    let mut chosen = [0; 3];
    for _ in 0..200 {
        let opened = world.open().await.unwrap();
        for (number, count) in chosen.iter_mut().enumerate() {
            *count += proxy.end(number).await.stats().streams_open;
        }
        drop(opened);
        settle().await;
    }
    assert_eq!(chosen.iter().sum::<u64>(), 200, "one at a time");
    assert!(chosen.iter().all(|count| *count > 0), "{chosen:?}");
}

#[tokio::test(start_paused = true)]
async fn two_upstreams_cannot_have_one_name() {
    let world = World::new();
    up(&world.server, "site-a", &Proxy::new(true));
    let again = world.server.upstream(claim("site-a", 1), Proxy::new(true), ONE);
    let error = again.unwrap_err();
    assert_eq!(error.to_string(), "there are two upstreams named site-a");
    assert_eq!(world.server.upstreams().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_under_another_name_is_not_taken() {
    let world = World::new();
    let proxy = Proxy::named(true, Some("site-b"));
    up(&world.server, "site-a", &proxy);
    proxy.end(0).await;
    settle().await;
    assert_eq!(world.connected(), []);
    assert!(matches!(state(&world.server), UpstreamState::Waiting { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_dials_no_more_and_waits_for_the_streams() {
    let world = World::new();
    let (proxy, away) = (Proxy::new(true), Proxy::new(false));
    up(&world.server, "site-a", &proxy);
    up(&world.server, "site-b", &away);
    let end = proxy.end(0).await;
    settle().await;
    let held = world.open().await.unwrap();
    let server = world.server.clone();
    let shutdown = tokio::spawn(async move { server.shutdown(60 * SECOND).await });
    settle().await;
    let dials = (proxy.dials(), away.dials());
    assert_eq!(state(&world.server), UpstreamState::Ended);
    sleep(10 * SECOND).await;
    assert!(!shutdown.is_finished());
    round_trip(held.stream.into_io(), b"still here").await;
    assert_eq!(soon(shutdown).await.unwrap(), 0);
    assert_eq!(soon(end.closed()).await.code(), Some(CloseCode::DRAINED));
    assert_eq!((proxy.dials(), away.dials()), dials);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_server_ends_its_upstreams() {
    let proxy = Proxy::new(true);
    let server = Server::builder("test".parse().unwrap()).build().unwrap();
    up(&server, "site-a", &proxy);
    let end = proxy.end(0).await;
    drop(server);
    assert_eq!(soon(end.closed()).await.code(), Some(CloseCode::SHUTDOWN));
    sleep(60 * SECOND).await;
    assert_eq!((proxy.dials(), Arc::strong_count(&proxy)), (1, 1));
}
