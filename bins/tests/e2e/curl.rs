//! curl by HTTP/2 through an agent that listens.

use std::{io::ErrorKind, net::SocketAddr, process::Stdio, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, mpsc},
};
use tunnel_testkit::programs::documented;

use crate::{
    connect::{GUIDE, Listening, closed_port},
    support::{Libcurl, Pki, soon, target},
};

/// What a target says before a body that it never ends.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";

/// curl, and an agent for it.
struct Curl {
    libcurl: Libcurl,
    agent: Listening,
    pki: Pki,
}

impl Curl {
    async fn start() -> Option<Self> {
        let libcurl = Libcurl::find().await?;
        let pki = Pki::new();
        let agent = Listening::over_tls("h2", pki.server(), &pki, "dns:*.example").await;
        Some(Self { libcurl, agent, pki })
    }

    /// The command of the guide, with more words.
    fn line(&self, target: SocketAddr, more: &str) -> String {
        let own = self.pki.client("gw.example");
        let words = [
            ("node-7:8443", &*format!("localhost:{}", self.agent.addr.port())),
            ("agents.crt", self.pki.trust.to_str().unwrap()),
            ("gw.crt", own.cert.to_str().unwrap()),
            ("gw.key", own.key.to_str().unwrap()),
            ("db.internal:8080", &target.to_string()),
        ];
        format!("{} {more}", documented(GUIDE, "sh curl", &words))
    }

    /// Fetches a page, and sees that nothing has gone wrong at the agent so far.
    async fn is_well(&self) {
        let page = target::http("a page\n").await;
        let output = self.libcurl.run(&self.line(page, "")).await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"a page\n");
        let said = self.agent.process.log.text();
        assert!(!said.contains(" WARN ") && !said.contains(" ERROR "), "{said}");
    }
}

/// Reads the head of a request, and says how long its body is.
async fn request(socket: &mut TcpStream) -> std::io::Result<u64> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head).map_err(std::io::Error::other)?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    length.unwrap_or("0").parse().map_err(std::io::Error::other)
}

#[tokio::test]
async fn curl_moves_bytes_both_ways_through_an_agent() {
    let Some(curl) = Curl::start().await else { return };
    // It sends back what was uploaded.
    let mirror = target::serve(|mut socket| async move {
        let length = request(&mut socket).await?;
        let mut body = Vec::new();
        (&mut socket).take(length).read_to_end(&mut body).await?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(&body).await?;
        socket.shutdown().await
    })
    .await;
    let sent: String = (0..600_000).map(|number| format!("{number}\n")).collect();
    let file = curl.pki.write("upload", &sent);
    let line = curl.line(mirror, &format!("--upload-file {}", file.display()));
    let output = curl.libcurl.run(&line).await;
    assert!(output.status.success(), "{:?}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.stdout == sent.as_bytes(),
        "{} of {}",
        output.stdout.len(),
        sent.len()
    );
    let log = &curl.agent.process.log;
    let line = log.line("connection taken in").await;
    assert!(line.contains("identity=dns:gw.example"), "{line}");
    log.line("connection ended").await;
    curl.is_well().await;
}

/// An answer to CONNECT by HTTP/2 that refuses is not shown by curl, but that there is no tunnel.
#[tokio::test]
async fn curl_sees_refusals_and_resets() {
    // CURLE_COULDNT_CONNECT, CURLE_RECV_ERROR.
    const NO_TUNNEL: [i32; 2] = [7, 56];
    let Some(curl) = Curl::start().await else { return };
    let refused = curl.libcurl.run(&curl.line(closed_port(), "")).await;
    let code = refused.status.code().unwrap();
    assert!(NO_TUNNEL.contains(&code), "{refused:?}");

    // The reset must not overtake what was sent before.
    let arrived = Arc::new(Notify::new());
    let resetting = target::serve({
        let arrived = Arc::clone(&arrived);
        move |mut socket| {
            let arrived = Arc::clone(&arrived);
            async move {
                request(&mut socket).await?;
                socket.write_all(HEAD).await?;
                socket.write_all(b"the beginn").await?;
                arrived.notified().await;
                socket.set_zero_linger()
            }
        }
    })
    .await;
    let mut child = curl.libcurl.command(&curl.line(resetting, ""));
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut begin = [0; 10];
    let stdout = child.stdout.as_mut().unwrap();
    soon("the beginning", stdout.read_exact(&mut begin)).await.unwrap();
    assert_eq!(&begin, b"the beginn");
    arrived.notify_one();
    let cut = soon("curl's end", child.wait_with_output()).await.unwrap();
    let said = String::from_utf8_lossy(&cut.stderr);
    assert!(!cut.status.success() && said.contains("CONNECT_ERROR"), "{cut:?}");
    assert_eq!(cut.stdout, b"");
    curl.is_well().await;
}

#[tokio::test]
async fn a_target_sees_the_end_of_a_curl_that_was_killed() {
    let Some(curl) = Curl::start().await else { return };
    let (told, mut tells) = mpsc::channel(2);
    let endless = target::serve(move |mut socket| {
        let told = told.clone();
        async move {
            request(&mut socket).await?;
            socket.write_all(HEAD).await?;
            for round in 0.. {
                let written = socket.write_all(&[7; 64 * 1024]).await;
                // Far more than is held anywhere.
                if round == 1000 || written.is_err() {
                    told.send(written.as_ref().map_err(std::io::Error::kind).copied())
                        .await
                        .map_err(std::io::Error::other)?;
                }
                written?;
            }
            Ok(())
        }
    })
    .await;
    let mut child = curl.libcurl.command(&curl.line(endless, ""));
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(soon("bytes", tells.recv()).await, Some(Ok(())));
    child.kill().await.unwrap();
    let end = soon("the target's end", tells.recv()).await.unwrap();
    assert!(
        matches!(end, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)),
        "{end:?}"
    );
    curl.agent.process.log.line("connection ended").await;
    curl.is_well().await;
}
