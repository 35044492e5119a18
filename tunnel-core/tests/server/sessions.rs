//! Who may be an agent, and which of its connections count.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tunnel_core::{
    AcceptError, Admission, CloseCode, Connection, ConnectionError, DialError, HandshakeError, Identity, Incoming,
    Listener, Policy, PolicyConfig, Rejection, Require, Secret, ServerConfig, TokenAuthenticator,
    policy::{ClaimConfig, Effect},
};
use tunnel_testkit::memory;

use crate::support::{Agent, Behaviour, World, claim, common_name, settle};

fn rejection(result: Result<Agent, DialError>) -> Rejection {
    match result.map(|agent| agent.id.clone()) {
        Err(DialError::Rejected { rejection, .. }) => rejection,
        other => panic!("not rejected: {other:?}"),
    }
}

fn close_code(error: &ConnectionError) -> Option<CloseCode> {
    error.code()
}

#[tokio::test(start_paused = true)]
async fn a_newer_generation_takes_over_at_once() {
    let world = World::new();
    let carrier = world.carrier.another(common_name("node-7"));
    let old = [
        world
            .connect(&carrier, claim("node-7", 1), Behaviour::Echo)
            .await
            .unwrap(),
        world
            .connect(&carrier, claim("node-7", 1), Behaviour::Echo)
            .await
            .unwrap(),
    ];
    assert_eq!(world.connected(), [("node-7".to_owned(), 2)]);
    let _new = world
        .connect(&carrier, claim("node-7", 2), Behaviour::Echo)
        .await
        .unwrap();
    for old in &old {
        assert_eq!(close_code(&old.end().await), Some(CloseCode::REPLACED));
    }
    settle().await;
    assert_eq!(world.connected(), [("node-7".to_owned(), 1)]);
    assert_eq!(world.metric("sessions"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_older_generation_is_turned_away() {
    let world = World::new();
    let carrier = world.carrier.another(common_name("node-7"));
    let new = world
        .connect(&carrier, claim("node-7", 2), Behaviour::Echo)
        .await
        .unwrap();
    let rejected = rejection(world.connect(&carrier, claim("node-7", 1), Behaviour::Echo).await);
    assert_eq!(rejected.code, CloseCode::REPLACED);
    // When the newer one has gone, the older one may come.
    new.connection.close(CloseCode::DONE, "");
    settle().await;
    assert_eq!(world.connected(), []);
    world
        .connect(&carrier, claim("node-7", 1), Behaviour::Echo)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_identity_cannot_take_an_id_that_is_held() {
    let world = World::new();
    let holder = world.agent("node-7", Behaviour::Echo).await;
    let thief = world.carrier.another(common_name("eve"));
    let rejected = rejection(world.connect(&thief, claim("node-7", 9), Behaviour::Echo).await);
    assert_eq!(rejected.code, CloseCode::CONFLICT);
    assert_eq!(
        rejected.text.as_str(),
        "another identity is connected as agent node-7; give this agent an id of its own, or have it show the same \
         certificate or token wherever it connects"
    );
    assert_eq!(rejected.not_before, Some(Duration::from_secs(15)));
    assert_eq!(world.connected(), [("node-7".to_owned(), 1)]);
    // Held means alive.
    holder.carrier.wire().cut();
    settle().await;
    world
        .connect(&thief, claim("node-7", 9), Behaviour::Echo)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_is_forgotten_at_once() {
    let world = World::new();
    let carrier = world.carrier.another(common_name("node-7"));
    let first = world
        .connect(&carrier, claim("node-7", 1), Behaviour::Echo)
        .await
        .unwrap();
    let second = world
        .connect(&carrier, claim("node-7", 1), Behaviour::Echo)
        .await
        .unwrap();
    first.connection.close(CloseCode::DONE, "");
    settle().await;
    assert_eq!(world.connected(), [("node-7".to_owned(), 1)]);
    second.carrier.wire().cut();
    settle().await;
    assert_eq!(world.connected(), []);
    assert_eq!(world.metric("connections{carrier=\"memory\"}"), 0.0);
    assert_eq!(world.metric("sessions"), 0.0);
    let ended = "connections_ended_total{carrier=\"memory\",by=\"agent\",reason=\"done\"}";
    assert_eq!(world.metric(ended), 1.0);
    let ended = "connections_ended_total{carrier=\"memory\",by=\"network\",reason=\"transport\"}";
    assert_eq!(world.metric(ended), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_agent_is_forgotten_within_the_keepalive_bound() {
    let world = World::new();
    let agent = world.agent("node-7", Behaviour::Echo).await;
    agent.carrier.wire().silence();
    tokio::time::sleep(Duration::from_millis(15_010)).await;
    assert_eq!(world.connected(), []);
}

#[tokio::test(start_paused = true)]
async fn agents_and_connections_are_limited() {
    let mut config = ServerConfig::default();
    config.max_agents = 2;
    config.max_connections_per_agent = 2;
    let world = World::with(|builder| builder.config(config));
    let a = world.agent("a", Behaviour::Echo).await;
    let _b = world.agent("b", Behaviour::Echo).await;
    let rejected = rejection(
        world
            .connect(&world.carrier.another(common_name("c")), claim("c", 1), Behaviour::Echo)
            .await,
    );
    assert_eq!(rejected.code, CloseCode::OVERLOADED);
    assert!(rejected.not_before.is_some());
    let _second = world.connect(&a.carrier, claim("a", 1), Behaviour::Echo).await.unwrap();
    let rejected = rejection(world.connect(&a.carrier, claim("a", 1), Behaviour::Echo).await);
    assert_eq!(rejected.code, CloseCode::OVERLOADED);
    // A restart is not held up by the connections of the life before.
    world.connect(&a.carrier, claim("a", 2), Behaviour::Echo).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn something_must_be_proven() {
    let world = World::new();
    let anonymous = world.carrier.another(Identity::anonymous());
    let rejected = rejection(world.connect(&anonymous, claim("a", 1), Behaviour::Echo).await);
    assert_eq!(rejected.code, CloseCode::UNAUTHORIZED);
    assert_eq!(
        rejected.text.as_str(),
        "this server requires a client certificate or a token; configure the agent with one"
    );
    assert_eq!(
        world.metric("handshake_failures_total{carrier=\"memory\",reason=\"unauthorized\"}"),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_proves_whom_it_was_issued_to() {
    let tokens = Arc::new(TokenAuthenticator::new("edge 0123456789abcdef").unwrap());
    let world = World::with(|builder| builder.authenticator(tokens));
    let anonymous = world.carrier.another(Identity::anonymous());
    let with_token = |token: &str| {
        let mut claim = claim("a", 1);
        claim.credential = Some(Secret::new(token).unwrap());
        claim
    };
    let rejected = rejection(
        world
            .connect(&anonymous, with_token("0123456789abcdeX"), Behaviour::Echo)
            .await,
    );
    assert_eq!(rejected.code, CloseCode::UNAUTHORIZED);
    assert!(rejected.text.as_str().contains("does not know the token"), "{rejected}");
    // A wrong token is wrong, whatever the certificate.
    let certified = world.carrier.another(common_name("a"));
    let rejected = rejection(
        world
            .connect(&certified, with_token("0123456789abcdeX"), Behaviour::Echo)
            .await,
    );
    assert_eq!(rejected.code, CloseCode::UNAUTHORIZED);

    let _agent = world
        .connect(&anonymous, with_token("0123456789abcdef"), Behaviour::Echo)
        .await
        .unwrap();
    let view = world.server.agents();
    assert_eq!(view.sessions()[0].principal(), Some("token:edge"));
}

#[tokio::test(start_paused = true)]
async fn both_can_be_required() {
    let mut config = ServerConfig::default();
    config.require = Require::Both;
    let tokens = Arc::new(TokenAuthenticator::new("edge 0123456789abcdef").unwrap());
    let world = World::with(|builder| builder.authenticator(tokens).config(config));
    let certified = world.carrier.another(common_name("a"));
    let rejected = rejection(world.connect(&certified, claim("a", 1), Behaviour::Echo).await);
    assert_eq!(
        rejected.text.as_str(),
        "this server requires a token; configure the agent with one"
    );
    let mut claim = claim("a", 1);
    claim.credential = Some(Secret::new("0123456789abcdef").unwrap());
    let _agent = world.connect(&certified, claim, Behaviour::Echo).await.unwrap();
    let view = world.server.agents();
    assert_eq!(
        view.sessions()[0].identity().names().collect::<Vec<_>>(),
        ["cn:a", "token:edge"]
    );
}

fn nodes_only() -> Arc<Policy> {
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
    Arc::new(Policy::new(config).unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_identity_may_be_bound_to_its_id() {
    let world = World::with(|builder| builder.policy(nodes_only()));
    let _agent = world.agent("node-7", Behaviour::Echo).await;
    let other = world.carrier.another(common_name("node-8"));
    let rejected = rejection(world.connect(&other, claim("node-9", 1), Behaviour::Echo).await);
    assert_eq!(rejected.code, CloseCode::FORBIDDEN);
    assert_eq!(
        rejected.text.as_str(),
        "cn:node-8 may not connect as agent node-9; change the agent's id or the server's claim rules"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_of_claim_rules_holds_for_those_who_are_connected() {
    let world = World::new();
    let good = world.agent("node-7", Behaviour::Echo).await;
    let bad = world.agent("eve", Behaviour::Echo).await;
    world.server.set_policy(nodes_only());
    assert_eq!(close_code(&bad.end().await), Some(CloseCode::FORBIDDEN));
    settle().await;
    assert_eq!(world.connected(), [("node-7".to_owned(), 1)]);
    drop(good);
}

#[tokio::test(start_paused = true)]
async fn an_agent_can_be_waited_for() {
    let world = World::new();
    let server = world.server.clone();
    let waiting = tokio::spawn(async move { server.wait_for(&"node-7".parse().unwrap()).await });
    let _other = world.agent("node-8", Behaviour::Echo).await;
    assert!(!waiting.is_finished());
    let _agent = world.agent("node-7", Behaviour::Echo).await;
    assert_eq!(waiting.await.unwrap().agent().as_str(), "node-7");
}

/// A listener whose handshakes succeed only when a test lets them, so that things can happen meanwhile.
#[derive(Debug)]
struct Held<L>(L, Arc<Semaphore>);

#[async_trait]
impl<L: Listener> Listener for Held<L> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn accept(&mut self) -> Result<Box<dyn Incoming>, AcceptError> {
        let incoming = self.0.accept().await?;
        Ok(Box::new(HeldIncoming(incoming, Arc::clone(&self.1))))
    }
}

#[derive(Debug)]
struct HeldIncoming(Box<dyn Incoming>, Arc<Semaphore>);

#[async_trait]
impl Incoming for HeldIncoming {
    fn remote_addr(&self) -> SocketAddr {
        self.0.remote_addr()
    }

    async fn handshake(self: Box<Self>, admission: &dyn Admission) -> Result<Arc<dyn Connection>, HandshakeError> {
        let connection = self.0.handshake(admission).await?;
        self.1.acquire().await.unwrap().forget();
        Ok(connection)
    }

    fn refuse(self: Box<Self>) {
        self.0.refuse();
    }
}

/// What becomes of an agent that was welcome, when this happens before its handshake is over.
async fn meanwhile(happens: impl AsyncFnOnce(&World)) -> ConnectionError {
    let mut world = World::new();
    let (carrier, listener) = memory::pair(memory::Config::default());
    let go_on = Arc::new(Semaphore::new(0));
    world
        .server
        .listen(Box::new(Held(listener, Arc::clone(&go_on))))
        .unwrap();
    let plain = std::mem::replace(&mut world.carrier, carrier);
    let agent = world.agent("eve", Behaviour::Echo).await;
    assert_eq!(world.connected(), []);
    world.carrier = plain;
    happens(&world).await;
    go_on.add_permits(1);
    agent.end().await
}

#[tokio::test(start_paused = true)]
async fn what_happens_between_the_welcome_and_the_registration_counts() {
    let forbidden = meanwhile(async |world| world.server.set_policy(nodes_only())).await;
    assert_eq!(close_code(&forbidden), Some(CloseCode::FORBIDDEN));

    let drained = meanwhile(async |world| world.server.drain()).await;
    assert_eq!(close_code(&drained), Some(CloseCode::DRAINED));

    let conflict = meanwhile(async |world| {
        let other = world.carrier.another(common_name("other"));
        let other = world.connect(&other, claim("eve", 1), Behaviour::Echo).await.unwrap();
        assert_eq!(world.connected(), [("eve".to_owned(), 1)]);
        std::mem::forget(other);
    })
    .await;
    assert_eq!(close_code(&conflict), Some(CloseCode::CONFLICT));
}

#[tokio::test(start_paused = true)]
async fn a_takeover_that_is_forbidden_at_last_leaves_no_connection_behind() {
    let mut world = World::new();
    let (carrier, listener) = memory::pair(memory::Config::default());
    let go_on = Arc::new(Semaphore::new(0));
    let held = Held(listener, Arc::clone(&go_on));
    world.server.listen(Box::new(held)).unwrap();
    let mut with_token = common_name("node-7");
    with_token.subject = Some("good".into());
    let before = world.carrier.another(with_token);
    let before = world
        .connect(&before, claim("node-7", 1), Behaviour::Echo)
        .await
        .unwrap();
    world.carrier = carrier;
    let after = world.carrier.another(common_name("node-7"));
    let after = world
        .connect(&after, claim("node-7", 2), Behaviour::Echo)
        .await
        .unwrap();

    let claims = vec![ClaimConfig {
        identities: vec!["token:good".into()],
        agents: vec!["*".into()],
        ..ClaimConfig::default()
    }];
    let config = PolicyConfig {
        default: Some(Effect::Allow),
        claims,
        ..PolicyConfig::default()
    };
    world.server.set_policy(Arc::new(Policy::new(config).unwrap()));
    assert_eq!(world.connected(), [("node-7".to_owned(), 1)]);
    go_on.add_permits(1);
    assert_eq!(close_code(&after.end().await), Some(CloseCode::FORBIDDEN));
    assert_eq!(world.connected(), []);
    // It would serve nobody: no stream finds it.
    assert_eq!(close_code(&before.end().await), Some(CloseCode::FORBIDDEN));
}
