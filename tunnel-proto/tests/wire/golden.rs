//! The golden files and the document: bytes that must never change their meaning.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tunnel_proto::{
    Answer, Claim, CloseCode, Drain, FrameError, FrameKind, Generation, Message, Refusal, RefusalKind, Rejection,
    StreamCode, StreamHead, TraceContext, Welcome,
};

use crate::{
    checks,
    document::{DOCUMENT, golden_files, parse_hex, table},
    link,
};

/// The messages that are written exactly as their files say, and read back.
fn exact() -> BTreeMap<&'static str, Message> {
    let minimal_claim = Claim::new("node-7".parse().unwrap(), Generation(1_790_000_000_000));
    let mut claim = minimal_claim.clone();
    claim.software = "tunnel-agent/0.1.0".into();
    assert!(claim.labels.insert("zone", "eu-1"));
    assert!(claim.labels.insert("rack", "b2"));
    assert!(claim.capabilities.insert("datagrams"));
    claim.credential = Some(tunnel_proto::Secret::new("s3cr3t").unwrap());

    let mut welcome = Welcome::new("gw-a".parse().unwrap());
    welcome.server_count = 3;
    welcome.limits.max_streams = 16_384;
    welcome.keepalive.interval = Duration::from_secs(10);
    welcome.keepalive.timeout = Duration::from_secs(5);
    welcome.software = "tunnel-server/0.1.0".into();
    assert!(welcome.capabilities.insert("datagrams"));

    let mut rejection = Rejection::new(CloseCode::OVERLOADED, "too many handshakes");
    rejection.not_before = Some(Duration::from_secs(30));

    let mut full = head("tcp://[2001:db8::7]:10250", Some("192.0.2.1:50000"));
    full.deadline = Some(Duration::from_secs(30));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    full.trace = Some(TraceContext::new(parent, "vendor=value").unwrap());
    assert!(full.metadata.push("host", "kubelet.example"));
    assert!(full.metadata.push("host", ""));

    let mut unix = head("unix:///run/docker.sock", None);
    unix.deadline = Some(Duration::ZERO);

    let refused = Refusal::new(RefusalKind::ConnectionRefused, "10.0.0.7:443 refused the connection");

    BTreeMap::from([
        ("claim", claim.into()),
        ("claim-minimal", minimal_claim.into()),
        ("welcome", welcome.into()),
        ("rejection", rejection.into()),
        ("drain", Drain::new("shutting down").into()),
        ("drain-silent", Drain::default().into()),
        ("head", full.into()),
        ("head-minimal", head("tcp://kubelet.example:10250", None).into()),
        (
            "head-udp",
            head("udp://10.96.0.10:53", Some("[2001:db8::1]:65535")).into(),
        ),
        ("head-unix", unix.into()),
        ("answer-accepted", Answer::Accepted.into()),
        ("answer-refused", Answer::Refused(refused).into()),
    ])
}

/// The files that are read and never written, and what they hold.
fn read_only() -> BTreeMap<&'static str, Result<Message, FrameError>> {
    let unknown_kind = Refusal::new(RefusalKind::ProxyInternalError, "new");
    BTreeMap::from([
        ("claim-several-versions", Ok(exact()["claim-minimal"].clone())),
        ("claim-newer-version", Err(FrameError::Version { offered: vec![2] })),
        ("answer-refused-newer-kind", Ok(Answer::Refused(unknown_kind).into())),
        ("frame-unknown", Ok(Drain::default().into())),
    ])
}

fn head(target: &str, client: Option<&str>) -> StreamHead {
    let mut head = StreamHead::new(target.parse().unwrap());
    head.client = client.map(|client| client.parse::<SocketAddr>().unwrap());
    head
}

#[test]
fn golden_files_are_written_and_read_as_they_are() {
    let (exact, read_only, mut files) = (exact(), read_only(), golden_files());
    files.retain(|name, _| !name.starts_with(link::PREFIX));
    for (name, bytes) in &files {
        let (messages, end) = checks::decode([&bytes[..]]);
        if let Some(message) = exact.get(&name[..]) {
            assert_eq!(message.encode(), bytes, "{name}");
            assert_eq!((&messages[..], end), (&[message.clone()][..], Ok(())), "{name}");
        } else {
            let expected = match read_only[&name[..]].clone() {
                Ok(message) => (vec![message], Ok(())),
                Err(error) => (vec![], Err(error)),
            };
            assert_eq!((messages, end), expected, "{name}");
        }
    }
    assert_eq!(files.len(), exact.len() + read_only.len());
}

#[test]
fn the_examples_of_the_document_are_the_golden_files() {
    let files = golden_files();
    let mut kinds = Vec::new();
    for example in DOCUMENT.split("```hex ").skip(1) {
        let (name, rest) = example.split_once('\n').unwrap();
        let (hex, _) = rest.split_once("```").unwrap();
        assert_eq!(parse_hex(hex), files[name], "{name}");
        kinds.push(files[name][0]);
    }
    for kind in FrameKind::KNOWN {
        assert!(
            kinds.contains(&u8::try_from(kind.value().into_inner()).unwrap()),
            "no example of {kind}"
        );
    }
}

#[test]
fn the_tables_of_the_document_are_those_of_the_code() {
    let kinds: Vec<_> = FrameKind::KNOWN
        .iter()
        .map(|kind| {
            (
                format!("{:#04x}", kind.value().into_inner()),
                kind.to_string(),
                kind.max_body().to_string(),
            )
        })
        .collect();
    let rows = table("### 2.1 Frames")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone(), row[3].clone()));
    assert_eq!(rows.collect::<Vec<_>>(), kinds);

    let refusals: Vec<_> = RefusalKind::ALL
        .iter()
        .map(|kind| {
            [
                format!("{:#04x}", kind.value()),
                kind.name().to_owned(),
                kind.recommended_status().to_string(),
            ]
        })
        .collect();
    let rows = table("### 4.3 Kinds of refusal")
        .into_iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()]);
    assert_eq!(rows.collect::<Vec<_>>(), refusals);

    let streams: Vec<_> = StreamCode::NAMED
        .iter()
        .map(|code| {
            [
                format!("{:#04x}", code.value().into_inner()),
                code.label().to_uppercase(),
                code.meaning().to_owned(),
            ]
        })
        .collect();
    assert_eq!(table("### 6.1 Stream codes"), streams);

    let closes: Vec<_> = CloseCode::NAMED
        .iter()
        .map(|code| {
            let again = if code.is_retryable() { "yes" } else { "no" };
            let number = format!("{:#04x}", code.value().into_inner());
            [
                number,
                code.label().to_uppercase(),
                code.meaning().to_owned(),
                again.to_owned(),
            ]
        })
        .collect();
    assert_eq!(table("### 6.2 Close codes"), closes);
}
