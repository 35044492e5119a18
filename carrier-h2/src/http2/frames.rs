//! What is overheard of the frames that come.
//!
//! h2 does not tell when the peer's SETTINGS have come, which are what tells HTTP/2 from anything else, nor of a GOAWAY
//! until it matters to a request. So the frames are looked at as they pass.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use h2::Reason;
use tunnel_core::Text;

/// The header of a frame (RFC 9113 §4.1).
const HEADER: usize = 9;
/// What a client sends before its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// The last stream and the code of a GOAWAY.
const FIXED: usize = 8;
/// How much of the words in a GOAWAY is kept.
const WORDS: usize = 256;

/// What was heard of the peer.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    settings: AtomicBool,
    goaway: Mutex<Option<GoAway>>,
}

/// A GOAWAY (RFC 9113 §6.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoAway {
    pub(crate) reason: Reason,
    /// Its debug data, if that is text.
    pub(crate) words: Text,
}

impl GoAway {
    /// The bytes of a connection that ends as it begins: SETTINGS, which have to come first (RFC 9113 §3.4), and this,
    /// of no stream.
    #[cfg(feature = "forward")]
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

impl Heard {
    /// Whether SETTINGS have come.
    pub(crate) fn settings(&self) -> bool {
        self.settings.load(Ordering::Relaxed)
    }

    /// The peer's last GOAWAY.
    pub(crate) fn goaway(&self) -> Option<GoAway> {
        self.goaway.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn frame(&self, kind: u8, body: &[u8]) {
        match kind {
            SETTINGS => self.settings.store(true, Ordering::Relaxed),
            GOAWAY if body.len() >= FIXED => {
                let (fixed, words) = body.split_at(FIXED);
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

/// Finds the frames in what comes, however that is cut.
#[derive(Debug)]
pub(crate) struct Frames {
    header: [u8; HEADER],
    filled: usize,
    /// What is left of the frame's body.
    left: usize,
    /// The beginning of the body, of frames that matter.
    body: Vec<u8>,
}

impl Frames {
    /// Of a peer that is the client, or the server.
    pub(crate) fn of(is_client: bool) -> Self {
        Self {
            header: [0; HEADER],
            filled: if is_client { HEADER } else { 0 },
            left: if is_client { PREFACE } else { 0 },
            body: Vec::new(),
        }
    }

    /// Looks at what has come.
    pub(crate) fn see(&mut self, mut bytes: &[u8], heard: &Heard) {
        while !bytes.is_empty() {
            if self.filled < HEADER {
                let (front, rest) = bytes.split_at(bytes.len().min(HEADER - self.filled));
                self.header[self.filled..self.filled + front.len()].copy_from_slice(front);
                self.filled += front.len();
                bytes = rest;
                if self.filled == HEADER {
                    let [high, middle, low, ..] = self.header;
                    self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
                }
            } else {
                let (front, rest) = bytes.split_at(bytes.len().min(self.left));
                if self.header[3] == GOAWAY {
                    let wanted = (FIXED + WORDS).saturating_sub(self.body.len());
                    self.body.extend_from_slice(&front[..front.len().min(wanted)]);
                }
                self.left -= front.len();
                bytes = rest;
            }
            if self.filled == HEADER && self.left == 0 {
                heard.frame(self.header[3], &self.body);
                self.body.clear();
                self.header = [0; HEADER];
                self.filled = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, 0, 0, 0, 0, 0];
        frame.extend_from_slice(body);
        frame
    }

    #[test]
    fn a_preface_is_no_frame() {
        let heard = Heard::default();
        let mut frames = Frames::of(true);
        frames.see(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", &heard);
        assert!(!heard.settings());
        frames.see(b"\n", &heard);
        frames.see(&frame(SETTINGS, &[]), &heard);
        assert!(heard.settings());
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            before in prop::collection::vec((0..10u8, prop::collection::vec(any::<u8>(), 0..40)), 0..5),
            words in "[a-z]{0,300}",
            cuts in prop::collection::vec(1..20usize, 1..20),
        ) {
            let mut all = Vec::new();
            for (kind, body) in &before {
                all.extend(frame(if *kind == GOAWAY { 0 } else { *kind }, body));
            }
            let mut body = vec![0, 0, 0, 7, 0, 0, 0, 11];
            body.extend_from_slice(words.as_bytes());
            all.extend(frame(GOAWAY, &body));
            all.extend(frame(0, &[GOAWAY; 20]));
            let heard = Heard::default();
            let mut frames = Frames::of(false);
            let mut rest = &all[..];
            for cut in cuts.iter().cycle() {
                let (front, back) = rest.split_at(rest.len().min(*cut));
                frames.see(front, &heard);
                rest = back;
                if rest.is_empty() { break }
            }
            let kept = &words[..words.len().min(WORDS)];
            let expected = GoAway { reason: Reason::ENHANCE_YOUR_CALM, words: kept.into() };
            prop_assert_eq!(heard.goaway(), Some(expected));
            prop_assert_eq!(heard.settings(), before.iter().any(|(kind, _)| *kind == SETTINGS));
        }
    }
}
