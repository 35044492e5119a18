//! Connections are divided among threads.

use tokio::runtime::{self, Handle};
use tunnel_core::{Opener, Policy, Selector};
use tunnel_testkit::OtherThread;

use crate::support::{Behaviour, World, request, round_trip, soon};

/// Opens a stream through the agent and gives the home of its connection.
async fn home(world: &World, agent: &str) -> runtime::Id {
    soon(world.server.wait_for(&agent.parse().unwrap())).await;
    let mut request = request();
    request.selector = Selector::Agent(agent.parse().unwrap());
    let opened = soon(world.server.open(request)).await.unwrap();
    let home = opened.home.as_ref().unwrap().id();
    round_trip(opened.stream.into_io(), b"hello").await;
    home
}

#[tokio::test]
async fn each_connection_has_its_home() {
    let (others, threads) = OtherThread::several::<2>();
    let policy = Policy::allow_all().into();
    let world = World::with(|builder| builder.policy(policy).threads(threads));
    let mut homes = Vec::new();
    let mut agents = Vec::new();
    for name in ["a", "b", "c", "d"] {
        agents.push(world.agent(name, Behaviour::Echo).await);
        homes.push(home(&world, name).await);
    }
    let ids = others.each_ref().map(|other| other.runtime().id());
    assert_eq!(homes, [ids[0], ids[1], ids[0], ids[1]]);
}

#[tokio::test]
async fn without_threads_all_are_at_home_where_the_server_is() {
    let world = World::new();
    let _agent = world.agent("a", Behaviour::Echo).await;
    assert_eq!(home(&world, "a").await, Handle::current().id());
}
