//! Every message comes back from its bytes as it was.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use tunnel_proto::{
    Claim, Frame, FrameKind, Generation, Keepalive, Labels, Message, Metadata, Rejection, Secret, StreamHead, Target,
    TraceContext, VarInt, Welcome,
};

use crate::{
    checks,
    parts::{put_together, take_apart},
    strategies,
};

proptest! {
    #[test]
    fn a_message_comes_back_as_it_was(message in strategies::message()) {
        let encoded = message.encode();
        let (messages, end) = checks::decode([&encoded[..]]);
        prop_assert_eq!(messages, [message]);
        prop_assert_eq!(end, Ok(()));
    }

    #[test]
    fn fields_are_written_in_ascending_order(message in strategies::message()) {
        let (_, fields) = take_apart(&message.encode());
        prop_assert!(fields.is_sorted_by_key(|(id, _)| *id));
    }

    #[test]
    fn unknown_fields_anywhere_change_nothing(
        message in strategies::message(),
        unknown in vec((any::<prop::sample::Index>(), 9u64..1 << 62, vec(any::<u8>(), 0..40)), 1..8),
    ) {
        let (kind, mut fields) = take_apart(&message.encode());
        for (place, id, value) in unknown {
            fields.insert(place.index(fields.len() + 1), (id, value));
        }
        prop_assert_eq!(put_together(kind, &fields).message(), Ok(Some(message)));
    }

    #[test]
    fn fields_are_read_in_any_order(message in strategies::message()) {
        let (kind, mut fields) = take_apart(&message.encode());
        // A stable sort: repeated fields keep their order.
        fields.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
        prop_assert_eq!(put_together(kind, &fields).message(), Ok(Some(message)));
    }

    #[test]
    fn a_body_cut_anywhere_but_between_fields_is_an_error(
        message in strategies::message(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (kind, fields) = take_apart(&message.encode());
        let Frame { kind, body } = put_together(kind, &fields);
        prop_assume!(!body.is_empty());
        let cut = cut.index(body.len());
        let mut end = 0;
        let between = fields.iter().map(|field| {
            end += put_together(kind, std::slice::from_ref(field)).body.len();
            end
        });
        prop_assume!(cut != 0 && !between.collect::<Vec<_>>().contains(&cut));
        let body = body.slice(..cut);
        let read = Frame { kind, body }.message();
        prop_assert!(read.is_err(), "{read:?}");
    }

    #[test]
    fn arbitrary_bodies_are_read_or_refused(kind in 0u32..8, data in vec(any::<u8>(), 0..200)) {
        checks::body(FrameKind::from_value(VarInt::from_u32(kind)), &data);
    }
}

/// The largest of each message fits its frame with room to spare.
#[test]
fn the_largest_messages_fit() {
    let long = |len: usize| "x".repeat(len);
    let mut claim = Claim::new(long(253).parse().unwrap(), Generation(u64::MAX));
    for number in 0..Labels::MAX_ENTRIES {
        let name = format!("{number:0width$}", width = Labels::MAX_NAME);
        assert!(claim.labels.insert(&name, &long(Labels::MAX_VALUE)));
    }
    assert!(!claim.labels.insert("one-more", ""));
    for number in 0..32 {
        assert!(claim.capabilities.insert(&format!("{number:064}")));
    }
    assert!(!claim.capabilities.insert("one-more"));
    claim.software = long(2000).into();
    claim.credential = Some(Secret::new(vec![7; Secret::MAX]).unwrap());

    let host = format!("{0}.{0}.{0}.{1}", long(63), long(63));
    let mut head = StreamHead::new(Target::from_authority(&format!("{host}:65535")).unwrap());
    head.client = Some("[2001:db8::7]:65535".parse().unwrap());
    head.deadline = Some(Duration::MAX);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    head.trace = Some(TraceContext::new(parent, &long(TraceContext::MAX_STATE)).unwrap());
    let value = Metadata::MAX_BYTES / Metadata::MAX_ENTRIES - Metadata::MAX_NAME;
    for _ in 0..Metadata::MAX_ENTRIES {
        assert!(head.metadata.push(&long(Metadata::MAX_NAME), &long(value)));
    }
    assert!(!head.metadata.push("x", ""));

    let mut welcome = Welcome::new(long(253).parse().unwrap());
    welcome.capabilities = claim.capabilities.clone();
    welcome.software = claim.software.clone();

    for message in [Message::from(claim), head.into(), welcome.into()] {
        let kind = message.kind();
        let len = message.encode().len();
        assert!(len <= kind.max_body(), "{kind} has {len} bytes");
        let read = checks::decode([&message.encode()[..]]);
        assert_eq!(read.1, Ok(()));
        assert_eq!(read.0.len(), 1);
    }
}

#[test]
fn what_the_wire_cannot_carry_is_cut() {
    let mut head = StreamHead::new(Target::from_authority("a:1").unwrap());
    head.deadline = Some(Duration::from_micros(1999));
    head.client = Some("[::ffff:192.0.2.1]:9".parse().unwrap());
    let (_, fields) = take_apart(&head.encode());
    assert_eq!(fields[1], (2, vec![192, 0, 2, 1, 0, 9]));
    let Message::Head(read) = decoded(head) else {
        panic!("not a head")
    };
    assert_eq!(read.deadline, Some(Duration::from_millis(1)));
    assert_eq!(read.client, Some("192.0.2.1:9".parse().unwrap()));

    // A sender that does not know better may send the mapped form.
    let mapped = [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 1, 0, 9]].concat();
    let (kind, mut fields) = take_apart(&read.encode());
    fields[1].1 = mapped;
    assert_eq!(put_together(kind, &fields).message(), Ok(Some(read.into())));

    let mut welcome = Welcome::new("s".parse().unwrap());
    welcome.server_count = 0;
    welcome.keepalive = Keepalive {
        interval: Duration::ZERO,
        timeout: Duration::MAX,
    };
    let Message::Welcome(read) = decoded(welcome) else {
        panic!("not a welcome")
    };
    assert_eq!(read.server_count, 1);
    assert_eq!(read.keepalive.interval, Duration::from_millis(1));
    assert_eq!(read.keepalive.timeout, Duration::from_millis((1 << 62) - 1));

    let mut rejection = Rejection::new(tunnel_proto::CloseCode::OVERLOADED, "later");
    rejection.not_before = Some(Duration::ZERO);
    assert_eq!(decoded(rejection.clone()), rejection.into());
}

fn decoded(message: impl Into<Message>) -> Message {
    let encoded = message.into().encode();
    let (mut messages, end) = checks::decode([&encoded[..]]);
    assert_eq!((messages.len(), end), (1, Ok(())));
    messages.remove(0)
}
