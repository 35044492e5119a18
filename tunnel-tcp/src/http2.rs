//! What is overheard of HTTP/2.
//!
//! h2, and hyper above it, do not tell of everything that the peer says. So a carrier may look at the frames as they
//! pass.

/// The header of a frame (RFC 9113 §4.1).
const HEADER: usize = 9;
/// What a client sends before its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;
const DATA: u8 = 0;
/// The type of SETTINGS (RFC 9113 §6.5).
pub const SETTINGS: u8 = 4;
/// The type of GOAWAY (RFC 9113 §6.8).
pub const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// The last stream and the code of a GOAWAY.
const FIXED: usize = 8;
/// How much of the words in a GOAWAY is kept.
const WORDS: usize = 256;
/// The bit before the number of a stream, and before an increment, which says nothing (RFC 9113 §4.1, §6.9).
const RESERVED: u32 = 1 << 31;

/// An end of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that sends requests.
    Client,
    /// The one that answers them.
    Server,
}

impl Role {
    /// The other one.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A frame that has passed.
#[derive(Debug)]
pub struct Frame<'a> {
    kind: u8,
    stream: u32,
    length: usize,
    /// The beginning of it, where that matters.
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Of DATA: how many bytes it takes of the credit (RFC 9113 §6.9.1).
    #[must_use]
    pub fn data(&self) -> Option<usize> {
        (self.kind == DATA).then_some(self.length)
    }

    /// Whether it is SETTINGS.
    #[must_use]
    pub fn is_settings(&self) -> bool {
        self.kind == SETTINGS
    }

    /// Of a WINDOW_UPDATE for all streams: how many bytes more may be sent.
    #[must_use]
    pub fn credit(&self) -> Option<u32> {
        match (self.kind, self.stream, self.body.first_chunk()) {
            (WINDOW_UPDATE, 0, Some(bytes)) => Some(u32::from_be_bytes(*bytes) & !RESERVED),
            _ => None,
        }
    }

    /// Of a GOAWAY (RFC 9113 §6.8): its code, and the first 256 bytes of its debug data, if those are text.
    #[must_use]
    pub fn goaway(&self) -> Option<(u32, &'a str)> {
        let (fixed, words) = self.body.split_at_checked(FIXED).filter(|_| self.kind == GOAWAY)?;
        let code = u32::from_be_bytes(*fixed.last_chunk()?);
        Some((code, std::str::from_utf8(words).unwrap_or_default()))
    }
}

/// Finds the frames in what passes in one direction, however that is cut. It keeps less than 300 bytes.
#[derive(Debug)]
pub struct Frames {
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
    #[must_use]
    pub fn of(role: Role) -> Self {
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
    pub fn see(&mut self, bytes: &[u8], mut give: impl FnMut(&Frame<'_>)) {
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

    /// What a frame says: credit, bytes of data, and a GOAWAY.
    fn said(bytes: &[u8]) -> (Option<u32>, Option<usize>, Option<(u32, String)>) {
        let mut said = None;
        Frames::of(Role::Server).see(bytes, |frame| {
            let goaway = frame.goaway().map(|(code, words)| (code, words.to_owned()));
            said = Some((frame.credit(), frame.data(), goaway));
        });
        said.unwrap()
    }

    #[test]
    fn frames_say_what_they_mean() {
        let update = |stream, bytes: u32| said(&frame(WINDOW_UPDATE, stream, &bytes.to_be_bytes())).0;
        assert_eq!(update(0, 65), Some(65));
        assert_eq!(update(3, 65), None, "of one stream");
        assert_eq!(update(RESERVED, 65 | RESERVED), Some(65), "reserved bits");
        assert_eq!(said(&frame(WINDOW_UPDATE, 0, &[1])).0, None, "cut short");
        assert_eq!(said(&frame(DATA, 1, &[0; 35])).1, Some(35));
        assert_eq!(said(&frame(1, 1, &[0; 35])).1, None, "headers take no credit");
        assert_eq!(said(&frame(GOAWAY, 0, &[0; 7])).2, None, "cut short");
        let not_text = [&[0, 0, 0, 7, 0, 0, 0, 11][..], &[0xff]].concat();
        assert_eq!(said(&frame(GOAWAY, 0, &not_text)).2, Some((11, String::new())));
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

        #[test]
        fn the_words_of_a_goaway_are_heard(words in "[a-z]{0,300}") {
            let mut body = vec![0, 0, 0, 7, 0, 0, 0, 11];
            body.extend_from_slice(words.as_bytes());
            let kept = words[..words.len().min(WORDS)].to_owned();
            prop_assert_eq!(said(&frame(GOAWAY, 0, &body)).2, Some((11, kept)));
        }
    }
}
