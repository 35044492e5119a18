//! Every message that is not as the document says is refused, with an error that names the frame and the field.

use std::error::Error;

use bytes::Bytes;
use tunnel_proto::{
    CloseCode, Frame, FrameError, FrameKind, InvalidTarget, MalformedFrame, Message, PROTOCOL_VERSIONS, Problem,
};

use crate::{
    checks,
    document::{golden_files, table},
    parts::{Field, content, put_together, take_apart},
};

/// The golden message of a kind that has the most fields, and the heading of its table.
const FULL: &[(&str, &str)] = &[
    ("claim", "### 3.1 CLAIM"),
    ("welcome", "### 3.2 WELCOME"),
    ("rejection", "### 3.3 REJECTION"),
    ("drain", "### 3.4 DRAIN"),
    ("head", "### 4.1 HEAD"),
    ("answer-refused", "### 4.2 ANSWER"),
    ("link-hello", "#### HELLO"),
    ("link-close", "#### CLOSE"),
];

fn golden(name: &str) -> (FrameKind, Vec<Field>) {
    take_apart(&golden_files()[name])
}

/// What is wrong with this message, and in which field.
fn problem(kind: FrameKind, fields: &[Field]) -> (Option<&'static str>, Problem) {
    match content(&put_together(kind, fields)) {
        Err(FrameError::Malformed(MalformedFrame {
            kind: named,
            field,
            problem,
            ..
        })) => {
            assert_eq!(named, kind);
            (field, problem)
        }
        other => panic!("{other:?}"),
    }
}

/// What is wrong with the message once a field has another value.
fn replaced(name: &str, id: u64, value: &[u8]) -> (Option<&'static str>, Problem) {
    let (kind, mut fields) = golden(name);
    fields.retain(|(known, _)| *known != id);
    fields.push((id, value.to_vec()));
    problem(kind, &fields)
}

#[test]
fn the_fields_are_those_of_the_document() {
    for (name, heading) in FULL {
        let (kind, fields) = golden(name);
        let rows = table(heading);
        for (id, row) in (1u64..).zip(&rows) {
            let [number, field, occurrence, _] = &row[..] else {
                panic!("{row:?}")
            };
            assert_eq!(number, &format!("{id:#04x}"));
            assert!(fields.iter().any(|(known, _)| *known == id), "{name} lacks {field}");

            // A byte that is no integer, text or pair. What takes arbitrary bytes stands there twice with it.
            let mut spoilt = fields.clone();
            spoilt.push((id, vec![0xff]));
            assert_eq!(problem(kind, &spoilt).0, Some(&field[..]), "{name}");

            let mut without = fields.clone();
            without.retain(|(known, _)| *known != id);
            // Two of the optional fields are needed by others that are there.
            if occurrence == "1" || ["traceparent", "kind"].contains(&&field[..]) {
                let (missing, problem) = problem(kind, &without);
                assert_eq!((missing, problem), (Some(&field[..]), Problem::Missing), "{name}");
            } else {
                let message = content(&put_together(kind, &without));
                assert!(matches!(message, Ok(Some(_))), "{name} without {field}: {message:?}");
            }

            let mut doubled = fields.clone();
            doubled.extend(fields.iter().find(|(known, _)| *known == id).cloned());
            match (&occurrence[..], content(&put_together(kind, &doubled))) {
                ("1" | "?", Err(FrameError::Malformed(error))) => assert_eq!(error.problem, Problem::Twice),
                ("\\*", Err(FrameError::Malformed(error))) if field != "metadata" => {
                    assert_eq!(error.problem, Problem::Twice);
                }
                ("\\*", Ok(Some(_))) if field == "metadata" => {}
                (_, other) => panic!("{name} with {field} twice: {other:?}"),
            }
        }
        for id in rows.len() as u64 + 1..70 {
            let mut more = fields.clone();
            more.push((id, vec![0xff]));
            let expected = content(&put_together(kind, &fields));
            assert_eq!(
                content(&put_together(kind, &more)),
                expected,
                "{name} with field {id:#x}"
            );
        }
    }
}

