//! Canonical bytes: what is hashed, signed, sent or stored is encoded here, in one way only.
//!
//! Fixed-width little-endian integers, lengths as u32, explicit tags, no optional forms. A reader is
//! bounded: it never allocates by a length it has not compared with the bytes it holds and the
//! limit its caller names. Decoding consumes every byte or fails, so one value has one encoding.

mod reader;
mod writer;

pub use reader::{DecodeError, Reader};
pub use writer::Writer;

use bytes::Bytes;

/// A type with one canonical encoding.
pub trait Encode {
    /// Appends the canonical bytes.
    fn encode(&self, writer: &mut Writer);

    /// The canonical bytes.
    fn to_bytes(&self) -> Bytes {
        let mut writer = Writer::new();
        self.encode(&mut writer);
        writer.finish()
    }
}

/// The inverse of [`Encode`]; refuses everything that `encode` cannot have written.
pub trait Decode: Sized {
    /// Reads one value from the front of `reader`.
    ///
    /// # Errors
    /// Truncation, an unknown tag, a length above its limit.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError>;

    /// Reads one value that fills `bytes` exactly.
    ///
    /// # Errors
    /// As [`Decode::decode`], and bytes left over.
    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}
