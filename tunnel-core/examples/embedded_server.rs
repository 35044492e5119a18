//! A server inside another program: `cargo run -p tunnel-core --example embedded_server`.
//!
//! The carrier here is the one without a network; with `carrier-quic`, only the listener and the carrier change.

use std::{error::Error, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tunnel_core::{AgentId, Carrier, Claim, Generation, Server};
use tunnel_testkit::memory;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (carrier, listener) = memory::pair(memory::Config::default());
    let server = Server::builder("control-plane".parse()?).build()?;
    server.listen(Box::new(listener))?;
    tokio::spawn(agent(carrier));

    let node: AgentId = "node-7".parse()?;
    server.wait_for(&node).await;
    let mut io = server.dial(node, "tcp://db.internal:5432".parse()?).await?;
    io.write_all(b"hello").await?;
    io.shutdown().await?;
    let mut answer = String::new();
    io.read_to_string(&mut answer).await?;
    assert_eq!(answer, "HELLO");
    drop(io);

    server.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Stands in for an agent: answers every stream itself, in capitals.
async fn agent(carrier: impl Carrier) -> Result<(), Box<dyn Error + Send + Sync>> {
    let claim = Claim::new("node-7".parse()?, Generation(1));
    let deadline = Instant::now() + Duration::from_secs(5);
    let connection = carrier.dial(&claim, deadline).await?;
    loop {
        let mut io = connection.accept().await?.accept().await?.into_io();
        let mut text = String::new();
        io.read_to_string(&mut text).await?;
        io.write_all(text.to_uppercase().as_bytes()).await?;
        io.shutdown().await?;
    }
}
