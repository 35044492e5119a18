//! The fields of a frame's body (`docs/wire.md` §2.2): an identifier, a length and a value each.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{InvalidId, InvalidSecret, InvalidTarget, InvalidTraceContext, VarInt};

/// What is wrong with a field, or with the body that should have it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The body ends before the field does.
    #[error("the body ends inside the field")]
    Truncated,
    /// A field that may stand once stands there again.
    #[error("stands there twice")]
    Twice,
    /// A field that must be there is not.
    #[error("is missing")]
    Missing,
    /// A field that may be repeated stands there too often, or its values are too large together.
    #[error("stands there more often, or with more bytes, than is allowed")]
    TooMany,
    /// The value is longer than its type allows.
    #[error("has {len} bytes; at most {limit} are allowed")]
    TooLong {
        /// How long it is, in bytes.
        len: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The value should be one variable-length integer and nothing else.
    #[error("is not one variable-length integer")]
    NotAnInteger,
    /// Something follows the last part of a body that has no fields.
    #[error("is followed by more bytes")]
    Trailing,
    /// The integer has a meaning only within a smaller range.
    #[error("has the value {0}, which is out of range")]
    OutOfRange(u64),
    /// The value should be text.
    #[error("is not UTF-8")]
    NotUtf8,
    /// The value's bytes or characters are not what its type allows.
    #[error("is not {0}")]
    NotA(&'static str),
    /// The text is not a target.
    #[error("is not a target")]
    Target(#[from] InvalidTarget),
    /// The text is not the id of an agent or a server.
    #[error("is not an id")]
    Id(#[from] InvalidId),
    /// The bytes are not a secret.
    #[error("is not a secret")]
    Secret(#[from] InvalidSecret),
    /// The text is not a trace context.
    #[error("is not a trace context")]
    TraceContext(#[from] InvalidTraceContext),
}

/// A problem and the field that has it.
#[derive(Debug)]
pub(crate) struct FieldError {
    /// The field, unless the body ends before its identifier does.
    pub(crate) id: Option<u64>,
    pub(crate) problem: Problem,
}

impl FieldError {
    pub(crate) fn new(id: u64, problem: Problem) -> Self {
        Self { id: Some(id), problem }
    }
}

/// The value of one field, not yet interpreted.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a>(&'a [u8]);

/// The fields of a body, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// Hands every field to `take`, which ignores the identifiers that it does not know.
    pub(crate) fn each(
        mut self,
        mut take: impl FnMut(u64, Value<'a>) -> Result<(), Problem>,
    ) -> Result<(), FieldError> {
        while let Some((id, value)) = self.next()? {
            take(id, value).map_err(|problem| FieldError::new(id, problem))?;
        }
        Ok(())
    }

    /// The value of the first field with this identifier.
    pub(crate) fn find(mut self, wanted: u64) -> Result<Option<Value<'a>>, FieldError> {
        while let Some((id, value)) = self.next()? {
            if id == wanted {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, FieldError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let truncated = |id| FieldError {
            id,
            problem: Problem::Truncated,
        };
        let id = VarInt::decode(&mut self.0).ok_or(truncated(None))?;
        let id = id.into_inner();
        let value = take_prefixed(&mut self.0).ok_or(truncated(Some(id)))?;
        Ok(Some((id, Value(value))))
    }
}

impl<'a> Value<'a> {
    /// The bytes, of which there may be at most `limit`.
    pub(crate) fn bytes(self, limit: usize) -> Result<&'a [u8], Problem> {
        bounded(self.0, limit)
    }

    /// UTF-8 text of at most `limit` bytes.
    pub(crate) fn text(self, limit: usize) -> Result<&'a str, Problem> {
        text(self.0, limit)
    }

    /// Exactly one integer.
    pub(crate) fn integer(mut self) -> Result<VarInt, Problem> {
        let value = VarInt::decode(&mut self.0).ok_or(Problem::NotAnInteger)?;
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(Problem::NotAnInteger)
        }
    }

    /// Exactly one integer of at most 32 bits.
    pub(crate) fn integer_u32(self) -> Result<u32, Problem> {
        let value = self.integer()?.into_inner();
        u32::try_from(value).map_err(|_| Problem::OutOfRange(value))
    }

    /// One or more integers, at most `limit`.
    pub(crate) fn integers(mut self, limit: usize) -> Result<Vec<u64>, Problem> {
        let mut values = Vec::new();
        loop {
            let value = VarInt::decode(&mut self.0).ok_or(Problem::NotAnInteger)?;
            if values.len() == limit {
                return Err(Problem::TooMany);
            }
            values.push(value.into_inner());
            if self.0.is_empty() {
                return Ok(values);
            }
        }
    }

    /// A name with its length before it, and a value that takes the rest.
    pub(crate) fn pair(mut self, name_limit: usize, value_limit: usize) -> Result<(&'a str, &'a str), Problem> {
        let name = take_prefixed(&mut self.0).ok_or(Problem::NotA("a name and a value"))?;
        Ok((text(name, name_limit)?, text(self.0, value_limit)?))
    }
}

/// Takes a length and as many bytes off the front.
fn take_prefixed<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(VarInt::decode(input)?.into_inner()).ok()?;
    let (value, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(value)
}

fn text(bytes: &[u8], limit: usize) -> Result<&str, Problem> {
    str::from_utf8(bounded(bytes, limit)?).map_err(|_| Problem::NotUtf8)
}

fn bounded(bytes: &[u8], limit: usize) -> Result<&[u8], Problem> {
    let len = bytes.len();
    if len > limit {
        return Err(Problem::TooLong { len, limit });
    }
    Ok(bytes)
}

/// Fills the slot of a field that may stand only once.
pub(crate) fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        Some(_) => Err(Problem::Twice),
        None => Ok(()),
    }
}

/// The value of a field that must be there.
pub(crate) fn required<T>(id: u64, slot: Option<T>) -> Result<T, FieldError> {
    slot.ok_or_else(|| FieldError::new(id, Problem::Missing))
}

/// Writes the fields of a body, in ascending order of their identifiers, behind room for the frame's header.
pub(crate) struct FieldWriter {
    out: BytesMut,
    last: u64,
}

impl FieldWriter {
    /// The longest header: kind and length.
    const HEADER: usize = 2 * VarInt::MAX_LEN;

    pub(crate) fn new() -> Self {
        let mut out = BytesMut::with_capacity(Self::HEADER + 112);
        out.put_bytes(0, Self::HEADER);
        Self { out, last: 0 }
    }

    /// Appends an integer that stands before the fields.
    pub(crate) fn prefix(&mut self, value: VarInt) {
        value.encode(&mut self.out);
    }

    /// Appends fields that are encoded already.
    pub(crate) fn raw(&mut self, fields: &[u8]) {
        self.out.put_slice(fields);
    }

    pub(crate) fn bytes(&mut self, id: u64, value: &[u8]) {
        self.start(id, value.len());
        self.out.put_slice(value);
    }

    pub(crate) fn text(&mut self, id: u64, value: &str) {
        self.bytes(id, value.as_bytes());
    }

    /// Writes a text, or nothing if it is empty.
    pub(crate) fn text_if_any(&mut self, id: u64, value: &str) {
        if !value.is_empty() {
            self.text(id, value);
        }
    }

    pub(crate) fn integer(&mut self, id: u64, value: VarInt) {
        self.start(id, value.len());
        value.encode(&mut self.out);
    }

    pub(crate) fn integers(&mut self, id: u64, values: &[u64]) {
        let values = values.iter().copied().map(VarInt::saturating_from_u64);
        self.start(id, values.clone().map(VarInt::len).sum());
        values.for_each(|value| value.encode(&mut self.out));
    }

    pub(crate) fn pair(&mut self, id: u64, name: &str, value: &str) {
        let name_len = length(name.len());
        self.start(id, name_len.len() + name.len() + value.len());
        name_len.encode(&mut self.out);
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(value.as_bytes());
    }

    /// The whole frame: the header, then the body.
    pub(crate) fn finish(mut self, kind: VarInt) -> Bytes {
        let len = length(self.out.len() - Self::HEADER);
        let unused = Self::HEADER - kind.len() - len.len();
        let mut header = &mut self.out[unused..Self::HEADER];
        kind.encode(&mut header);
        len.encode(&mut header);
        self.out.advance(unused);
        self.out.freeze()
    }

    fn start(&mut self, id: u64, len: usize) {
        debug_assert!(self.last <= id, "field {id} after field {}", self.last);
        self.last = id;
        VarInt::saturating_from_u64(id).encode(&mut self.out);
        length(len).encode(&mut self.out);
    }
}

fn length(len: usize) -> VarInt {
    VarInt::saturating_from_u64(len as u64)
}
