//! What an end makes of bytes.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tunnel_tcp::BoxIo;

use super::cases::{PING, PREFACE, RST_STREAM, frame};

const GOAWAY: u8 = 7;
/// A stream that was answered as a whole may be reset like this (§8.1).
const NO_ERROR: u32 = 0;
/// Asked at the end, to see whether the end still answers.
const QUESTION: [u8; 8] = *b"and now?";
/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(3);

/// What an end has made of bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The code of the first GOAWAY.
    goaway: Option<u32>,
    /// Streams that were reset, and the codes.
    resets: Vec<(u32, u32)>,
    /// Whether it answers still.
    answers: bool,
    /// Whether it has closed the pipe.
    closed: bool,
}

impl Outcome {
    /// Whether the end lives, and has found nothing wrong.
    pub(crate) fn is_fine(&self) -> bool {
        let resets = self.resets.iter().any(|(_, code)| *code != NO_ERROR);
        self.goaway.is_none() && !resets && self.answers && !self.closed
    }

    /// Whether a connection was ended for the same reason; and a stream was reset for the same, or the connection ended.
    pub(crate) fn is_as_strict_as(&self, other: &Self) -> bool {
        match other.goaway {
            Some(_) => self.goaway == other.goaway && self.closed,
            None => self.closed || other.is_fine() || self.resets == other.resets,
        }
    }
}

/// Sends bytes and sees what comes of them.
pub(crate) async fn provoke(mut io: BoxIo, bytes: &[u8]) -> Outcome {
    let mut heard = Vec::new();
    let (mut rx, mut tx) = tokio::io::split(&mut io);
    let closed = timeout(PATIENCE, async {
        let talk = async {
            // It may have heard enough before the end.
            let _ = tx.write_all(bytes).await;
            let _ = tx.write_all(&frame(PING, 0, 0, &QUESTION)).await;
            let _ = tx.flush().await;
        };
        let _ = tokio::join!(talk, rx.read_to_end(&mut heard));
    })
    .await
    .is_ok();
    let mut outcome = Outcome {
        closed,
        ..Outcome::default()
    };
    let mut rest = heard.strip_prefix(PREFACE).unwrap_or(&heard);
    while let Some((kind, flags, stream, payload)) = next(&mut rest) {
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            GOAWAY if outcome.goaway.is_none() => outcome.goaway = Some(code(4)),
            RST_STREAM => outcome.resets.push((stream, code(0))),
            PING if flags == 1 && payload == QUESTION => outcome.answers = true,
            _ => {}
        }
    }
    outcome
}

/// Splits the first frame off.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u8, u8, u32, &'a [u8])> {
    let (head, rest) = bytes.split_at_checked(9)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).unwrap())?;
    *bytes = rest;
    let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
    Some((head[3], head[4], stream, payload))
}
