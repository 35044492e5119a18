//! Requests and their answers, over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use frontend_connect::{Challenge, ClientAuthenticator, Credentials, Metrics, Unauthenticated};
use prometheus_client::{encoding::text::encode, registry::Registry};
use support::{REQUEST, Running, config, exchange, read_200, read_to_end, soon, status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tunnel_core::{Client, Identity, RefusalKind, Selector};

#[tokio::test]
async fn the_opener_is_told_everything() {
    let mut config = config();
    config.agent_headers = true;
    let dial_timeout = config.dial_timeout;
    let mut frontend = Running::tcp(config).await;
    let mut client = frontend.connect().await;
    let request = "CONNECT kubelet.example:10250 HTTP/1.1\r\n\
                   Host: 127.0.0.1\r\n\
                   Tunnel-Agent: node-7\r\n\
                   Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let dial = frontend.dial().await;
    let request = &dial.request;
    assert_eq!(request.head.target.to_string(), "tcp://kubelet.example:10250");
    assert_eq!(request.selector, Selector::Agent("node-7".parse().unwrap()));
    assert_eq!(request.client.addr, Some(client.local_addr().unwrap()));
    assert!(request.client.identity.is_anonymous());
    assert_eq!(request.head.client, request.client.addr);
    let deadline = request.head.deadline.unwrap();
    assert!(deadline <= dial_timeout && deadline > dial_timeout / 2);
    assert!(request.head.trace.is_some());
}

#[tokio::test]
async fn nothing_is_said_before_the_answer() {
    let mut frontend = Running::tcp(config()).await;
    let mut client = frontend.connect().await;
    client.write_all(REQUEST).await.unwrap();
    let dial = frontend.dial().await;
    tokio::task::yield_now().await;
    let mut byte = [0];
    assert_eq!(
        client.try_read(&mut byte).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    let _far = dial.accept();
    read_200(&mut client).await;
}

#[tokio::test]
async fn every_refusal_of_the_opener_reaches_the_client() {
    let mut frontend = Running::tcp(config()).await;
    for (kind, expected) in [
        (RefusalKind::HttpRequestError, 400),
        (RefusalKind::HttpRequestDenied, 403),
        (RefusalKind::DestinationIpProhibited, 403),
        (RefusalKind::DestinationNotFound, 404),
        (RefusalKind::ProxyInternalError, 500),
        (RefusalKind::ProxyConfigurationError, 500),
        (RefusalKind::DnsError, 502),
        (RefusalKind::DestinationIpUnroutable, 502),
        (RefusalKind::ConnectionRefused, 502),
        (RefusalKind::ConnectionTerminated, 502),
        (RefusalKind::ProxyLoopDetected, 502),
        (RefusalKind::DestinationUnavailable, 503),
        (RefusalKind::ConnectionLimitReached, 503),
        (RefusalKind::DnsTimeout, 504),
        (RefusalKind::ConnectionTimeout, 504),
    ] {
        let mut client = frontend.connect().await;
        client.write_all(REQUEST).await.unwrap();
        frontend.dial().await.refuse(kind, "because \"it\" is so");
        let response = read_to_end(&mut client).await;
        assert_eq!(status(&response), expected, "{response}");
        let proxy_status = format!(
            "\r\nProxy-Status: node-7; error={}; details=\"because \\\"it\\\" is so\", gw-1\r\n",
            kind.name()
        );
        assert!(response.contains(&proxy_status), "{response}");
        assert!(
            response.ends_with("\r\n\r\nagent node-7: because \"it\" is so\n"),
            "{response}"
        );
    }
}

#[tokio::test]
async fn bad_requests_are_refused_without_a_dial() {
    let mut frontend = Running::tcp(config()).await;
    for (request, expected) in [
        ("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 405),
        ("CONNECT a.example HTTP/1.1\r\n\r\n", 400),
        ("CONNECT a.example:1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("CONNECT a.example:1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("CONNECT a.example:1 HTTP/2.0\r\n\r\n", 505),
        ("\x16\x03\x01\x02\x00\x01\x00", 400),
        ("nonsense\r\n\r\n", 400),
    ] {
        let response = exchange(&mut frontend.connect().await, request.as_bytes()).await;
        assert_eq!(status(&response), expected, "{request:?}: {response}");
        assert!(
            response.contains("Proxy-Status: gw-1; error=http_request_error; "),
            "{response}"
        );
    }
    assert!(frontend.dials.try_recv().is_err());
}

#[tokio::test]
async fn a_method_other_than_connect_is_told_which_is_allowed() {
    let frontend = Running::tcp(config()).await;
    let response = exchange(&mut frontend.connect().await, b"POST / HTTP/1.0\r\n\r\n").await;
    assert!(response.contains("\r\nAllow: CONNECT\r\n"), "{response}");
    let response = exchange(&mut frontend.connect().await, b"HEAD / HTTP/1.1\r\n\r\n").await;
    assert!(
        response.starts_with("HTTP/1.1 405 ") && response.ends_with("\r\n\r\n"),
        "{response}"
    );
}

#[tokio::test]
async fn a_refused_client_can_read_why_although_it_is_still_sending() {
    let frontend = Running::tcp(config()).await;
    let (mut read, mut write) = frontend.connect().await.into_split();
    let sender = tokio::spawn(async move {
        let mut head = String::from("CONNECT a.example:1 HTTP/1.1\r\n");
        while head.len() < 1024 * 1024 {
            let _ = write!(head, "X-{}: {}\r\n", head.len(), "y".repeat(1000));
        }
        write.write_all(head.as_bytes()).await.unwrap();
        write
    });
    let response = read_to_end(&mut read).await;
    assert_eq!(status(&response), 431, "{response}");
    soon(sender).await.unwrap();
}

#[tokio::test]
async fn a_refused_client_that_never_closes_is_closed() {
    let mut config = config();
    config.linger = Duration::from_millis(50);
    let frontend = Running::tcp(config).await;
    let mut client = frontend.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_to_end(&mut client).await), 405);
    // The frontend has nothing more open although this client is.
    frontend.shutdown.drain.cancel();
    soon(frontend.task).await.unwrap();
    drop(client);
}

#[tokio::test]
async fn a_second_request_is_neither_answered_nor_forwarded_after_a_refusal() {
    let mut frontend = Running::tcp(config()).await;
    let mut client = frontend.connect().await;
    let smuggled = [REQUEST, b"CONNECT 10.0.0.2:22 HTTP/1.1\r\n\r\n"].concat();
    client.write_all(&smuggled).await.unwrap();
    frontend.dial().await.refuse(RefusalKind::ConnectionRefused, "no");
    let response = read_to_end(&mut client).await;
    assert_eq!(status(&response), 502);
    assert_eq!(response.matches("HTTP/1.1").count(), 1);
    assert!(frontend.dials.try_recv().is_err());
}

#[tokio::test]
async fn early_bytes_arrive_whole_once_the_target_agrees() {
    let mut frontend = Running::tcp(config()).await;
    let (mut read, mut write) = frontend.connect().await.into_split();
    // Far more than is held before the answer.
    let data: Vec<u8> = (0..1024 * 1024u32).flat_map(u32::to_le_bytes).collect();
    let sent = data.clone();
    let sender = tokio::spawn(async move {
        write.write_all(&[REQUEST, &sent].concat()).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut far = frontend.dial().await.accept().into_io();
    read_200(&mut read).await;
    let mut received = Vec::new();
    soon(far.read_to_end(&mut received)).await.unwrap();
    assert!(received == data);
    soon(sender).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_dial() {
    let mut frontend = Running::tcp(config()).await;
    for early in ["", "early"] {
        let mut client = frontend.connect().await;
        client.write_all(REQUEST).await.unwrap();
        client.write_all(early.as_bytes()).await.unwrap();
        let dial = frontend.dial().await;
        drop(client);
        soon(dial.given_up()).await;
    }
    // A reset, too.
    let mut client = frontend.connect().await;
    client.write_all(REQUEST).await.unwrap();
    let dial = frontend.dial().await;
    client.set_zero_linger().unwrap();
    drop(client);
    soon(dial.given_up()).await;
}

#[tokio::test]
async fn one_client_has_a_limit_of_pending_dials() {
    let mut config = config();
    config.max_pending_dials_per_client = 2;
    config.max_pending_dials = 3;
    let mut frontend = Running::tcp(config).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = frontend.connect().await;
        client.write_all(REQUEST).await.unwrap();
        waiting.push((client, frontend.dial().await));
    }
    let response = exchange(&mut frontend.connect().await, REQUEST).await;
    assert_eq!(status(&response), 429, "{response}");
    assert!(response.contains("\r\nRetry-After: 1\r\n"), "{response}");

    // A tunnel that stands is not pending.
    let (mut client, dial) = waiting.pop().unwrap();
    let _far = dial.accept();
    read_200(&mut client).await;
    let mut next = frontend.connect().await;
    next.write_all(REQUEST).await.unwrap();
    frontend.dial().await;
}

#[tokio::test]
async fn all_clients_together_have_a_limit_of_pending_dials() {
    let mut config = config();
    config.max_pending_dials = 1;
    let mut frontend = Running::tcp(config).await;
    let mut client = frontend.connect().await;
    client.write_all(REQUEST).await.unwrap();
    let _dial = frontend.dial().await;
    let response = exchange(&mut frontend.connect().await, REQUEST).await;
    assert_eq!(status(&response), 503, "{response}");
    assert!(response.contains("error=connection_limit_reached"), "{response}");
}

#[tokio::test]
async fn a_crowded_frontend_says_so() {
    let mut config = config();
    config.max_connections = 1;
    let mut frontend = Running::tcp(config).await;
    let (client, far) = frontend.tunnel().await;
    let response = exchange(&mut frontend.connect().await, REQUEST).await;
    assert_eq!(status(&response), 503, "{response}");
    assert!(response.contains("error=connection_limit_reached"), "{response}");
    drop((client, far));
    // The place becomes free when the frontend has noticed.
    soon(async {
        loop {
            let mut client = frontend.connect().await;
            client.write_all(REQUEST).await.unwrap();
            tokio::select! {
                _ = client.readable() => {}
                dial = frontend.dials.recv() => return drop(dial),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn clients_may_not_choose_the_agent_unless_allowed() {
    let frontend = Running::tcp(config()).await;
    for field in ["Tunnel-Agent: node-7", "Tunnel-Agent-Labels: region=eu"] {
        let request = format!("CONNECT a.example:1 HTTP/1.1\r\n{field}\r\n\r\n");
        let response = exchange(&mut frontend.connect().await, request.as_bytes()).await;
        assert_eq!(status(&response), 403, "{response}");
        assert!(response.contains("does not let clients choose"), "{response}");
    }
}

#[derive(Debug, Default)]
struct OneUser(Mutex<Vec<Option<Credentials>>>);

#[async_trait]
impl ClientAuthenticator for OneUser {
    async fn authenticate(&self, _: &Client, credentials: Option<&Credentials>) -> Result<Identity, Unauthenticated> {
        self.0.lock().unwrap().push(credentials.cloned());
        match credentials {
            Some(Credentials::Basic { user, password }) if password.expose() == b"secret" => {
                Ok(Identity::from_subject(user.clone()))
            }
            Some(_) => Err(Unauthenticated("the password is wrong".into())),
            None => Err(Unauthenticated("who are you?".into())),
        }
    }

    fn challenges(&self) -> Vec<Challenge> {
        vec![Challenge::Basic("tunnel".into()), Challenge::Bearer("tunnel".into())]
    }
}

#[tokio::test]
async fn clients_can_be_asked_who_they_are() {
    let mut config = config();
    let authenticator = Arc::new(OneUser::default());
    config.authenticator = Some(Arc::clone(&authenticator) as _);
    let mut frontend = Running::tcp(config).await;
    // dev:wrong
    for (field, words) in [
        ("", "who are you?"),
        ("Proxy-Authorization: Basic ZGV2Ondyb25n\r\n", "wrong"),
        ("Proxy-Authorization: Bearer x\r\n", "wrong"),
        ("Proxy-Authorization: Basic %%%\r\n", "malformed"),
        ("Proxy-Authorization: Negotiate x\r\n", "neither"),
    ] {
        let request = format!("CONNECT a.example:1 HTTP/1.1\r\n{field}\r\n");
        let response = exchange(&mut frontend.connect().await, request.as_bytes()).await;
        assert_eq!(status(&response), 407, "{response}");
        assert!(
            response.contains(
                "\r\nProxy-Authenticate: Basic realm=\"tunnel\", charset=\"UTF-8\"\r\n\
                 Proxy-Authenticate: Bearer realm=\"tunnel\"\r\n"
            ),
            "{response}"
        );
        assert!(response.contains(words), "{response}");
    }
    assert_eq!(authenticator.0.lock().unwrap().len(), 3);

    let mut client = frontend.connect().await;
    // dev:secret
    let request = "CONNECT a.example:1 HTTP/1.1\r\nProxy-Authorization: basic ZGV2OnNlY3JldA==\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let dial = frontend.dial().await;
    assert_eq!(dial.request.client.identity, Identity::from_subject("dev"));
}

#[tokio::test]
async fn a_client_that_asks_nothing_gets_nothing() {
    let frontend = Running::tcp(config()).await;
    let mut client = frontend.connect().await;
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "");
}

#[tokio::test]
async fn answers_and_what_is_open_are_counted() {
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let encoded = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    };
    let mut frontend = Running::with_metrics(config(), metrics).await;
    exchange(&mut frontend.connect().await, b"GET / HTTP/1.1\r\n\r\n").await;
    let (mut client, far) = frontend.tunnel().await;
    let mut far = far.into_io();
    client.write_all(b"four").await.unwrap();
    soon(far.read_u32()).await.unwrap();

    let text = encoded();
    for line in [
        r#"frontend_requests_total{frontend="connect",status="405"} 1"#,
        r#"frontend_requests_total{frontend="connect",status="200"} 1"#,
        r#"frontend_tunnels_open{frontend="connect"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }

    client.shutdown().await.unwrap();
    far.shutdown().await.unwrap();
    read_to_end(&mut client).await;
    frontend.shutdown.drain.cancel();
    soon(frontend.task).await.unwrap();
    let text = encoded();
    for line in [
        r#"frontend_tunnels_open{frontend="connect"} 0"#,
        r#"frontend_connections_open{frontend="connect"} 0"#,
        r#"frontend_bytes_total{frontend="connect",direction="to_target"} 4"#,
        r#"frontend_bytes_total{frontend="connect",direction="to_client"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}
