//! What an agent says of itself when it connects.

use std::{collections::BTreeMap, fmt};

use crate::{
    AgentId, CapabilityNames, FrameKind, PROTOCOL_VERSIONS, Secret, Text,
    field::{FieldWriter, Fields, Problem, once, required},
    message::{Body, BodyError, offered_versions},
};

/// What an agent says of itself when it connects (`docs/wire.md` §3.1). Nothing in it is true until the server
/// has checked it against the verified identity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// The agent's name, unique among the agents of one identity domain.
    pub agent: AgentId,
    /// Which life of the agent this is; a higher one of the same identity takes over from a lower one.
    pub generation: Generation,
    /// Names and values that routing may select by.
    pub labels: Labels,
    /// The version of the agent's software, for people.
    pub software: Text,
    /// Optional abilities of the agent.
    pub capabilities: CapabilityNames,
    /// What proves the claim when no certificate does, for example a bearer token.
    pub credential: Option<Secret>,
}

impl Claim {
    /// A claim without labels, capabilities or credential.
    #[must_use]
    pub fn new(agent: AgentId, generation: Generation) -> Self {
        Self {
            agent,
            generation,
            labels: Labels::default(),
            software: Text::default(),
            capabilities: CapabilityNames::default(),
            credential: None,
        }
    }
}

/// Which life of an agent a connection belongs to. Higher is newer; a process takes the time of its start in
/// milliseconds since the Unix epoch unless it knows better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An agent's labels, sorted by name.
///
/// At most [`Labels::MAX_ENTRIES`], with names of 1 to [`Labels::MAX_NAME`] and values of at most
/// [`Labels::MAX_VALUE`] bytes of visible ASCII other than `,` and `=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The largest number of labels.
    pub const MAX_ENTRIES: usize = 64;
    /// The longest name, in bytes.
    pub const MAX_NAME: usize = 317;
    /// The longest value, in bytes.
    pub const MAX_VALUE: usize = 253;

    /// Adds a label or changes its value; gives `false` and leaves the labels as they are when a limit would be
    /// passed or a character is not allowed.
    #[must_use]
    pub fn insert(&mut self, name: &str, value: &str) -> bool {
        let known = self.0.contains_key(name);
        let fits = is_label(name, value) && (known || self.0.len() < Self::MAX_ENTRIES);
        if fits {
            self.0.insert(name.to_owned(), value.to_owned());
        }
        fits
    }

    /// Adds a label that must not be there yet.
    fn add(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        if self.0.contains_key(name) {
            return Err(Problem::Twice);
        }
        if self.insert(name, value) {
            Ok(())
        } else if is_label(name, value) {
            Err(Problem::TooMany)
        } else {
            Err(Problem::NotA("a label"))
        }
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The labels, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether every label of `wanted` is here with the same value.
    #[must_use]
    pub fn contains_all(&self, wanted: &Self) -> bool {
        wanted.iter().all(|(name, value)| self.get(name) == Some(value))
    }

    /// The number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_label(name: &str, value: &str) -> bool {
    let allowed = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b'=')
    };
    (1..=Labels::MAX_NAME).contains(&name.len()) && value.len() <= Labels::MAX_VALUE && allowed(name) && allowed(value)
}

const VERSIONS: u64 = 1;
const AGENT: u64 = 2;
const GENERATION: u64 = 3;
const SOFTWARE: u64 = 4;
const LABEL: u64 = 5;
const CAPABILITY: u64 = 6;
const CREDENTIAL: u64 = 7;

impl Body for Claim {
    const KIND: FrameKind = FrameKind::Claim;
    const FIELDS: &'static [(u64, &'static str)] = &[
        (VERSIONS, "versions"),
        (AGENT, "agent"),
        (GENERATION, "generation"),
        (SOFTWARE, "software"),
        (LABEL, "label"),
        (CAPABILITY, "capability"),
        (CREDENTIAL, "credential"),
    ];

    fn write(&self, out: &mut FieldWriter) {
        out.integers(VERSIONS, PROTOCOL_VERSIONS);
        out.text(AGENT, self.agent.as_str());
        out.bytes(GENERATION, &self.generation.0.to_be_bytes());
        out.text_if_any(SOFTWARE, self.software.as_str());
        for (name, value) in self.labels.iter() {
            out.pair(LABEL, name, value);
        }
        for name in self.capabilities.iter() {
            out.text(CAPABILITY, name);
        }
        if let Some(credential) = &self.credential {
            out.bytes(CREDENTIAL, credential.expose());
        }
    }

    fn read(fields: Fields<'_>) -> Result<Self, BodyError> {
        offered_versions(fields, VERSIONS)?;
        let (mut versions, mut agent, mut generation) = (None, None, None);
        let (mut software, mut credential) = (None, None);
        let mut labels = Labels::default();
        let mut capabilities = CapabilityNames::default();
        fields.each(|id, value| match id {
            VERSIONS => once(&mut versions, ()),
            AGENT => once(&mut agent, value.text(AgentId::MAX)?.parse()?),
            GENERATION => {
                let bytes = value.bytes(8)?.try_into();
                let bytes = bytes.map_err(|_| Problem::NotA("eight bytes"))?;
                once(&mut generation, Generation(u64::from_be_bytes(bytes)))
            }
            SOFTWARE => once(&mut software, Text::new(value.text(Text::MAX)?)),
            LABEL => {
                let (name, value) = value.pair(Labels::MAX_NAME, Labels::MAX_VALUE)?;
                labels.add(name, value)
            }
            CAPABILITY => capabilities.add(value.text(CapabilityNames::MAX_NAME)?),
            CREDENTIAL => once(&mut credential, Secret::new(value.bytes(Secret::MAX)?)?),
            _ => Ok(()),
        })?;
        Ok(Self {
            agent: required(AGENT, agent)?,
            generation: required(GENERATION, generation)?,
            labels,
            software: software.unwrap_or_default(),
            capabilities,
            credential,
        })
    }
}
