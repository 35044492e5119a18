//! Values that laws use.

#![expect(clippy::expect_used, reason = "constants that are known to be valid")]

use tunnel_core::{AgentId, Claim, Generation, Secret, ServerId, StreamHead, Target};

/// What proves the claim of [`claim`].
pub(super) const CREDENTIAL: &str = "open sesame";

/// A head that can be told from others, by a name that a host may have.
pub(super) fn head(name: &str) -> StreamHead {
    let mut head = StreamHead::new(target(&format!("{name}{DOMAIN}:443")));
    assert!(head.metadata.push("name", name), "a short name fits");
    head
}

/// The name in a head made by [`head`]. It is that of the target, which is what every carrier carries.
pub(super) fn name(head: &StreamHead) -> String {
    let host = head.target.host_port().map(|server| server.host().to_string());
    let name = host.as_deref().and_then(|host| host.strip_suffix(DOMAIN));
    name.unwrap_or_default().to_owned()
}

const DOMAIN: &str = ".target.test";

/// A target, as `tcp://host:port` or without the scheme.
pub(super) fn target(text: &str) -> Target {
    let parsed = text.parse().or_else(|_| Target::from_authority(text));
    parsed.expect("a valid target")
}

/// A claim with something in every field.
pub(super) fn claim() -> Claim {
    let agent: AgentId = "agent-7".parse().expect("a valid id");
    let mut claim = Claim::new(agent, Generation(7));
    claim.credential = Some(Secret::new(CREDENTIAL).expect("a valid secret"));
    claim.software = "conformance/1".into();
    assert!(claim.labels.insert("zone", "north"), "a short label fits");
    assert!(claim.capabilities.insert("testing"), "a short name fits");
    claim
}

/// The server's name.
pub(super) fn server_id() -> ServerId {
    "server-3".parse().expect("a valid id")
}
