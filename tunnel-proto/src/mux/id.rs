//! Which end, and which stream (`docs/wire.md` §9.3).

use std::fmt;

use crate::VarInt;

/// One of the two ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that dialled.
    Agent,
    /// The end that listened.
    Server,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Agent => Self::Server,
            Self::Server => Self::Agent,
        }
    }

    const fn bit(self) -> u64 {
        match self {
            Self::Agent => 0,
            Self::Server => 1,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Server => "server",
        })
    }
}

/// A stream of one connection: the lowest bit says who opened it, the rest counts that end's streams from zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(VarInt);

impl StreamId {
    /// How many streams each end can open on one connection.
    pub const MAX_COUNT: u64 = 1 << 60;

    /// The stream that `opener` opens after `index` others. Indices from [`Self::MAX_COUNT`] are cut to the last one.
    #[must_use]
    pub const fn new(opener: Side, index: u64) -> Self {
        let index = if index < Self::MAX_COUNT {
            index
        } else {
            Self::MAX_COUNT - 1
        };
        Self(VarInt::saturating_from_u64(index << 1 | opener.bit()))
    }

    /// The stream with this number on the wire.
    #[must_use]
    pub const fn from_value(value: VarInt) -> Self {
        Self(value)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn value(self) -> VarInt {
        self.0
    }

    /// Who opened it.
    #[must_use]
    pub const fn opener(self) -> Side {
        if self.0.into_inner() & 1 == 0 {
            Side::Agent
        } else {
            Side::Server
        }
    }

    /// How many streams the same end opened before it.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.0.into_inner() >> 1
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.into_inner().fmt(f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.opener(), self.index())
    }
}