#[test]
fn values_keep_to_their_limits() {
    let long = |len: usize| vec![b'x'; len];
    let too_long = |field, len, limit| (Some(field), Problem::TooLong { len, limit });
    assert_eq!(replaced("claim", 2, &long(254)), too_long("agent", 254, 253));
    assert_eq!(replaced("claim", 4, &long(1025)), too_long("software", 1025, 1024));
    assert_eq!(replaced("claim", 6, &long(65)), too_long("capability", 65, 64));
    assert_eq!(
        replaced("claim", 7, &long(16_385)),
        too_long("credential", 16_385, 16_384)
    );
    assert_eq!(replaced("head", 1, &long(268)), too_long("target", 268, 267));
    assert_eq!(replaced("head", 2, &long(19)), too_long("client", 19, 18));
    assert_eq!(replaced("head", 4, &long(56)), too_long("traceparent", 56, 55));
    assert_eq!(replaced("head", 5, &long(513)), too_long("tracestate", 513, 512));
    assert_eq!(replaced("drain", 1, &long(1025)), too_long("text", 1025, 1024));
    assert_eq!(replaced("link-close", 2, &long(1025)), too_long("text", 1025, 1024));
    assert_eq!(
        replaced("link-hello", 1, &[0xd0, 0, 0, 0, 0, 0, 0, 1]),
        (Some("max_streams"), Problem::OutOfRange((1 << 60) + 1))
    );
    assert_eq!(
        replaced("welcome", 3, &[0]),
        (Some("server_count"), Problem::OutOfRange(0))
    );
    assert_eq!(
        replaced("welcome", 5, &[0]),
        (Some("keepalive_interval"), Problem::OutOfRange(0))
    );
    assert_eq!(
        replaced("welcome", 4, &[0xc0, 0, 0, 1, 0, 0, 0, 0]),
        (Some("max_streams"), Problem::OutOfRange(1 << 32))
    );
    assert_eq!(
        replaced("answer-refused", 1, &[2]),
        (Some("outcome"), Problem::OutOfRange(2))
    );
}

#[test]
fn values_have_their_forms() {
    let not_a = |field, what| (Some(field), Problem::NotA(what));
    assert_eq!(replaced("claim", 3, &[0; 7]), not_a("generation", "eight bytes"));
    assert_eq!(replaced("claim", 5, b"\x00value"), not_a("label", "a label"));
    assert_eq!(replaced("claim", 5, b"\x04na=e"), not_a("label", "a label"));
    assert_eq!(replaced("claim", 5, b"\x05name"), not_a("label", "a name and a value"));
    assert_eq!(
        replaced("claim", 6, b""),
        not_a("capability", "the name of a capability")
    );
    assert_eq!(replaced("head", 2, &[0; 17]), not_a("client", "an address and a port"));
    assert_eq!(replaced("head", 2, &[]), not_a("client", "an address and a port"));
    assert_eq!(
        replaced("head", 6, b"\x04namea\r\nb"),
        not_a("metadata", "a metadata entry")
    );
    assert_eq!(replaced("head", 6, b"\x04n me"), not_a("metadata", "a metadata entry"));
    assert_eq!(
        replaced("head", 3, b"\x00\x00"),
        (Some("deadline"), Problem::NotAnInteger)
    );
    assert_eq!(replaced("head", 3, b""), (Some("deadline"), Problem::NotAnInteger));
    assert_eq!(replaced("drain", 1, b"\xc3"), (Some("text"), Problem::NotUtf8));
    assert!(matches!(replaced("claim", 2, b"a/b"), (Some("agent"), Problem::Id(_))));
    assert!(matches!(
        replaced("claim", 7, b""),
        (Some("credential"), Problem::Secret(_))
    ));
    assert!(matches!(
        replaced("head", 4, &[b'0'; 55]),
        (Some("traceparent"), Problem::TraceContext(_))
    ));
    let port_zero = InvalidTarget::Port;
    assert_eq!(
        replaced("head", 1, b"tcp://a.example:0"),
        (Some("target"), Problem::Target(port_zero))
    );
}

#[test]
fn repeated_fields_are_counted() {
    let numbered = |prefix: &str, number: usize| format!("{prefix}{number}").into_bytes();
    for (name, id, prefix, limit) in [
        ("claim", 5, "\x03l", 64usize),
        ("claim", 6, "c", 32),
        ("welcome", 8, "c", 32),
        ("head", 6, "\x01m", 64),
    ] {
        let (kind, mut fields) = golden(name);
        fields.retain(|(known, _)| *known != id);
        fields.extend((0..limit).map(|n| (id, numbered(prefix, 10 + n))));
        assert!(put_together(kind, &fields).message().is_ok(), "{name} {id}");
        fields.push((id, numbered(prefix, 10 + limit)));
        assert_eq!(problem(kind, &fields).1, Problem::TooMany, "{name} {id}");
    }

    let (kind, mut fields) = golden("head-minimal");
    let entry = [b"\x01n", &[b'v'; 4095][..]].concat();
    fields.extend(vec![(6, entry); 3]);
    assert!(put_together(kind, &fields).message().is_ok());
    fields.push((6, b"\x01n".to_vec()));
    assert_eq!(problem(kind, &fields), (Some("metadata"), Problem::TooMany));
}

