//! What two machines may do, said without credit, frames, windows or turns: a stream is two rows of bytes, and each
//! end of a row can be given up.

use std::sync::OnceLock;

use bytes::Bytes;
use tunnel_proto::{
    StreamCode, StreamHead, Target,
    mux::{ReadError, Side, StreamId, WriteError},
};

/// After how many bytes the bytes of a half repeat; as many can be had in one piece.
const PERIOD: usize = 65_521;

/// Where all bytes come from, twice.
fn pattern() -> &'static Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    let byte = |at: usize| ((at % PERIOD) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[2];
    PATTERN.get_or_init(|| (0..2 * PERIOD).map(byte).collect())
}

/// One direction of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Half {
    /// How many bytes were taken from the writer, and how many were given to the reader.
    pub(crate) written: u64,
    pub(crate) read: u64,
    pub(crate) is_finished: bool,
    pub(crate) reset: Option<StreamCode>,
    pub(crate) stopped: Option<StreamCode>,
    /// Whether the writer, or the reader, knows that it is over.
    pub(crate) writer_done: bool,
    pub(crate) reader_done: bool,
    /// Who waits for an event.
    pub(crate) writer_waits: bool,
    pub(crate) reader_waits: bool,
    /// Who was told that it ended badly.
    pub(crate) writer_told: bool,
    pub(crate) reader_told: bool,
    pub(crate) writer_released: bool,
    pub(crate) reader_released: bool,
}

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    /// Whether the acceptor knows of it.
    pub(crate) has_arrived: bool,
    /// What the acceptor has answered, and whether the opener knows.
    pub(crate) answer: Option<bool>,
    pub(crate) is_answered: bool,
    /// Whether it was refused, or given up before it was answered.
    pub(crate) is_void: bool,
    /// Whether the acceptor has given it up before any answer; whether it knows that the opener has.
    pub(crate) is_given_up: bool,
    pub(crate) is_cancelled: bool,
    /// Whether the opener knows that no answer will come.
    pub(crate) is_unanswered: bool,
    /// By the side that writes.
    pub(crate) halves: [Half; 2],
}

impl Stream {
    pub(crate) fn new(id: StreamId) -> Self {
        Self {
            id,
            has_arrived: false,
            answer: None,
            is_answered: false,
            is_void: false,
            is_given_up: false,
            is_cancelled: false,
            is_unanswered: false,
            halves: [Half::default(); 2],
        }
    }

    /// Whether a side may have its hands on it.
    pub(crate) fn is_known_to(&self, side: Side) -> bool {
        self.id.opener() == side || self.has_arrived
    }

    /// Whether it was answered, as far as a side knows.
    pub(crate) fn is_answered_for(&self, side: Side) -> bool {
        if self.id.opener() == side {
            self.is_answered
        } else {
            self.answer.is_some()
        }
    }

    pub(crate) fn written_by(&mut self, side: Side) -> &mut Half {
        &mut self.halves[index(side)]
    }

    pub(crate) fn read_by(&mut self, side: Side) -> &mut Half {
        &mut self.halves[index(side.peer())]
    }

    /// Whether the opener has ended both halves before any answer, of which nothing is said to it then.
    fn is_left_by(&self, side: Side) -> bool {
        let [sent, received] = [side, side.peer()].map(|sender| &self.halves[index(sender)]);
        let is_left = (sent.is_finished || sent.reset.is_some()) && received.stopped.is_some();
        side == self.id.opener() && is_left && !self.is_answered
    }

    /// Nobody of a side waits any more.
    pub(crate) fn wake_all(&mut self, side: Side) {
        self.written_by(side).writer_waits = false;
        self.read_by(side).reader_waits = false;
    }

    /// Whether a side has let go of it.
    pub(crate) fn is_released_by(&self, side: Side) -> bool {
        self.halves[index(side)].writer_released && self.halves[index(side.peer())].reader_released
    }

    /// Whether a side has nothing more to do with it.
    pub(crate) fn is_over_for(&self, side: Side) -> bool {
        let [sent, received] = [side, side.peer()].map(|sender| &self.halves[index(sender)]);
        let is_broken = |half: &Half| half.reset.is_some() || half.stopped.is_some();
        let is_sent = is_broken(sent) || sent.is_finished;
        let is_read = is_broken(received) || received.is_finished && received.read == received.written;
        self.is_void || self.answer == Some(false) || is_sent && is_read
    }

    /// The bytes of a half from an offset on.
    fn bytes(&self, writer: Side, from: u64, len: usize) -> Bytes {
        let phase = (2 * self.id.value().into_inner() + index(writer) as u64) * 7919;
        let start = usize::try_from((phase + from) % PERIOD as u64).unwrap();
        pattern().slice(start..start + len)
    }

    /// What the writer writes next.
    pub(crate) fn next(&self, writer: Side, len: usize) -> Bytes {
        self.bytes(writer, self.halves[index(writer)].written, len)
    }

    pub(crate) fn note_write(
        &mut self,
        writer: Side,
        offered: usize,
        result: Result<usize, WriteError>,
        is_short: bool,
    ) {
        let is_void = self.is_void || result == Err(WriteError::Closed) && self.is_left_by(writer);
        let half = self.written_by(writer);
        match result {
            Ok(count) => {
                assert!((1..=offered).contains(&count) && !half.is_finished && half.reset.is_none());
                half.written += count as u64;
                half.writer_waits = false;
            }
            Err(WriteError::Blocked) => half.writer_waits = true,
            Err(error) => {
                half.writer_done = true;
                let is_right = match error {
                    WriteError::Finished => half.is_finished,
                    WriteError::Reset(code) => half.reset == Some(code) || is_short && code == StreamCode::MEMORY,
                    WriteError::Stopped(code) => half.stopped == Some(code),
                    _ => false,
                };
                assert!(is_right || is_void, "{error:?} for {half:?}");
            }
        }
    }

    pub(crate) fn note_read(
        &mut self,
        reader: Side,
        max: usize,
        result: Result<Option<Bytes>, ReadError>,
        is_short: bool,
    ) {
        let is_void = self.is_void || result == Err(ReadError::Closed) && self.is_left_by(reader);
        let from = self.read_by(reader).read;
        if let Ok(Some(bytes)) = &result {
            assert!((1..=max).contains(&bytes.len()));
            assert!(*bytes == self.bytes(reader.peer(), from, bytes.len()), "other bytes");
        }
        let half = self.read_by(reader);
        match result {
            Ok(Some(bytes)) => {
                half.read += bytes.len() as u64;
                assert!(half.read <= half.written);
            }
            Ok(None) => {
                assert!(
                    half.is_finished && half.read == half.written,
                    "a clean end too early: {half:?}"
                );
                half.reader_done = true;
            }
            Err(ReadError::Blocked) => half.reader_waits = true,
            Err(error) => {
                half.reader_done = true;
                let is_right = match error {
                    ReadError::Reset(code) => half.reset == Some(code) || is_short && code == StreamCode::MEMORY,
                    ReadError::Stopped(StreamCode::MEMORY) if is_short => {
                        half.stopped = Some(StreamCode::MEMORY);
                        true
                    }
                    ReadError::Stopped(code) => half.stopped == Some(code),
                    _ => false,
                };
                assert!(is_right || is_void, "{error:?} for {half:?}");
            }
        }
    }
}

pub(crate) fn index(side: Side) -> usize {
    usize::from(side == Side::Server)
}

/// With what every stream is opened.
pub(crate) fn head() -> StreamHead {
    StreamHead::new("tcp://10.0.0.7:443".parse::<Target>().unwrap())
}
