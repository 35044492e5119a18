//! The laws, by number.

use std::{fmt, future::Future, pin::Pin};

use tokio::time::timeout;

use super::{
    accounting, admission, buffering, bytes, cancellation, early, endings, fairness,
    harness::Harness,
    lifecycle, opening,
    seen::{Seen, Verdict},
};
use crate::Side;

/// The future of a law's verdict.
type Trial<'a> = Pin<Box<dyn Future<Output = Verdict> + 'a>>;

/// What every carrier holds to.
#[derive(Clone, Copy)]
pub struct Law {
    /// Its number, from 1.
    pub number: u8,
    /// What it says.
    pub text: &'static str,
    trial: for<'a> fn(&'a dyn Harness, Side) -> Trial<'a>,
}

impl fmt::Debug for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "law {}: {}", self.number, self.text)
    }
}

impl Law {
    /// Holds a carrier to the law, with `first` as the end that acts first: it opens, sends, drains.
    pub async fn check(&self, harness: &dyn Harness, first: Side) -> Result<(), LawViolation> {
        let verdict = match timeout(harness.patience(), (self.trial)(harness, first)).await {
            Ok(verdict) => verdict,
            Err(_elapsed) => Err(Seen(format!("it did not end within {:?}", harness.patience()))),
        };
        verdict.map_err(|Seen(seen)| LawViolation {
            number: self.number,
            text: self.text,
            first,
            seen,
        })
    }
}

/// A law that a carrier does not hold to.
#[derive(Clone)]
pub struct LawViolation {
    /// The law's number.
    pub number: u8,
    /// What the law says.
    pub text: &'static str,
    /// The end that acted first.
    pub first: Side,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for LawViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            text,
            first,
            seen,
        } = self;
        write!(
            f,
            "law {number} is broken ({text}); with the {first} acting first: {seen}"
        )
    }
}

/// As `Display`, because a test that returns it is reported that way.
impl fmt::Debug for LawViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for LawViolation {}

/// Makes the table of laws.
macro_rules! laws {
    ($( $number:literal $module:ident $function:ident $text:literal )*) => {
        /// Every law, in order.
        pub const LAWS: &[Law] = &[$(
            Law {
                number: $number,
                text: $text,
                trial: |harness, first| Box::pin($module::$function(harness, first)),
            },
        )*];
    };
}

laws! {
    1 opening law_01_head_and_answer
        "the head arrives unchanged; the answer or the refusal's kind and text come back"
    2 bytes law_02_whole_and_in_order
        "bytes arrive whole and in order, whatever their number and however they are cut"
    3 bytes law_03_finish_implies_flush
        "finish implies flush: the reader sees every byte, then the clean end"
    4 bytes law_04_half_close
        "half-close works in both directions, or is declared absent"
    5 endings law_05_reset_and_stop
        "reset and stop reach the other side with their code, promptly, also while blocked on credit"
    6 endings law_06_drop
        "a dropped sender is seen as a reset, a dropped receiver as a stop"
    7 cancellation law_07_cancellation
        "dropping an open, accept, dial or handshake at any poll leaks no stream and loses no event"
    8 buffering law_08_bounded_buffers
        "bytes buffered never exceed the stated bounds; who waits for room is told of it"
    9 fairness law_09_stalled_readers
        "stalled readers, one or all but one, do not slow a sibling"
    10 fairness law_10_stream_limit
        "the stream limit blocks open and releases in order; neither bulk nor room that nobody uses starves a stream"
    11 lifecycle law_11_cut
        "cutting the wire fails every pending operation, within the idle limit"
    12 lifecycle law_12_keepalive
        "a silent peer is noticed by keepalive; a busy one is not killed by it"
    13 lifecycle law_13_drain
        "drain: no new streams, old ones finish, then closed"
    14 admission law_14_stuck_handshake
        "a peer stuck in its handshake does not delay the next accept"
    15 admission law_15_identity
        "the peer is the verified identity; a bad identity never yields a connection"
    16 accounting law_16_stats_and_credit
        "stats add up to the bytes moved; after 10,000 resets and cancels no credit is lost"
    17 early law_17_early_bytes
        "bytes sent with an open arrive first and once; those of one that was refused or dropped cost nobody anything"
}

/// The law with this number.
#[must_use]
pub fn law(number: u8) -> Option<&'static Law> {
    LAWS.iter().find(|law| law.number == number)
}

/// Holds a carrier to the law with this number.
pub async fn check(number: u8, harness: &dyn Harness, first: Side) -> Result<(), LawViolation> {
    match law(number) {
        Some(law) => law.check(harness, first).await,
        None => Err(LawViolation {
            number,
            text: "",
            first,
            seen: "there is no such law".to_owned(),
        }),
    }
}

/// Makes a test of each law in each role, for the [`Harness`](crate::conformance::Harness) that the expression gives.
///
/// The crate that uses it needs tokio with the `macros`, `rt` and `test-util` features.
#[macro_export]
macro_rules! conformance {
    ($harness:expr) => {
        /// Each law with the agent acting first.
        mod agent {
            #[allow(unused_imports)] // the expression may need what is in scope
            use super::*;
            $crate::conformance!(@laws $harness, Agent);
        }
        /// Each law with the server acting first.
        mod server {
            #[allow(unused_imports)] // as above
            use super::*;
            $crate::conformance!(@laws $harness, Server);
        }
    };
    (@laws $harness:expr, $first:ident) => {
        $crate::conformance! { @each $harness, $first,
            1 law_01_head_and_answer, 2 law_02_whole_and_in_order, 3 law_03_finish_implies_flush,
            4 law_04_half_close, 5 law_05_reset_and_stop, 6 law_06_drop, 7 law_07_cancellation,
            8 law_08_bounded_buffers, 9 law_09_stalled_readers, 10 law_10_stream_limit, 11 law_11_cut,
            12 law_12_keepalive, 13 law_13_drain, 14 law_14_stuck_handshake, 15 law_15_identity,
            16 law_16_stats_and_credit, 17 law_17_early_bytes,
        }
    };
    (@each $harness:expr, $first:ident, $($number:literal $name:ident,)*) => {
        $(
            #[::tokio::test(start_paused = true)]
            async fn $name() -> Result<(), $crate::conformance::LawViolation> {
                $crate::conformance::check($number, &$harness, $crate::Side::$first).await
            }
        )*
    };
}
