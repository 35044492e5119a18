//! What confirms or refuses a stream.

use std::fmt;

use crate::{
    FrameKind, Text, VarInt,
    field::{FieldError, FieldWriter, Fields, Problem, once, required},
    message::{Body, BodyError},
};

/// What confirms or refuses a stream (`docs/wire.md` §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The target was reached; bytes may flow.
    Accepted,
    /// The stream was not opened, and why.
    Refused(Refusal),
}

/// A typed reason why a stream was not opened, with a text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({kind})")]
pub struct Refusal {
    /// The type of the failure.
    pub kind: RefusalKind,
    /// One sentence that says what failed, without secrets; it reaches the client.
    pub text: Text,
}

impl Refusal {
    /// Makes a refusal.
    #[must_use]
    pub fn new(kind: RefusalKind, text: impl Into<Text>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

/// Makes the refusal kinds of a table: number, variant, registered name, recommended status, meaning.
macro_rules! refusal_kinds {
    ($( $value:literal $variant:ident $name:literal $status:literal $meaning:literal; )*) => {
        /// The type of a refusal: the proxy error types of RFC 9209 §2.3 that can end the opening of a stream.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum RefusalKind {
            $( #[doc = concat!($meaning, ".")] $variant, )*
        }

        impl RefusalKind {
            /// Every kind, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The number on the wire (`docs/wire.md` §4.3).
            #[must_use]
            pub const fn value(self) -> u32 {
                match self { $( Self::$variant => $value, )* }
            }

            /// The kind with this number. A number that this version does not know reads as
            /// [`RefusalKind::ProxyInternalError`], so that newer peers can add kinds.
            #[must_use]
            pub const fn from_value(value: u64) -> Self {
                match value {
                    $( $value => Self::$variant, )*
                    _ => Self::ProxyInternalError,
                }
            }

            /// The registered name, as it stands in `Proxy-Status` and on metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// The HTTP status code that RFC 9209 recommends for it.
            #[must_use]
            pub const fn recommended_status(self) -> u16 {
                match self { $( Self::$variant => $status, )* }
            }
        }
    };
}

refusal_kinds! {
    0x00 ProxyInternalError "proxy_internal_error" 500 "The server or the agent failed in itself";
    0x01 DnsTimeout "dns_timeout" 504 "The target's name was not resolved in time";
    0x02 DnsError "dns_error" 502 "The target's name could not be resolved";
    0x03 DestinationNotFound "destination_not_found" 500 "Nothing is known by the name of the target or the agent";
    0x04 DestinationUnavailable "destination_unavailable" 503 "No agent, or no target, can take the stream now";
    0x05 DestinationIpProhibited "destination_ip_prohibited" 502 "The agent's policy forbids the target";
    0x06 DestinationIpUnroutable "destination_ip_unroutable" 502 "The agent has no route to the target";
    0x07 ConnectionRefused "connection_refused" 502 "The target refused the connection";
    0x08 ConnectionTerminated "connection_terminated" 502 "The connection ended before the answer";
    0x09 ConnectionTimeout "connection_timeout" 504 "The target did not accept in time";
    0x0a ConnectionLimitReached "connection_limit_reached" 503 "A limit on streams or connections was reached";
    0x0b HttpRequestError "http_request_error" 400 "The request was malformed or cannot be served in this form";
    0x0c HttpRequestDenied "http_request_denied" 403 "The server's policy forbids the request";
    0x0d ProxyConfigurationError "proxy_configuration_error" 500 "The server or the agent is misconfigured";
    0x0e ProxyLoopDetected "proxy_loop_detected" 502 "The stream would come back to this tunnel";
}

impl RefusalKind {
    /// The HTTP status code with which a refusal of this kind is answered to those who do not speak the tunnel's own
    /// protocol: what RFC 9209 recommends, except that a target which policy forbids is 403 (the client can do something
    /// about it, the gateway is not bad) and an unknown agent or target is 404.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::DestinationIpProhibited => 403,
            Self::DestinationNotFound => 404,
            _ => self.recommended_status(),
        }
    }

    /// Whether the stream was certainly not delivered and another agent may do better.
    #[must_use]
    pub const fn is_retryable_elsewhere(self) -> bool {
        matches!(
            self,
            Self::ProxyInternalError
                | Self::DestinationUnavailable
                | Self::ConnectionTerminated
                | Self::ConnectionLimitReached
        )
    }
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const OUTCOME: u64 = 1;
const KIND: u64 = 2;
const TEXT: u64 = 3;

const ACCEPTED: u64 = 0;
const REFUSED: u64 = 1;

impl Body for Answer {
    const KIND: FrameKind = FrameKind::Answer;
    const FIELDS: &'static [(u64, &'static str)] = &[(OUTCOME, "outcome"), (KIND, "kind"), (TEXT, "text")];

    fn write(&self, out: &mut FieldWriter) {
        match self {
            Self::Accepted => out.integer(OUTCOME, VarInt::saturating_from_u64(ACCEPTED)),
            Self::Refused(refusal) => {
                out.integer(OUTCOME, VarInt::saturating_from_u64(REFUSED));
                out.integer(KIND, VarInt::from_u32(refusal.kind.value()));
                out.text_if_any(TEXT, refusal.text.as_str());
            }
        }
    }

    fn read(fields: Fields<'_>) -> Result<Self, BodyError> {
        let (mut outcome, mut kind, mut text) = (None, None, None);
        fields.each(|id, value| match id {
            OUTCOME => once(&mut outcome, value.integer()?.into_inner()),
            KIND => {
                let number = value.integer()?.into_inner();
                once(&mut kind, RefusalKind::from_value(number))
            }
            TEXT => once(&mut text, Text::new(value.text(Text::MAX)?)),
            _ => Ok(()),
        })?;
        match required(OUTCOME, outcome)? {
            ACCEPTED => Ok(Self::Accepted),
            REFUSED => Ok(Self::Refused(Refusal {
                kind: required(KIND, kind)?,
                text: text.unwrap_or_default(),
            })),
            other => Err(FieldError::new(OUTCOME, Problem::OutOfRange(other)).into()),
        }
    }
}
