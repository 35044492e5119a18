//! Clients of others, at a listener.

use bytes::Bytes;
use carrier_h2::forward::{Dialect, ForwardConfig};
use h2::{Reason, ext::Protocol};
use http::{HeaderMap, Request};
use tokio::time::{Instant, sleep, timeout};
use tunnel_core::{
    Claim, CloseCode, Duplex, OpenError, PeerRole, RecvError, Refusal, RefusalKind, Rejection, SendError, StreamCode,
};
use tunnel_testkit::{
    ends::{Ends, Verdict, head, whole},
    pki::Pki,
    sim::{Net, Profile},
};

use crate::world::{Client, PROMPT, World, connect};

fn named() -> ForwardConfig {
    ForwardConfig::builder().name("node-7").build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_and_half_close_is_half_close() {
    let mut world = World::plain(named());
    let (mut client, listener) = world.client().await;
    let (response, mut tx) = client.send(connect("db.internal:5432")).await;
    let inbound = listener.accept().await.unwrap();
    assert_eq!(inbound.head().target.to_string(), "tcp://db.internal:5432");
    tx.send_data("early".into(), false).unwrap();
    let Duplex {
        tx: mut far_tx,
        rx: mut far_rx,
    } = inbound.accept().await.unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.body().is_end_stream());
    tx.send_data(" and late".into(), true).unwrap();
    let mut seen = Vec::new();
    while let Some(bytes) = far_rx.recv(1024).await.unwrap() {
        seen.extend_from_slice(&bytes);
    }
    assert_eq!(seen, b"early and late");
    far_tx.send_all("answer".into()).await.unwrap();
    far_tx.finish().await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "answer");
    assert!(body.data().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_opens_no_stream_is_answered_without_asking_anybody() {
    let mut world = World::plain(named());
    let (mut client, listener) = world.client().await;
    let mut extended = Request::connect("https://db.internal:1/chat").body(()).unwrap();
    extended.extensions_mut().insert(Protocol::from_static("websocket"));
    for (request, status, words) in [
        (
            Request::get("http://gw/healthz").body(()).unwrap(),
            405,
            "node-7: this port serves CONNECT, not GET\n",
        ),
        (
            Request::post("http://gw/").body(()).unwrap(),
            405,
            "node-7: this port serves CONNECT, not POST\n",
        ),
        (
            extended,
            501,
            "node-7: extended CONNECT is not served, nor is its protocol websocket\n",
        ),
    ] {
        let (seen, headers, body) = client.ask(request).await.unwrap();
        assert_eq!((seen, body.as_str()), (status, words));
        let said = headers["proxy-status"].to_str().unwrap();
        assert!(said.starts_with("node-7; error=http_request_error; details="), "{said}");
        assert_eq!(headers.contains_key("allow"), status == 405);
    }
    let (status, _, body) = client.ask(connect("db.internal:0")).await.unwrap();
    assert_eq!(status, 400, "{body}");
    // The connection is none the worse for it.
    let (response, _tx) = client.send(connect("db.internal:5432")).await;
    let _accepted = listener.accept().await.unwrap().accept().await.unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_a_status_and_says_why() {
    let mut world = World::plain(named());
    let (mut client, listener) = world.client().await;
    for kind in RefusalKind::ALL {
        let refusing = async {
            let inbound = listener.accept().await.unwrap();
            inbound.refuse(Refusal::new(*kind, "näher geht es nicht"));
        };
        let (answer, ()) = tokio::join!(client.ask(connect("db.internal:5432")), refusing);
        let (status, headers, body) = answer.unwrap();
        assert_eq!(status, kind.status());
        assert_eq!(body, "node-7: näher geht es nicht\n");
        let expected = format!("node-7; error={kind}; details=\"n?her geht es nicht\"");
        assert_eq!(headers["proxy-status"], expected);
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_mean_nothing() {
    let mut world = World::plain(named());
    let (mut client, listener) = world.client().await;
    let (response, mut tx) = client.send(connect("db.internal:5432")).await;
    let mut far = listener.accept().await.unwrap().accept().await.unwrap();
    response.await.unwrap();
    tx.send_data("bytes".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    tx.send_trailers(trailers).unwrap();
    assert_eq!(far.rx.recv(1024).await.unwrap().unwrap(), "bytes");
    assert_eq!(far.rx.recv(1024).await.unwrap(), None);
}

/// What each end does to the other one is said in codes of HTTP/2.
#[tokio::test(start_paused = true)]
async fn resets_have_codes_both_ways() {
    let mut world = World::plain(named());
    let (mut client, listener) = world.client().await;
    for (reason, code) in [
        (Reason::CANCEL, StreamCode::CANCELLED),
        (Reason::NO_ERROR, StreamCode::CANCELLED),
        (Reason::CONNECT_ERROR, StreamCode::TARGET_RESET),
        (Reason::INTERNAL_ERROR, StreamCode::INTERNAL),
        (Reason::FLOW_CONTROL_ERROR, StreamCode::PROTOCOL),
        (Reason::from(0xbeef), StreamCode::CANCELLED),
    ] {
        let (response, mut tx) = client.send(connect("db.internal:5432")).await;
        let mut far = listener.accept().await.unwrap().accept().await.unwrap();
        let _body = response.await.unwrap().into_body();
        tx.send_reset(reason);
        let seen = far.rx.recv(1024).await;
        assert!(
            matches!(seen, Err(RecvError::Reset(seen)) if seen == code),
            "{reason:?}: {seen:?}"
        );
        let seen = far.tx.stopped().await;
        assert!(matches!(seen, Ok(seen) if seen == code), "{reason:?}: {seen:?}");
    }
    for (code, reason) in [
        (StreamCode::CANCELLED, Reason::CANCEL),
        (StreamCode::TARGET_RESET, Reason::CONNECT_ERROR),
        (StreamCode::TARGET_ERROR, Reason::CONNECT_ERROR),
        (StreamCode::INTERNAL, Reason::INTERNAL_ERROR),
        (StreamCode::MEMORY, Reason::ENHANCE_YOUR_CALM),
        (StreamCode::POLICY, Reason::CANCEL),
    ] {
        for by_stop in [false, true] {
            let (response, mut tx) = client.send(connect("db.internal:5432")).await;
            let mut far = listener.accept().await.unwrap().accept().await.unwrap();
            let mut body = response.await.unwrap().into_body();
            if by_stop {
                far.rx.stop(code);
            } else {
                far.tx.reset(code);
            }
            let seen = body.data().await.unwrap().unwrap_err();
            assert_eq!((seen.is_reset(), seen.reason()), (true, Some(reason)), "{code}");
            let seen = std::future::poll_fn(|cx| tx.poll_reset(cx)).await.unwrap();
            assert_eq!(seen, reason, "{code}");
        }
    }
}

/// A sender that has finished is not cut off by the end of its receiver.
#[tokio::test(start_paused = true)]
async fn what_was_finished_arrives_before_a_stop() {
    let mut world = World::plain(named());
    let (mut client, listener) = world.client().await;
    let (response, tx) = client.send(connect("db.internal:5432")).await;
    let mut far = listener.accept().await.unwrap().accept().await.unwrap();
    let mut body = response.await.unwrap().into_body();
    let sent = Bytes::from(vec![7; 100_000]);
    far.tx.send_all(sent.clone()).await.unwrap();
    far.tx.finish().await.unwrap();
    drop(far);
    let mut seen = Vec::new();
    while let Some(Ok(bytes)) = body.data().await {
        body.flow_control().release_capacity(bytes.len()).unwrap();
        seen.extend_from_slice(&bytes);
    }
    assert!(seen == sent, "{} of {} bytes", seen.len(), sent.len());
    let mut tx = tx;
    let stopped = timeout(PROMPT, std::future::poll_fn(|cx| tx.poll_reset(cx)))
        .await
        .unwrap();
    assert_eq!(stopped.unwrap(), Reason::CANCEL);
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_a_goaway_and_old_streams_go_on() {
    let mut world = World::plain(named());
    let (mut client, listener) = world.client().await;
    let (response, mut tx) = client.send(connect("db.internal:5432")).await;
    let mut far = listener.accept().await.unwrap().accept().await.unwrap();
    let mut body = response.await.unwrap().into_body();
    listener.drain();
    sleep(PROMPT).await;
    assert!(client.requests.clone().ready().await.is_err(), "a GOAWAY was seen");
    far.tx.send_all("still here".into()).await.unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "still here");
    tx.send_data(Bytes::new(), true).unwrap();
    assert_eq!(far.rx.recv(1).await.unwrap(), None);
    far.tx.finish().await.unwrap();
    drop((far, body, tx));
    let error = timeout(PROMPT, listener.closed()).await.unwrap();
    assert_eq!(error.code(), Some(CloseCode::DRAINED), "{error}");
    assert!(timeout(PROMPT, client.ended).await.unwrap().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_close_resets_streams_and_says_goaway() {
    for (code, reason) in [
        (CloseCode::SHUTDOWN, Reason::NO_ERROR),
        (CloseCode::FLOOD, Reason::ENHANCE_YOUR_CALM),
        (CloseCode::FORBIDDEN, Reason::INADEQUATE_SECURITY),
    ] {
        let mut world = World::plain(named());
        let (mut client, listener) = world.client().await;
        let (response, _tx) = client.send(connect("db.internal:5432")).await;
        let mut far = listener.accept().await.unwrap().accept().await.unwrap();
        let mut body = response.await.unwrap().into_body();
        listener.close(code, "because");
        let seen = body.data().await.unwrap().unwrap_err();
        assert!(seen.is_reset(), "{seen}");
        let ended = timeout(PROMPT, client.ended).await.unwrap().unwrap();
        let seen = ended.err().and_then(|error| error.reason()).unwrap_or(Reason::NO_ERROR);
        assert_eq!(seen, reason);
        let after = far.tx.send_all("more".into()).await;
        assert!(matches!(after, Err(SendError::Connection(_))), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_without_streams_says_goaway_at_once() {
    let mut world = World::plain(named());
    let (client, listener) = world.client().await;
    sleep(PROMPT).await;
    let before = Instant::now();
    listener.close(CloseCode::FLOOD, "because");
    let ended = timeout(PROMPT, client.ended).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert!(before.elapsed() < PROMPT / 2, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_told_from_one_that_is_lost() {
    let mut world = World::plain(named());
    let (client, listener) = world.client().await;
    drop(client.requests);
    client.ended.await.unwrap().unwrap();
    let error = timeout(PROMPT, listener.closed()).await.unwrap();
    assert_eq!(error.code(), Some(CloseCode::DRAINED), "{error}");

    let (client, listener) = world.client().await;
    client.ended.abort();
    let error = timeout(PROMPT, listener.closed()).await.unwrap();
    assert_eq!(error.code(), None, "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_peer_is_its_identity_and_opens_all_streams() {
    let (net, pki) = (Net::new(Profile::near()), Pki::new());
    let (server, client) = (pki.server(), pki.client());
    let mut world = World::on(&net, Some((&server, &client)), named());
    let verdict = Verdict::default();
    let (opener, listener) = world.attempt(&verdict).await;
    let (opener, listener) = (opener.unwrap(), listener.unwrap());
    let arrival = verdict.arrival().unwrap();
    assert_eq!((arrival.claim, arrival.identity), (None, pki.client_identity()));
    assert!(matches!(listener.peer().role, PeerRole::Foreign));
    assert_eq!(listener.peer().identity, pki.client_identity());
    assert_eq!(opener.peer().identity, pki.server_identity());
    assert_eq!(
        opener.peer().claim().map(|claim: &Claim| claim.agent.as_str()),
        Some("node-7")
    );
    let opened = listener.open(head()).await;
    assert!(matches!(opened, Err(OpenError::Unsupported(_))), "{opened:?}");
}

/// As in a mesh: certificates at both ends that hold SPIFFE IDs and no names.
#[tokio::test(start_paused = true)]
async fn hbone_knows_both_ends_by_their_spiffe_ids() {
    const GATEWAY: &str = "spiffe://cluster.local/ns/tunnels/sa/gateway";
    const NODE: &str = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";
    let pki = Pki::mesh(NODE, GATEWAY);
    let config = || ForwardConfig::builder().dialect(Dialect::Hbone).build().unwrap();
    let server = pki.server();
    let mut world = World::on(
        &Net::new(Profile::near()),
        Some((&server, &pki.client_expecting(NODE))),
        config(),
    );
    let (opener, listener) = world.connect().await;
    assert_eq!(opener.peer().identity.spiffe.as_deref(), Some(NODE));
    assert_eq!(listener.peer().identity.spiffe.as_deref(), Some(GATEWAY));
    tunnel_testkit::ends::echo(&opener, &listener, 100_000).await;

    let other = "spiffe://cluster.local/ns/default/sa/else";
    let mut world = World::on(
        &Net::new(Profile::near()),
        Some((&server, &pki.client_expecting(other))),
        config(),
    );
    let (opener, listener) = world.attempt(&Verdict::default()).await;
    let words = whole(&opener.unwrap_err());
    assert!(words.contains(&format!("is for {NODE}, not for {other}")), "{words}");
    assert!(listener.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_is_not_let_in_is_told_why() {
    let mut world = World::plain(named());
    let io = tunnel_tcp::Dial::dial(&world.net, &world.address).await.unwrap().io;
    let verdict = Verdict::reject(Rejection::new(CloseCode::FORBIDDEN, "not you"));
    let (ended, refused) = tokio::join!(
        async {
            let client = Client::begin(io).await;
            timeout(PROMPT, client.ended).await.unwrap().unwrap()
        },
        tunnel_testkit::ends::handshake(&mut world.listener, &verdict),
    );
    assert!(refused.is_err());
    let error = ended.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INADEQUATE_SECURITY), "{error}");

    let (opener, _) = world.attempt(&verdict).await;
    let error = opener.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert!(
        whole(&error).ends_with("the peer closed the connection: forbidden (0x7), not you"),
        "{}",
        whole(&error)
    );
}
