//! Arbitrary messages.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use proptest::{collection::vec, option, prelude::*};
use tunnel_proto::{
    Answer, CapabilityNames, Claim, CloseCode, Drain, Generation, HostPort, Keepalive, Labels, Message, Metadata,
    Refusal, RefusalKind, Rejection, Secret, StreamCode, StreamHead, Target, Text, TraceContext, VarInt, Welcome,
    mux::{Frame, Hello, Side, StreamId},
};

pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        claim().prop_map(Message::from),
        welcome().prop_map(Message::from),
        rejection().prop_map(Message::from),
        head().prop_map(Message::from),
        answer().prop_map(Message::from),
        text().prop_map(|text| Drain::new(text).into()),
    ]
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        Just(Text::default()),
        ".{0,40}".prop_map(Text::from),
        ".{1000,1100}".prop_map(Text::from),
    ]
}

fn millis() -> impl Strategy<Value = Duration> {
    prop_oneof![0..100_000u64, 0..1u64 << 62].prop_map(Duration::from_millis)
}

pub(crate) fn target() -> impl Strategy<Value = Target> {
    let ip = any::<IpAddr>().prop_map(|ip| ip.into());
    let name = name().prop_map(|name| name.parse().unwrap());
    let host_port = (prop_oneof![ip, name], 1u16..).prop_map(|(host, port)| HostPort::new(host, port).unwrap());
    prop_oneof![
        host_port.clone().prop_map(Target::Tcp),
        host_port.prop_map(Target::Udp),
        "(/[^/\\p{Cc}]{1,10}){1,2}".prop_filter_map("not in normal form", |path| Target::unix(&path).ok()),
    ]
}

/// DNS names of up to 255 bytes whose last label has a letter other than `x`.
pub(crate) fn name() -> impl Strategy<Value = String> {
    ("([a-zA-Z0-9_-]{1,63}\\.){0,3}", "[a-w]{1,62}", "\\.?")
        .prop_map(|(labels, last, dot)| format!("{labels}{last}{dot}"))
        .prop_filter("too long", |name| name.len() <= 255)
}

fn client() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| (ip.to_canonical(), port).into())
}

fn trace() -> impl Strategy<Value = TraceContext> {
    (
        "[0-9a-f]{31}[1-9a-f]",
        "[0-9a-f]{15}[1-9a-f]",
        "[0-9a-f]{2}",
        "[ -~]{0,60}",
    )
        .prop_map(|(trace, span, flags, state)| {
            TraceContext::new(&format!("00-{trace}-{span}-{flags}"), &state).unwrap()
        })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let entry = prop_oneof![
        9 => ("[!-~]{1,20}", "\\P{Cc}{0,20}"),
        1 => ("[!-~]{120,128}", "\\P{Cc}{1300,1365}"),
    ];
    vec(entry, 0..=Metadata::MAX_ENTRIES).prop_map(|entries| {
        let mut metadata = Metadata::default();
        for (name, value) in entries {
            let _ = metadata.push(&name, &value);
        }
        metadata
    })
}

pub(crate) fn head() -> impl Strategy<Value = StreamHead> {
    (
        target(),
        option::of(client()),
        option::of(millis()),
        option::of(trace()),
        metadata(),
    )
        .prop_map(|(target, client, deadline, trace, metadata)| {
            let mut head = StreamHead::new(target);
            head.client = client;
            head.deadline = deadline;
            head.trace = trace;
            head.metadata = metadata;
            head
        })
}

fn answer() -> impl Strategy<Value = Answer> {
    let kind = proptest::sample::select(RefusalKind::ALL);
    prop_oneof![
        1 => Just(Answer::Accepted),
        4 => (kind, text()).prop_map(|(kind, text)| Answer::Refused(Refusal::new(kind, text))),
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    let entry = prop_oneof![
        4 => ("[a-z./-]{1,20}", "[!-+.-<>-~]{0,20}"),
        1 => ("[a-z]{300,317}", "[a-z]{240,253}"),
    ];
    vec(entry, 0..=Labels::MAX_ENTRIES).prop_map(|entries| {
        let mut labels = Labels::default();
        for (name, value) in entries {
            assert!(labels.insert(&name, &value));
        }
        labels
    })
}

fn capabilities() -> impl Strategy<Value = CapabilityNames> {
    vec("[!-~]{1,64}", 0..=CapabilityNames::MAX_ENTRIES).prop_map(|entries| {
        let mut names = CapabilityNames::default();
        for name in entries {
            names.insert(&name);
        }
        names
    })
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9_.:-]{1,20}", "[a-zA-Z0-9_.:-]{250,253}"]
}

