//! What is overheard of the frames that pass.
//!
//! h2 does not tell how much the peer takes of all streams, nor when its SETTINGS have come, which are what tells HTTP/2
//! from anything else, nor of a GOAWAY until it matters to a request. So the frames are looked at as they pass.

use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "forward")]
use std::sync::{Mutex, PoisonError, atomic::AtomicBool};

#[cfg(feature = "forward")]
use h2::Reason;
#[cfg(feature = "forward")]
use tunnel_core::Text;

/// The header of a frame (RFC 9113 §4.1).
const HEADER: usize = 9;
/// What a client sends before its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;
const DATA: u8 = 0;
#[cfg(feature = "forward")]
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// The last stream and the code of a GOAWAY.
const FIXED: usize = 8;
/// How much of the words in a GOAWAY is kept.
const WORDS: usize = 256;
/// The bit before the number of a stream, and before an increment, which says nothing (RFC 9113 §4.1, §6.9).
const RESERVED: u32 = 1 << 31;
/// How much either end may send on all streams before it hears of more (RFC 9113 §6.9.2).
const INITIAL_CREDIT: u64 = 65_535;

/// An end of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

impl Role {
    pub(crate) fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How much the peer takes of all streams (RFC 9113 §5.2.1), by its WINDOW_UPDATE and by the DATA that was sent.
#[derive(Debug)]
pub(crate) struct Credit {
    granted: AtomicU64,
    used: AtomicU64,
}

impl Default for Credit {
    fn default() -> Self {
        Self {
            granted: AtomicU64::new(INITIAL_CREDIT),
            used: AtomicU64::new(0),
        }
    }
}

impl Credit {
    /// What may be sent now, in bytes.
    pub(crate) fn available(&self) -> usize {
        let granted = self.granted.load(Ordering::Relaxed);
        let left = granted.saturating_sub(self.used.load(Ordering::Relaxed));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Hears a frame of the peer.
    pub(crate) fn came(&self, frame: &Frame<'_>) {
        if let (WINDOW_UPDATE, 0, Some(bytes)) = (frame.kind, frame.stream, frame.body.first_chunk()) {
            let increment = u32::from_be_bytes(*bytes) & !RESERVED;
            self.granted.fetch_add(increment.into(), Ordering::Relaxed);
        }
    }

    /// Hears a frame of this end.
    pub(crate) fn went(&self, frame: &Frame<'_>) {
        if frame.kind == DATA {
            self.used.fetch_add(frame.length as u64, Ordering::Relaxed);
        }
    }
}

/// What was heard of the peer.
#[cfg(feature = "forward")]
#[derive(Debug, Default)]
pub(crate) struct Heard {
    settings: AtomicBool,
    goaway: Mutex<Option<GoAway>>,
}

#[cfg(feature = "forward")]
/// A GOAWAY (RFC 9113 §6.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoAway {
    pub(crate) reason: Reason,
    /// Its debug data, if that is text.
    pub(crate) words: Text,
}

#[cfg(feature = "forward")]
impl GoAway {
    /// The bytes of a connection that ends as it begins: SETTINGS, which have to come first (RFC 9113 §3.4), and this,
    /// of no stream.
    pub(crate) fn at_once(&self) -> Vec<u8> {
        let header = |kind, length: usize| {
            // A text is short.
            let [.., middle, low] = length.to_be_bytes();
            [0, middle, low, kind, 0, 0, 0, 0, 0]
        };
        let code = u32::from(self.reason).to_be_bytes();
        let mut bytes = Vec::from(header(SETTINGS, 0));
        bytes.extend(header(GOAWAY, FIXED + self.words.as_str().len()));
        bytes.extend([0; 4]);
        bytes.extend(code);
        bytes.extend(self.words.as_str().as_bytes());
        bytes
    }
}

#[cfg(feature = "forward")]
impl Heard {
    /// Whether SETTINGS have come.
    pub(crate) fn settings(&self) -> bool {
        self.settings.load(Ordering::Relaxed)
    }

    /// The peer's last GOAWAY.
    pub(crate) fn goaway(&self) -> Option<GoAway> {
        self.goaway.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hears a frame of the peer.
    pub(crate) fn came(&self, frame: &Frame<'_>) {
        match frame.kind {
            SETTINGS => self.settings.store(true, Ordering::Relaxed),
            GOAWAY if frame.body.len() >= FIXED => {
                let (fixed, words) = frame.body.split_at(FIXED);
                let code = fixed.last_chunk().map_or(0, |code| u32::from_be_bytes(*code));
                let goaway = GoAway {
                    reason: Reason::from(code),
                    words: Text::new(std::str::from_utf8(words).unwrap_or_default()),
                };
                *self.goaway.lock().unwrap_or_else(PoisonError::into_inner) = Some(goaway);
            }
            _ => {}
        }
    }
}

/// A frame that has passed.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    kind: u8,
    stream: u32,
    length: usize,
    /// The beginning of it, where that matters.
    body: &'a [u8],
}

/// Finds the frames in what passes in one direction, however that is cut.
#[derive(Debug)]
pub(crate) struct Frames {
    /// What is left of the bytes before the first frame.
    preface: usize,
    header: [u8; HEADER],
    filled: usize,
    length: usize,
    /// What is left of the frame's body.
    left: usize,
    /// The beginning of the body, of frames that matter.
    body: Vec<u8>,
}

impl Frames {
    /// What an end of this role sends.
    pub(crate) fn of(role: Role) -> Self {
        Self {
            preface: if role == Role::Client { PREFACE } else { 0 },
            header: [0; HEADER],
            filled: 0,
            length: 0,
            left: 0,
            body: Vec::new(),
        }
    }

