use core::fmt;

use bytes::Bytes;

use crate::types::Digest;

/// Why bytes are not the encoding of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end inside the named field.
    Truncated(&'static str),
    /// The named field holds a tag or value that no encoder writes.
    Invalid(&'static str),
    /// The named length or count is above its limit.
    TooLong(&'static str),
    /// Bytes are left behind the value.
    Trailing,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(field) => write!(f, "the bytes end inside {field}"),
            Self::Invalid(field) => write!(f, "{field} holds a value that is never written"),
            Self::TooLong(field) => write!(f, "{field} is longer than its limit"),
            Self::Trailing => write!(f, "bytes are left over behind the value"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Takes canonical bytes apart. Byte strings are slices of the buffer, not copies.
pub struct Reader {
    buffer: Bytes,
    at: usize,
}

impl Reader {
    /// Reads from the front of `buffer`.
    #[must_use]
    pub fn new(buffer: Bytes) -> Self {
        Self { buffer, at: 0 }
    }

    /// How many bytes were read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.buffer.len() - self.at
    }

    fn take(&mut self, length: usize, field: &'static str) -> Result<&[u8], DecodeError> {
        let end = self.at.checked_add(length).ok_or(DecodeError::TooLong(field))?;
        let slice = self.buffer.get(self.at..end).ok_or(DecodeError::Truncated(field))?;
        self.at = end;
        Ok(slice)
    }

    /// Exactly `N` bytes.
    ///
    /// # Errors
    /// Truncation.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    /// One byte.
    ///
    /// # Errors
    /// Truncation.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    /// Two bytes.
    ///
    /// # Errors
    /// Truncation.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// Truncation.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// Truncation.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// Eight bytes, signed.
    ///
    /// # Errors
    /// Truncation.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array(field)?))
    }

    /// One byte that is 0 or 1.
    ///
    /// # Errors
    /// Truncation, another byte.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid(field)),
        }
    }

    /// A digest.
    ///
    /// # Errors
    /// Truncation.
    pub fn digest(&mut self, field: &'static str) -> Result<Digest, DecodeError> {
        Ok(Digest(self.array(field)?))
    }

    /// `length` bytes, sliced.
    ///
    /// # Errors
    /// Truncation.
    pub fn raw(&mut self, length: usize, field: &'static str) -> Result<Bytes, DecodeError> {
        let start = self.at;
        self.take(length, field)?;
        Ok(self.buffer.slice(start..self.at))
    }

    /// A length of at most `max`, then that many bytes, sliced.
    ///
    /// # Errors
    /// Truncation, a length above `max`.
    pub fn bytes(&mut self, max: usize, field: &'static str) -> Result<Bytes, DecodeError> {
        let length = self.length(max, field)?;
        self.raw(length, field)
    }

    /// A count or length of at most `max`. A list's items take a byte or more each, so a count above
    /// what is left of the buffer is refused before anything is allocated for it.
    ///
    /// # Errors
    /// Truncation, a value above `max` or above the bytes left.
    pub fn length(&mut self, max: usize, field: &'static str) -> Result<usize, DecodeError> {
        let length = self.u32(field)? as usize;
        if length > max {
            return Err(DecodeError::TooLong(field));
        }
        if length > self.remaining() {
            return Err(DecodeError::Truncated(field));
        }
        Ok(length)
    }

    /// What lies between two positions of this buffer, sliced.
    #[must_use]
    pub fn slice(&self, from: usize, until: usize) -> Bytes {
        assert!(from <= until && until <= self.at, "only what was read is sliced");
        self.buffer.slice(from..until)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.remaining() == 0 { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}