fn claim() -> impl Strategy<Value = Claim> {
    let secret = prop_oneof![
        4 => vec(any::<u8>(), 1..40),
        1 => any::<u8>().prop_map(|byte| vec![byte; Secret::MAX]),
    ]
    .prop_map(|bytes| Secret::new(bytes).unwrap());
    (id(), any::<u64>(), labels(), text(), capabilities(), option::of(secret)).prop_map(
        |(id, generation, labels, software, capabilities, credential)| {
            let mut claim = Claim::new(id.parse().unwrap(), Generation(generation));
            claim.labels = labels;
            claim.software = software;
            claim.capabilities = capabilities;
            claim.credential = credential;
            claim
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let at_least_one = || millis().prop_map(|millis| millis.max(Duration::from_millis(1)));
    let keepalive = (at_least_one(), at_least_one()).prop_map(|(interval, timeout)| Keepalive { interval, timeout });
    (id(), 1u32.., any::<u32>(), keepalive, text(), capabilities()).prop_map(
        |(id, count, max_streams, keepalive, software, capabilities)| {
            let mut welcome = Welcome::new(id.parse().unwrap());
            welcome.server_count = count;
            welcome.limits.max_streams = max_streams;
            welcome.keepalive = keepalive;
            welcome.software = software;
            welcome.capabilities = capabilities;
            welcome
        },
    )
}

fn rejection() -> impl Strategy<Value = Rejection> {
    (close_code(), text(), option::of(millis())).prop_map(|(code, text, not_before)| {
        let mut rejection = Rejection::new(code, text);
        rejection.not_before = not_before;
        rejection
    })
}

fn close_code() -> impl Strategy<Value = CloseCode> {
    prop_oneof![
        proptest::sample::select(CloseCode::NAMED),
        integer().prop_map(CloseCode::new),
    ]
}

/// Integers of every length.
fn integer() -> impl Strategy<Value = VarInt> {
    (0u32..=62, any::<u64>()).prop_map(|(bits, value)| VarInt::try_from(value & !(u64::MAX << bits)).unwrap())
}

fn stream_id() -> impl Strategy<Value = StreamId> {
    let side = proptest::sample::select(&[Side::Agent, Side::Server]);
    (side, integer()).prop_map(|(side, index)| StreamId::new(side, index.into_inner()))
}

fn hello() -> impl Strategy<Value = Hello> {
    let integer = || integer().prop_map(VarInt::into_inner);
    (integer(), integer(), integer()).prop_map(|(streams, stream, all)| Hello::new(streams, stream, all))
}

/// Frames of a link.
pub(crate) fn link_frame() -> impl Strategy<Value = Frame> {
    let code = || integer().prop_map(StreamCode::new);
    let payload = || vec(any::<u8>(), 0..100);
    prop_oneof![
        hello().prop_map(Frame::Hello),
        (stream_id(), head()).prop_map(|(id, head)| Frame::Open { id, head }),
        (stream_id(), answer()).prop_map(|(id, answer)| Frame::Answer { id, answer }),
        (stream_id(), payload(), any::<bool>()).prop_map(|(id, payload, fin)| {
            let payload = payload.into();
            Frame::Data { id, payload, fin }
        }),
        (stream_id(), code()).prop_map(|(id, code)| Frame::Reset { id, code }),
        (stream_id(), code()).prop_map(|(id, code)| Frame::Stop { id, code }),
        (stream_id(), integer()).prop_map(|(id, offset)| Frame::MaxStreamData { id, offset }),
        integer().prop_map(|offset| Frame::MaxData { offset }),
        integer().prop_map(|count| {
            let count = VarInt::saturating_from_u64(count.into_inner().min(StreamId::MAX_COUNT));
            Frame::MaxStreams { count }
        }),
        any::<[u8; 8]>().prop_map(Frame::Ping),
        any::<[u8; 8]>().prop_map(Frame::Pong),
        text().prop_map(|text| Frame::Drain(Drain::new(text))),
        (close_code(), text()).prop_map(|(code, text)| Frame::Close { code, text }),
    ]
}