    /// Looks at what has passed; gives each frame when its last byte has.
    pub(crate) fn see(&mut self, bytes: &[u8], mut give: impl FnMut(&Frame<'_>)) {
        let (preface, mut bytes) = bytes.split_at(bytes.len().min(self.preface));
        self.preface -= preface.len();
        while !bytes.is_empty() {
            if self.filled < HEADER {
                let (front, rest) = bytes.split_at(bytes.len().min(HEADER - self.filled));
                self.header[self.filled..self.filled + front.len()].copy_from_slice(front);
                self.filled += front.len();
                bytes = rest;
                if self.filled == HEADER {
                    let [high, middle, low, ..] = self.header;
                    self.length = u32::from_be_bytes([0, high, middle, low]) as usize;
                    self.left = self.length;
                }
            } else {
                let (front, rest) = bytes.split_at(bytes.len().min(self.left));
                if matches!(self.header[3], GOAWAY | WINDOW_UPDATE) {
                    let wanted = (FIXED + WORDS).saturating_sub(self.body.len());
                    self.body.extend_from_slice(&front[..front.len().min(wanted)]);
                }
                self.left -= front.len();
                bytes = rest;
            }
            if self.filled == HEADER && self.left == 0 {
                self.end(&mut give);
            }
        }
    }

    fn end(&mut self, give: &mut impl FnMut(&Frame<'_>)) {
        let [_, _, _, kind, _, stream @ ..] = self.header;
        give(&Frame {
            kind,
            stream: u32::from_be_bytes(stream) & !RESERVED,
            length: self.length,
            body: &self.body,
        });
        self.body.clear();
        (self.header, self.filled, self.length) = ([0; HEADER], 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, 0];
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(body);
        frame
    }

    /// What is seen of bytes that come in pieces of these lengths.
    fn seen(role: Role, bytes: &[u8], cuts: &[usize]) -> Vec<(u8, u32, usize, Vec<u8>)> {
        let mut frames = Frames::of(role);
        let mut seen = Vec::new();
        let mut rest = bytes;
        for cut in cuts.iter().cycle() {
            let (front, back) = rest.split_at(rest.len().min(*cut));
            frames.see(front, |frame| {
                seen.push((frame.kind, frame.stream, frame.length, frame.body.to_vec()));
            });
            rest = back;
            if rest.is_empty() {
                break;
            }
        }
        seen
    }

    /// The credit after frames that came and that went.
    fn credit(came: &[u8], went: &[u8]) -> usize {
        let credit = Credit::default();
        Frames::of(Role::Server).see(came, |frame| credit.came(frame));
        Frames::of(Role::Server).see(went, |frame| credit.went(frame));
        credit.available()
    }

    #[test]
    fn credit_is_what_was_granted_of_all_streams_and_not_used() {
        let update = |stream, bytes: u32| frame(WINDOW_UPDATE, stream, &bytes.to_be_bytes());
        assert_eq!(credit(&[], &[]), 65_535);
        assert_eq!(credit(&[], &frame(DATA, 1, &[0; 35])), 65_500);
        assert_eq!(credit(&[], &frame(1, 1, &[0; 35])), 65_535, "headers take none");
        assert_eq!(credit(&update(0, 65), &[]), 65_600);
        assert_eq!(credit(&update(3, 65), &[]), 65_535, "of one stream");
        assert_eq!(credit(&update(RESERVED, 65 | RESERVED), &[]), 65_600, "reserved bits");
        assert_eq!(
            credit(&frame(WINDOW_UPDATE, 0, &[1]), &[]),
            65_535,
            "h2 ends the connection"
        );
        assert_eq!(credit(&[], &frame(DATA, 1, &[0; 70_000])), 0, "h2 never does");
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in prop::collection::vec(
                (0..10_u8, 0..RESERVED, prop::collection::vec(any::<u8>(), 0..400)), 0..8
            ),
            is_client: bool,
            cuts in prop::collection::vec(1..20_usize, 1..20),
        ) {
            let role = if is_client { Role::Client } else { Role::Server };
            let mut all = Vec::new();
            let mut expected = Vec::new();
            if is_client {
                all.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            }
            for (kind, stream, body) in &frames {
                all.extend(frame(*kind, *stream, body));
                let kept = if matches!(*kind, GOAWAY | WINDOW_UPDATE) { body.len().min(FIXED + WORDS) } else { 0 };
                expected.push((*kind, *stream, body.len(), body[..kept].to_vec()));
            }
            prop_assert_eq!(seen(role, &all, &cuts), expected);
        }

        #[cfg(feature = "forward")]
        #[test]
        fn the_words_of_a_goaway_are_heard(words in "[a-z]{0,300}") {
            let mut body = vec![0, 0, 0, 7, 0, 0, 0, 11];
            body.extend_from_slice(words.as_bytes());
            let heard = Heard::default();
            Frames::of(Role::Server).see(&frame(GOAWAY, 0, &body), |frame| heard.came(frame));
            let kept = &words[..words.len().min(WORDS)];
            let expected = GoAway { reason: Reason::ENHANCE_YOUR_CALM, words: kept.into() };
            prop_assert_eq!(heard.goaway(), Some(expected));
            prop_assert!(!heard.settings());
        }
    }
}
