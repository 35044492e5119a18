use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tunnel_core::{DialError, HandshakeError, Host, Identity};
use tunnel_tls::{CertName, ClientAuth, ClientTls, DevCa, Issued, Pem, Purpose, ServerTls, Trust};

use super::*;
use crate::BoxIo;
use crate::farewell::LINGER;

const HTTP1: &[u8] = b"http/1.1";
const H2: &[u8] = b"h2";

/// A CA and what it signs.
struct Pki {
    _directory: tempfile::TempDir,
    ca: DevCa,
}

impl Pki {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevCa::create_or_load(directory.path().join("ca")).unwrap();
        Self {
            _directory: directory,
            ca,
        }
    }

    fn issue(&self, name: &str, purpose: Purpose) -> Issued {
        let names: [CertName; 1] = [name.parse().unwrap()];
        self.ca.issue(&names, purpose, Duration::from_secs(3600)).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::ca(Pem::file(self.ca.certificate_file()))
    }

    fn server_tls(&self, auth: ClientAuth) -> ServerTls {
        let issued = self.issue("gw.example", Purpose::Server);
        let builder = ServerTls::builder(Pem::text(issued.chain), Pem::text(issued.key));
        builder.client_auth(auth).build().unwrap()
    }

    /// A server that asks for no certificate and speaks these protocols.
    fn server(&self, alpn: &[&[u8]]) -> ServerSecurity {
        ServerSecurity::tls(&self.server_tls(ClientAuth::None), alpn)
    }

    /// A server that asks for a certificate.
    fn strict_server(&self) -> ServerSecurity {
        ServerSecurity::tls(&self.server_tls(ClientAuth::Required(self.trust())), &[HTTP1])
    }

    /// An agent without a certificate.
    fn client(&self, alpn: &[&[u8]]) -> ClientSecurity {
        client(&ClientTls::builder(self.trust()).build().unwrap(), alpn)
    }

    /// An agent with a certificate in this name.
    fn named_client(&self, name: &str) -> ClientSecurity {
        let issued = self.issue(name, Purpose::Client);
        let builder = ClientTls::builder(self.trust());
        let builder = builder.certificate(Pem::text(issued.chain), Pem::text(issued.key));
        client(&builder.build().unwrap(), &[HTTP1])
    }
}

fn client(tls: &ClientTls, alpn: &[&[u8]]) -> ClientSecurity {
    ClientSecurity::tls(tls, &host("gw.example"), alpn).unwrap()
}

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

fn pipe() -> (DuplexStream, DuplexStream) {
    duplex(64 * 1024)
}

/// What both ends make of a handshake; an end that fails closes its pipe.
async fn shake(
    client: &ClientSecurity,
    server: &ServerSecurity,
) -> (
    Result<(BoxIo, Identity), DialError>,
    Result<(BoxIo, Identity), HandshakeError>,
) {
    let (near, far) = pipe();
    tokio::join!(
        client.secure(Box::new(near), "gw.example:443"),
        server.secure(Box::new(far))
    )
}

/// The words of a failure on the agent's side.
fn dial_words<T: std::fmt::Debug>(result: Result<T, DialError>) -> String {
    match result.unwrap_err() {
        error @ DialError::Tls { .. } => error.to_string(),
        error => panic!("{error:?}"),
    }
}

