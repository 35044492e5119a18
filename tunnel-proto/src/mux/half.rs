//! The two halves of a stream, as tables of states and events (`docs/wire.md` §9.5).
//!
//! ```text
//! sending half                               receiving half
//!
//!           finish         FIN sent                     FIN came         all taken
//!   Open ──────────▶ Finishing ─────▶ Finished   Open ────────────▶ Ended ─────────▶ Done
//!    │ │               │ │                        │ │               │ │
//!    │ │ reset         │ │ reset                  │ │ RESET came    │ │ stop
//!    │ └───────────────┼─┴──────────▶ Reset       │ └──────────▶ Reset│
//!    │ STOP came       │                          │ stop            │
//!    └─────────────────┴────────────▶ Stopped     └─────────────────┴──────────────▶ Stopped
//! ```
//!
//! Either end may end a half, and the first to do so decides: an event that comes later changes nothing.

use crate::StreamCode;

/// The sending half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendState {
    /// Takes bytes.
    Open,
    /// Takes no more bytes; the clean end waits behind those that are queued.
    Finishing,
    /// The clean end has been sent.
    Finished,
    /// This end has given it up.
    Reset(StreamCode),
    /// The peer has stopped it.
    Stopped(StreamCode),
}

/// What happens to a sending half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendEvent {
    /// The application has no more bytes.
    Finish,
    /// The clean end goes out.
    FinSent,
    /// The application gives it up.
    Reset(StreamCode),
    /// The peer wants no more.
    Stop(StreamCode),
}

impl SendState {
    /// The state after an event; the same where the event changes nothing.
    pub(super) fn after(self, event: SendEvent) -> Self {
        match (self, event) {
            (Self::Open, SendEvent::Finish) => Self::Finishing,
            (Self::Finishing, SendEvent::FinSent) => Self::Finished,
            (Self::Open | Self::Finishing, SendEvent::Reset(code)) => Self::Reset(code),
            (Self::Open | Self::Finishing, SendEvent::Stop(code)) => Self::Stopped(code),
            (state, _) => state,
        }
    }

    /// Whether nothing more will be sent.
    pub(super) fn is_over(self) -> bool {
        !matches!(self, Self::Open | Self::Finishing)
    }
}

/// The receiving half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecvState {
    /// Bytes may come.
    Open,
    /// The clean end has come; there are bytes before it that were not taken.
    Ended,
    /// Everything up to the clean end was taken.
    Done,
    /// The peer has given it up.
    Reset(StreamCode),
    /// This end wants no more.
    Stopped(StreamCode),
}

/// What happens to a receiving half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecvEvent {
    /// The clean end comes.
    Fin,
    /// The application has taken the last of what had come.
    Emptied,
    /// The peer gives it up.
    Reset(StreamCode),
    /// The application wants no more.
    Stop(StreamCode),
}

impl RecvState {
    /// The state after an event; the same where the event changes nothing. A reset that overtakes nothing but unread
    /// bytes cannot come after the clean end: both are the last word of the same sender.
    pub(super) fn after(self, event: RecvEvent) -> Self {
        match (self, event) {
            (Self::Open, RecvEvent::Fin) => Self::Ended,
            (Self::Ended, RecvEvent::Emptied) => Self::Done,
            (Self::Open, RecvEvent::Reset(code)) => Self::Reset(code),
            (Self::Open | Self::Ended, RecvEvent::Stop(code)) => Self::Stopped(code),
            (state, _) => state,
        }
    }

    /// Whether no more bytes will be taken.
    pub(super) fn is_over(self) -> bool {
        !matches!(self, Self::Open | Self::Ended)
    }

    /// Whether frames of the peer still change anything.
    pub(super) fn listens(self) -> bool {
        self == Self::Open
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Write};

    use super::*;

    const OLD: StreamCode = StreamCode::CANCELLED;
    const NEW: StreamCode = StreamCode::IDLE;

    fn matrix<S: Copy + Debug + PartialEq, E: Copy + Debug>(
        states: &[S],
        events: &[E],
        after: impl Fn(S, E) -> S,
    ) -> String {
        let mut out = String::new();
        for &state in states {
            for &event in events {
                let next = after(state, event);
                if next != state {
                    writeln!(out, "{state:?} + {event:?} -> {next:?}").unwrap();
                }
            }
        }
        out.replace("StreamCode(", "").replace("))", ")")
    }

    #[test]
    fn the_sending_half_in_every_state_and_event() {
        let states = [
            SendState::Open,
            SendState::Finishing,
            SendState::Finished,
            SendState::Reset(OLD),
            SendState::Stopped(OLD),
        ];
        let events = [
            SendEvent::Finish,
            SendEvent::FinSent,
            SendEvent::Reset(NEW),
            SendEvent::Stop(NEW),
        ];
        let expected = "\
Open + Finish -> Finishing
Open + Reset(idle 0x3) -> Reset(idle 0x3)
Open + Stop(idle 0x3) -> Stopped(idle 0x3)
Finishing + FinSent -> Finished
Finishing + Reset(idle 0x3) -> Reset(idle 0x3)
Finishing + Stop(idle 0x3) -> Stopped(idle 0x3)
";
        assert_eq!(matrix(&states, &events, SendState::after), expected);
        let over = states.map(SendState::is_over);
        assert_eq!(over, [false, false, true, true, true]);
    }

    #[test]
    fn the_receiving_half_in_every_state_and_event() {
        let states = [
            RecvState::Open,
            RecvState::Ended,
            RecvState::Done,
            RecvState::Reset(OLD),
            RecvState::Stopped(OLD),
        ];
        let events = [
            RecvEvent::Fin,
            RecvEvent::Emptied,
            RecvEvent::Reset(NEW),
            RecvEvent::Stop(NEW),
        ];
        let expected = "\
Open + Fin -> Ended
Open + Reset(idle 0x3) -> Reset(idle 0x3)
Open + Stop(idle 0x3) -> Stopped(idle 0x3)
Ended + Emptied -> Done
Ended + Stop(idle 0x3) -> Stopped(idle 0x3)
";
        assert_eq!(matrix(&states, &events, RecvState::after), expected);
        let over = states.map(RecvState::is_over);
        assert_eq!(over, [false, false, true, true, true]);
    }
}
