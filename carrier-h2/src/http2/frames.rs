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
use tunnel_tcp::http2::Frame;
#[cfg(feature = "forward")]
use tunnel_tcp::http2::{GOAWAY, SETTINGS};

/// How much either end may send on all streams before it hears of more (RFC 9113 §6.9.2).
const INITIAL_CREDIT: u64 = 65_535;

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
        if let Some(more) = frame.credit() {
            self.granted.fetch_add(more.into(), Ordering::Relaxed);
        }
    }

    /// Hears a frame of this end.
    pub(crate) fn went(&self, frame: &Frame<'_>) {
        if let Some(bytes) = frame.data() {
            self.used.fetch_add(bytes as u64, Ordering::Relaxed);
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

/// A GOAWAY (RFC 9113 §6.8).
#[cfg(feature = "forward")]
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
        let body = [&[0; 4], &code, self.words.as_str().as_bytes()].concat();
        [&header(SETTINGS, 0)[..], &header(GOAWAY, body.len()), &body].concat()
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
        if frame.is_settings() {
            self.settings.store(true, Ordering::Relaxed);
        } else if let Some((code, words)) = frame.goaway() {
            let goaway = GoAway {
                reason: Reason::from(code),
                words: Text::new(words),
            };
            *self.goaway.lock().unwrap_or_else(PoisonError::into_inner) = Some(goaway);
        }
    }
}

#[cfg(test)]
mod tests {
    use tunnel_tcp::http2::{Frames, Role};

    use super::*;

    fn frame(kind: u8, stream: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, 0];
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(body);
        frame
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
        let update = |stream, bytes: u32| frame(8, stream, &bytes.to_be_bytes());
        let data = |length| frame(0, 1, &vec![0; length]);
        assert_eq!(credit(&[], &[]), 65_535);
        assert_eq!(credit(&[], &data(35)), 65_500);
        assert_eq!(credit(&[], &frame(1, 1, &[0; 35])), 65_535, "headers take none");
        assert_eq!(credit(&update(0, 65), &[]), 65_600);
        assert_eq!(credit(&update(3, 65), &[]), 65_535, "of one stream");
        assert_eq!(credit(&frame(8, 0, &[1]), &[]), 65_535, "h2 ends the connection");
        assert_eq!(credit(&[], &data(70_000)), 0, "h2 never does");
    }

    #[cfg(feature = "forward")]
    #[test]
    fn what_is_said_at_once_is_heard() {
        let said = GoAway {
            reason: Reason::ENHANCE_YOUR_CALM,
            words: "come back later".into(),
        };
        let heard = Heard::default();
        let mut frames = Frames::of(Role::Server);
        assert!(!heard.settings());
        frames.see(&said.at_once(), |frame| heard.came(frame));
        assert_eq!(heard.goaway(), Some(said));
        assert!(heard.settings());
    }
}
