//! Both ends of a tunnel in one program: `cargo run -p tunnel-core --example server_and_agent`.
//!
//! With `carrier-quic` in place of the carrier without a network, the two halves are two programs.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tunnel_core::{Agent, AgentId, Server};
use tunnel_testkit::memory;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let private = TcpListener::bind("127.0.0.1:0").await?;
    let target = private.local_addr()?.try_into()?;
    let service = tokio::spawn(async move {
        let (mut client, _) = private.accept().await?;
        client.write_all(b"hello from the private network").await
    });

    let (carrier, listener) = memory::pair(memory::Config::default());
    let server = Server::builder("control-plane".parse()?).build()?;
    server.listen(Box::new(listener))?;

    let id: AgentId = "node-7".parse()?;
    let agent = Agent::builder(id.clone())
        .server(vec![Arc::new(carrier)])
        .build()?
        .start();

    server.wait_for(&id).await;
    let mut stream = server.dial(id, target).await?;
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await?;
    assert_eq!(greeting, "hello from the private network");

    drop(stream);
    service.await??;
    agent.shutdown(Duration::from_secs(5)).await;
    server.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
