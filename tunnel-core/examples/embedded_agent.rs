//! An agent inside another program: `cargo run -p tunnel-core --example embedded_agent`.
//!
//! The carrier here is the one without a network; with `carrier-quic`, only the listener and the carrier change.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpListener};
use tunnel_core::{Agent, AgentId, Server, Target};
use tunnel_testkit::memory;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (carrier, listener) = memory::pair(memory::Config::default());
    let node: AgentId = "node-7".parse()?;

    let agent = Agent::builder(node.clone())
        .server(vec![Arc::new(carrier)])
        .build()?
        .start();

    // The other end, and a service that the agent can reach.
    let server = Server::builder("control-plane".parse()?).build()?;
    server.listen(Box::new(listener))?;
    let service = TcpListener::bind("127.0.0.1:0").await?;
    let target = Target::try_from(service.local_addr()?)?;
    tokio::spawn(async move { service.accept().await?.0.write_all(b"hello").await });

    agent.connected().await;
    server.wait_for(&node).await;
    let mut io = server.dial(node, target).await?;
    let mut greeting = String::new();
    io.read_to_string(&mut greeting).await?;
    assert_eq!(greeting, "hello");
    drop(io);

    agent.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