/// The words of a failure on the server's side.
fn accept_words<T: std::fmt::Debug>(result: Result<T, HandshakeError>) -> String {
    match result.unwrap_err() {
        error @ HandshakeError::Tls { .. } => error.to_string(),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn each_end_learns_who_the_other_is() {
    let pki = Pki::new();
    let (near, far) = shake(&pki.named_client("node-7"), &pki.strict_server()).await;
    assert_eq!(near.unwrap().1.dns, ["gw.example"]);
    assert_eq!(far.unwrap().1.dns, ["node-7"]);
}

#[tokio::test]
async fn an_agent_without_a_certificate_is_anonymous() {
    let pki = Pki::new();
    let (near, far) = shake(&pki.client(&[HTTP1]), &pki.server(&[HTTP1])).await;
    assert!(near.is_ok());
    assert_eq!(far.unwrap().1, Identity::anonymous());
}

#[tokio::test]
async fn clear_text_passes_as_it_is_and_proves_nothing() {
    let (near, far) = pipe();
    let (mut near, server) = ClientSecurity::Plain.secure(Box::new(near), "gw").await.unwrap();
    near.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let (mut far, agent) = ServerSecurity::Plain.secure(Box::new(far)).await.unwrap();
    assert!(near.is_write_vectored() && far.is_write_vectored());
    assert_eq!((server, agent), (Identity::anonymous(), Identity::anonymous()));
    let mut text = [0; 16];
    far.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"GET / HTTP/1.1\r\n");
}

#[tokio::test]
async fn everything_arrives_through_tls() {
    let pki = Pki::new();
    let (near, far) = shake(&pki.client(&[]), &pki.server(&[])).await;
    let (near, far) = (near.unwrap().0, far.unwrap().0);
    assert!(near.is_write_vectored() && far.is_write_vectored());
    let sent: Vec<u8> = (0..1_000_003u32).map(|n| (n % 251) as u8).collect();
    let echo = tokio::spawn(async move {
        let (mut rx, mut tx) = split(far);
        tokio::io::copy(&mut rx, &mut tx).await.unwrap();
        tx.shutdown().await.unwrap();
    });
    let (mut rx, mut tx) = split(near);
    let mut received = Vec::new();
    let send = async {
        tx.write_all(&sent).await.unwrap();
        tx.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(send, rx.read_to_end(&mut received));
    read.unwrap();
    assert!(received == sent);
    echo.await.unwrap();
}

#[tokio::test]
async fn an_end_that_breaks_off_is_told_in_words_for_people() {
    let pki = Pki::new();
    for agent_is_killed in [true, false] {
        let (near, far) = shake(&pki.client(&[]), &pki.server(&[])).await;
        let (near, far) = (near.unwrap().0, far.unwrap().0);
        let (killed, mut other) = if agent_is_killed { (near, far) } else { (far, near) };
        drop(killed);
        let error = other.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            error.to_string(),
            "the peer broke off without a close_notify of TLS: its process ended, or something on the way cut the connection"
        );
    }
}

#[tokio::test]
async fn a_server_of_another_ca_is_told_from_others() {
    let (near, far) = shake(&Pki::new().client(&[HTTP1]), &Pki::new().server(&[HTTP1])).await;
    assert_eq!(
        dial_words(near),
        "the TLS handshake with gw.example:443 failed: the peer's certificate is not signed by a CA that this side trusts"
    );
    assert_eq!(
        accept_words(far),
        "the TLS handshake failed: the peer refused our certificate: it is not signed by a CA that the peer trusts"
    );
}

#[tokio::test]
async fn a_server_of_another_name_is_refused() {
    let pki = Pki::new();
    let tls = ClientTls::builder(pki.trust()).build().unwrap();
    let client = ClientSecurity::tls(&tls, &host("other.example"), &[HTTP1]).unwrap();
    let (near, _) = shake(&client, &pki.server(&[HTTP1])).await;
    assert!(dial_words(near).contains("is for gw.example, not for other.example"));
}

#[tokio::test]
async fn a_refusal_that_comes_late_can_be_explained() {
    let pki = Pki::new();
    let (near, far) = shake(&pki.client(&[HTTP1]), &pki.strict_server()).await;
    assert_eq!(
        accept_words(far),
        "the TLS handshake failed: the peer sent no certificate, and this side requires one"
    );
    let mut near = near.unwrap().0;
    let error = near.read_u8().await.unwrap_err();
    let words = "the peer requires a certificate, and this side sent none";
    assert_eq!(explain_tls(&error).as_deref(), Some(words));
    // Libraries wrap what they get.
    let wrapped = io::Error::other(tunnel_core::ConnectionError::transport(error));
    assert_eq!(explain_tls(&wrapped).as_deref(), Some(words));
    assert_eq!(explain_tls(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
}

/// A pipe that counts how often it was written to, and how often it gave something to read.
#[derive(Debug)]
struct Counting {
    io: DuplexStream,
    writes: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.reads.fetch_add(usize::from(read.is_ready()), Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counting {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        Pin::new(&mut self.io).poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A message of 64 KiB with its headers costs no more calls of the system than one of a byte, at either end.
#[tokio::test]
async fn a_message_is_one_write_and_one_read_in_both_directions() {
    const MESSAGE: usize = 64 * 1024 + 600;
    let pki = Pki::new();
    let (client, server) = (pki.client(&[HTTP1]), pki.server(&[HTTP1]));
    let (near, far) = tokio::io::duplex(1 << 20);
    let counters: [Arc<AtomicUsize>; 4] = Default::default();
    let counting = |io, at: usize| -> BoxIo {
        let (writes, reads) = (Arc::clone(&counters[at]), Arc::clone(&counters[at + 1]));
        Box::new(Counting { io, writes, reads })
    };
    let (near, far) = (counting(near, 0), counting(far, 2));
    let (near, far) = tokio::join!(client.secure(near, "gw"), server.secure(far));
    let (mut near, mut far) = (near.unwrap().0, far.unwrap().0);
    for round in 0..3 {
        let before = counters.clone().map(|count| count.load(Ordering::Relaxed));
        for forth in [true, false] {
            let (from, to) = if forth {
                (&mut near, &mut far)
            } else {
                (&mut far, &mut near)
            };
            from.write_all(&vec![7; MESSAGE]).await.unwrap();
            from.flush().await.unwrap();
            to.read_exact(&mut vec![0; MESSAGE]).await.unwrap();
        }
        let after = counters.clone().map(|count| count.load(Ordering::Relaxed));
        // The first ones may come with what is left of the handshake.
        if round > 0 {
            assert_eq!(after, before.map(|count| count + 1));
        }
    }
}

#[tokio::test]
async fn a_refusal_is_not_lost_to_a_reset() {
    let pki = Pki::new();
    let (client, server) = (pki.client(&[HTTP1]), pki.strict_server());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let refusing = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        accept_words(server.secure(Box::new(socket)).await)
    });
    let socket = TcpStream::connect(addr).await.unwrap();
    let (mut near, _) = client.secure(Box::new(socket), "gw").await.unwrap();
    // The agent speaks before it hears of the refusal, and more than the server has read when it refuses.
    near.write_all(&[b'x'; READ_AHEAD + 4096]).await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    near.write_all(b"x").await.unwrap();
    let error = near.read_u8().await.unwrap_err();
    assert!(explain_tls(&error).is_some(), "{error:?}");
    drop(near);
    refusing.await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let client = {
        let (pki, other) = (Pki::new(), Pki::new());
        let issued = other.issue("node-7", Purpose::Client);
        let builder = ClientTls::builder(pki.trust());
        let builder = builder.certificate(Pem::text(issued.chain), Pem::text(issued.key));
        let client = client(&builder.build().unwrap(), &[HTTP1]);
        let (near, far) = shake(&client, &pki.strict_server()).await;
        assert!(accept_words(far).contains("not signed by a CA that this side trusts"));
        near
    };
    let error = client.unwrap().0.read_u8().await.unwrap_err();
    let words = "the peer refused our certificate: it is not signed by a CA that the peer trusts";
    assert_eq!(explain_tls(&error).as_deref(), Some(words));
}

#[tokio::test]
async fn ends_without_a_common_protocol_say_so() {
    let pki = Pki::new();
    let (near, far) = shake(&pki.client(&[H2]), &pki.server(&[HTTP1])).await;
    assert!(
        dial_words(near).ends_with("the peer speaks none of the application protocols (ALPN) that this side offers")
    );
    assert!(accept_words(far).ends_with("the two sides have no application protocol (ALPN) in common"));
}

#[tokio::test]
async fn a_server_that_chooses_no_protocol_speaks_http_1() {
    let pki = Pki::new();
    let (near, _) = shake(&pki.client(&[H2]), &pki.server(&[])).await;
    assert!(dial_words(near).contains("did not choose an application protocol (ALPN), and this side needs h2"));
    let (near, _) = shake(&pki.client(&[HTTP1]), &pki.server(&[])).await;
    near.unwrap();
    let (near, far) = shake(&pki.client(&[]), &pki.server(&[H2])).await;
    near.unwrap();
    far.unwrap();
}

/// The lines of a response, whose length is right.
fn response_body(response: &str) -> &str {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
    body
}

#[tokio::test]
async fn clear_text_where_there_is_tls_is_told_so() {
    for request in [
        "GET /tunnel HTTP/1.1\r\nHost: gw\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let (mut near, far) = pipe();
        near.write_all(request.as_bytes()).await.unwrap();
        let server = Pki::new().server(&[HTTP1]);
        let mut response = String::new();
        let (far, read) = tokio::join!(server.secure(Box::new(far)), async {
            let read = near.read_to_string(&mut response).await;
            drop(near);
            read
        });
        read.unwrap();
        assert_eq!(response_body(&response), "this port speaks TLS\n");
        assert!(accept_words(far).ends_with("the agent speaks HTTP in clear text, and this port speaks TLS"));
    }
}

#[tokio::test]
async fn tls_where_there_is_clear_text_is_told_so() {
    let (near, far) = shake(&Pki::new().client(&[HTTP1]), &ServerSecurity::Plain).await;
    assert!(dial_words(near).ends_with("the peer does not speak TLS here: is one side set to plain text?"));
    assert!(accept_words(far).ends_with("the agent speaks TLS, and this port speaks clear text"));
    response_body(refuse::Mistake::TlsOnPlain.response());
}

#[tokio::test]
async fn an_agent_that_leaves_without_a_byte_has_lost_nothing() {
    for server in [ServerSecurity::Plain, Pki::new().server(&[HTTP1])] {
        let (near, far) = pipe();
        drop(near);
        let lost = server.secure(Box::new(far)).await;
        assert!(matches!(lost, Err(HandshakeError::Lost(_))), "{lost:?}");
    }
}

#[tokio::test]
async fn an_agent_that_leaves_in_the_middle_is_told_from_one_that_never_came() {
    let (mut near, far) = pipe();
    near.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    drop(near);
    let left = Pki::new().server(&[HTTP1]).secure(Box::new(far)).await;
    assert!(accept_words(left).contains("closed the connection in the middle of the handshake"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_agent_that_stays_is_let_go_after_a_second() {
    let (mut near, far) = pipe();
    near.write_all(b"GET").await.unwrap();
    let start = Instant::now();
    accept_words(Pki::new().server(&[HTTP1]).secure(Box::new(far)).await);
    assert_eq!(start.elapsed(), LINGER);
    let mut response = Vec::new();
    near.read_to_end(&mut response).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 400"));
}

#[tokio::test]
async fn a_handshake_that_is_given_up_closes_the_pipe() {
    let (mut near, far) = pipe();
    near.write_all(&[22]).await.unwrap();
    let server = Pki::new().server(&[HTTP1]);
    let mut handshake = Box::pin(server.secure(Box::new(far)));
    tokio::select! {
        biased;
        done = &mut handshake => panic!("{done:?}"),
        () = tokio::task::yield_now() => {}
    }
    drop(handshake);
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
}

#[test]
fn a_name_that_no_certificate_can_hold_is_unusable() {
    let tls = ClientTls::builder(Pki::new().trust()).build().unwrap();
    let odd = ClientSecurity::tls(&tls, &host("under_score-.example"), &[]);
    assert!(matches!(odd, Err(DialError::Unusable(_))), "{odd:?}");
}

#[test]
fn debug_output_says_what_is_spoken() {
    let pki = Pki::new();
    let text = format!("{:?} {:?}", pki.client(&[H2, HTTP1]), pki.server(&[HTTP1]));
    assert!(text.contains("gw.example") && text.contains("h2 or http/1.1"), "{text}");
    assert!(!text.contains("PRIVATE"), "{text}");
}