#[test]
fn a_body_ends_with_its_last_field() {
    let (kind, fields) = golden("drain");
    let body = put_together(kind, &fields).body;
    let cut = |len: usize| {
        Frame {
            kind,
            body: body.slice(..len),
        }
        .message()
    };
    assert_eq!(
        cut(1).unwrap_err().to_string(),
        "DRAIN frame, field text: the body ends inside the field"
    );
    assert_eq!(
        cut(5).unwrap_err().to_string(),
        "DRAIN frame, field text: the body ends inside the field"
    );
    let body = Bytes::from_static(b"\x40");
    let error = Frame { kind, body }.message().unwrap_err();
    assert_eq!(error.to_string(), "DRAIN frame: the body ends inside the field");
    let body = Bytes::from_static(b"\x20\x01");
    let error = Frame { kind, body }.message().unwrap_err();
    assert_eq!(
        error.to_string(),
        "DRAIN frame, field unknown: the body ends inside the field"
    );
}

#[test]
fn an_error_tells_one_level_and_keeps_the_rest() {
    let (kind, _) = golden("head");
    let error = put_together(kind, &[(1, b"tcp://a.example:0".to_vec())])
        .message()
        .unwrap_err();
    assert_eq!(error.close_code(), CloseCode::PROTOCOL);
    assert_eq!(error.to_string(), "HEAD frame, field target: is not a target");
    assert_eq!(
        error.source().map(ToString::to_string),
        Some(InvalidTarget::Port.to_string())
    );
}

#[test]
fn versions_are_read_before_anything_else() {
    for name in ["claim", "welcome"] {
        let (kind, mut fields) = golden(name);
        // A version that may have changed every other field.
        for (id, value) in &mut fields {
            *value = if *id == 1 { vec![2] } else { vec![0xff] };
        }
        fields.reverse();
        let error = put_together(kind, &fields).message().unwrap_err();
        assert_eq!(error, FrameError::Version { offered: vec![2] });
        assert_eq!(error.close_code(), CloseCode::VERSION);
        assert_eq!(
            error.to_string(),
            "the peer offers protocol versions [2]; this end speaks [1]"
        );
    }
    assert_eq!(PROTOCOL_VERSIONS, [1]);
}

#[test]
fn a_list_of_versions_is_neither_empty_nor_endless() {
    assert_eq!(replaced("claim", 1, &[]), (Some("versions"), Problem::NotAnInteger));
    assert_eq!(replaced("claim", 1, &[1; 17]), (Some("versions"), Problem::TooMany));
    assert_eq!(
        replaced("claim", 1, &[1, 0x40]),
        (Some("versions"), Problem::NotAnInteger)
    );
    assert_eq!(
        replaced("welcome", 1, &[1, 1]),
        (Some("version"), Problem::NotAnInteger)
    );
    let (kind, mut fields) = golden("claim");
    fields[0].1 = [&[2; 15][..], &[1]].concat();
    assert!(matches!(
        put_together(kind, &fields).message(),
        Ok(Some(Message::Claim(_)))
    ));
}

#[test]
fn a_frame_longer_than_its_kind_allows_is_refused_in_one_piece_too() {
    let kind = FrameKind::Drain;
    let body = vec![0; kind.max_body() + 1].into();
    let error = Frame { kind, body }.message().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the DRAIN frame announces 4097 bytes; at most 4096 are allowed"
    );
}

#[test]
fn credentials_do_not_show_in_debug_output() {
    let bytes = golden_files()["claim"].clone();
    let (messages, _) = checks::decode([&bytes[..]]);
    let (kind, fields) = golden("claim");
    let mut decoder = tunnel_proto::FrameDecoder::new();
    decoder.push(bytes.into());
    for text in [
        format!("{messages:?}"),
        format!("{:?}", put_together(kind, &fields)),
        format!("{decoder:?}"),
    ] {
        assert!(!text.contains("s3cr3t"), "{text}");
        assert!(!text.contains("115, 51, 99, 114"), "{text}");
    }
}
