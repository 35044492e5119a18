//! The values inside the messages: what they take, and what they refuse.

use proptest::{collection::vec, prelude::*};
use tunnel_proto::{
    AgentId, CapabilityNames, InvalidTraceContext, Labels, Metadata, Refusal, RefusalKind, Text, TraceContext,
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn a_trace_context_is_of_version_00_and_complete() {
    let context = TraceContext::new(PARENT, "a=1, b=2\t").unwrap();
    assert_eq!((context.parent(), context.state()), (PARENT, "a=1, b=2\t"));
    assert_eq!(PARENT.parse::<TraceContext>().unwrap().state(), "");
    for parent in [
        "",
        &PARENT.replacen("00", "01", 1),
        &PARENT.replacen("00", "ff", 1),
        &PARENT.to_uppercase(),
        &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
        &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
        &format!("{PARENT}-00"),
        &format!("{PARENT} "),
        &PARENT[..54],
        &PARENT.replace('-', "_"),
        &PARENT.replace('a', "g"),
    ] {
        assert_eq!(TraceContext::new(parent, ""), Err(InvalidTraceContext), "{parent}");
    }
    for state in ["a=\u{e9}", "a\r\nb", "a\0", &"x".repeat(513)] {
        assert_eq!(TraceContext::new(PARENT, state), Err(InvalidTraceContext), "{state}");
    }
    assert!(TraceContext::new(PARENT, &"x".repeat(512)).is_ok());
}

#[test]
fn metadata_fits_into_header_fields() {
    let mut metadata = Metadata::default();
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("é", "x"),
        ("a", "x\ny"),
        ("a", "\u{7f}"),
        ("a", "\u{85}"),
    ] {
        assert!(!metadata.push(name, value), "{name:?} {value:?}");
    }
    assert!(!metadata.push(&"n".repeat(129), ""));
    assert!(!metadata.push("n", &"v".repeat(4097)));
    assert!(metadata.is_empty());

    assert!(metadata.push("a", "1") && metadata.push("b", "é") && metadata.push("a", "2"));
    assert_eq!(
        metadata.iter().collect::<Vec<_>>(),
        [("a", "1"), ("b", "é"), ("a", "2")]
    );
    assert_eq!((metadata.get("a"), metadata.get("c")), (Some("1"), None));
    assert_eq!(metadata.len(), 3);
}

#[test]
fn labels_are_changed_within_their_limits() {
    let mut labels = Labels::default();
    for (name, value) in [
        ("", "x"),
        ("a=b", "x"),
        ("a,b", "x"),
        ("a b", "x"),
        ("a", "é"),
        ("a", "x,y"),
        ("a", "="),
    ] {
        assert!(!labels.insert(name, value), "{name:?} {value:?}");
    }
    for number in 0..Labels::MAX_ENTRIES {
        assert!(labels.insert(&format!("l{number}"), "old"));
    }
    assert!(!labels.insert("one-more", ""));
    assert!(
        labels.insert("l7", "new"),
        "a label that is there can be changed when there are enough"
    );
    assert_eq!((labels.get("l7"), labels.len()), (Some("new"), Labels::MAX_ENTRIES));
}

#[test]
fn labels_are_selected_by_name_and_value() {
    let labels = |pairs: &[(&str, &str)]| {
        let mut labels = Labels::default();
        assert!(pairs.iter().all(|(name, value)| labels.insert(name, value)));
        labels
    };
    let all = labels(&[("zone", "eu"), ("rack", "b2")]);
    assert!(all.contains_all(&labels(&[])));
    assert!(all.contains_all(&labels(&[("rack", "b2")])));
    assert!(!all.contains_all(&labels(&[("rack", "b3")])));
    assert!(!all.contains_all(&labels(&[("rack", "b2"), ("row", "")])));
}

#[test]
fn capabilities_are_a_set() {
    let mut names = CapabilityNames::default();
    assert!(names.insert("b") && names.insert("a"));
    assert!(!names.insert("a") && !names.insert("") && !names.insert("a b"));
    assert_eq!(names.iter().collect::<Vec<_>>(), ["a", "b"]);
    assert!(names.contains("a") && !names.contains("c"));
}

#[test]
fn ids_fit_into_headers_and_logs() {
    for id in ["a", "node-7.example", "system:node:x_1", &"x".repeat(253)] {
        assert_eq!(id.parse::<AgentId>().unwrap().as_str(), id);
    }
    for id in ["", "a b", "a/b", "é", "a\n", "a,b", &"x".repeat(254)] {
        assert!(id.parse::<AgentId>().is_err(), "{id}");
    }
}

#[test]
fn the_kinds_of_refusal_are_those_of_their_numbers_and_names() {
    for (number, kind) in (0u32..).zip(RefusalKind::ALL) {
        assert_eq!(kind.value(), number);
        assert_eq!(RefusalKind::from_value(number.into()), *kind);
        assert_eq!(kind.to_string(), kind.name());
        assert!((400..600).contains(&kind.recommended_status()));
    }
    let names: std::collections::HashSet<_> = RefusalKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), RefusalKind::ALL.len());
    assert_eq!(RefusalKind::from_value(1 << 40), RefusalKind::ProxyInternalError);
    let refusal = Refusal::new(RefusalKind::DnsError, "no such host");
    assert_eq!(refusal.to_string(), "no such host (dns_error)");
}

proptest! {
    #[test]
    fn a_text_is_short_printable_and_stays_as_it_is(text in any::<String>(), repeat in 1usize..100) {
        let text = Text::new(&text.repeat(repeat));
        prop_assert!(text.as_str().len() <= Text::MAX);
        prop_assert!(!text.as_str().contains(char::is_control));
        prop_assert_eq!(Text::new(text.as_str()), text);
    }

    #[test]
    fn metadata_never_passes_its_limits(sizes in vec((1usize..140, 0usize..4200), 0..80)) {
        let mut metadata = Metadata::default();
        let mut bytes = 0;
        for (name, value) in sizes {
            if metadata.push(&"n".repeat(name), &"v".repeat(value)) {
                bytes += name + value;
            } else {
                let full = metadata.len() == Metadata::MAX_ENTRIES || bytes + name + value > Metadata::MAX_BYTES;
                prop_assert!(full || name > Metadata::MAX_NAME || value > Metadata::MAX_VALUE);
            }
        }
        prop_assert!(metadata.len() <= Metadata::MAX_ENTRIES && bytes <= Metadata::MAX_BYTES);
    }
}
