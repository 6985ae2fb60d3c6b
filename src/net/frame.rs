use core::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Payload bytes of one piece: a control frame waits for no more than this of a bulk frame.
pub(super) const PIECE_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 5;

/// First bytes of a frame: its payload's length as u32, little-endian, then its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// A whole frame of the control lane.
    Control = 1,
    /// A frame of the bulk lane: its whole length as u32, then its first piece.
    BulkBegin = 2,
    /// A further piece of it.
    BulkMore = 3,
    /// Eight bytes to be sent back.
    Ping = 4,
    /// The eight bytes.
    Pong = 5,
}

/// The longest frames that are accepted, by lane.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Of the control lane.
    pub control_bytes: usize,
    /// Of the bulk lane.
    pub bulk_bytes: usize,
}

/// What a peer's bytes amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Frame(Bytes),
    Ping(u64),
    Pong(u64),
}

/// Why a peer's bytes are no frames. The link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    Kind(u8),
    Empty,
    TooLong {
        bytes: usize,
        max: usize,
    },
    PingLength(usize),
    /// A first piece inside another frame, a later one without a first, or more than was announced.
    Pieces,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "a frame of unknown kind {kind}"),
            Self::Empty => write!(f, "an empty frame"),
            Self::TooLong { bytes, max } => {
                write!(f, "a frame of {bytes} bytes where {max} are allowed")
            }
            Self::PingLength(bytes) => write!(f, "a ping of {bytes} bytes"),
            Self::Pieces => write!(f, "pieces of a bulk frame out of order"),
        }
    }
}

pub(super) fn put_control(out: &mut BytesMut, payload: &[u8]) {
    put_header(out, payload.len(), Kind::Control);
    out.put_slice(payload);
}

/// The piece of `frame` that starts at `offset`; returns where the next one starts.
pub(super) fn put_piece(out: &mut BytesMut, frame: &[u8], offset: usize) -> usize {
    let end = frame.len().min(offset + PIECE_BYTES);
    let piece = &frame[offset..end];
    if offset == 0 {
        put_header(out, 4 + piece.len(), Kind::BulkBegin);
        out.put_u32_le(u32::try_from(frame.len()).expect("the queue refuses longer frames"));
    } else {
        put_header(out, piece.len(), Kind::BulkMore);
    }
    out.put_slice(piece);
    end
}

pub(super) fn put_ping(out: &mut BytesMut, nonce: u64) {
    put_header(out, 8, Kind::Ping);
    out.put_u64_le(nonce);
}

pub(super) fn put_pong(out: &mut BytesMut, nonce: u64) {
    put_header(out, 8, Kind::Pong);
    out.put_u64_le(nonce);
}

fn put_header(out: &mut BytesMut, payload: usize, kind: Kind) {
    out.put_u32_le(u32::try_from(payload).expect("the queue refuses longer frames"));
    out.put_u8(kind as u8);
}

/// Takes a peer's byte stream apart. Nothing is allocated by a length that was not compared with
/// its lane's limit; a link holds at most one bulk frame in pieces.
pub(super) struct Decoder {
    limits: FrameLimits,
    buffer: BytesMut,
    bulk: Option<Assembly>,
}

struct Assembly {
    total: usize,
    bytes: Vec<u8>,
}

impl Decoder {
    pub fn new(limits: FrameLimits) -> Self {
        Self { limits, buffer: BytesMut::new(), bulk: None }
    }

    /// Where to append what the peer sent next.
    pub fn room(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < (16 << 10) {
            self.buffer.reserve(64 << 10);
        }
        &mut self.buffer
    }

    /// Whether the peer stopped between frames.
    pub fn is_between_frames(&self) -> bool {
        self.buffer.is_empty() && self.bulk.is_none()
    }

    /// The next whole frame, or none before more bytes came.
    pub fn next(&mut self) -> Result<Option<Incoming>, FrameError> {
        loop {
            let Some((kind, length)) = self.header()? else { return Ok(None) };
            if self.buffer.len() < HEADER_BYTES + length {
                return Ok(None);
            }
            self.buffer.advance(HEADER_BYTES);
            let mut payload = self.buffer.split_to(length);
            match kind {
                Kind::Control => return Ok(Some(Incoming::Frame(payload.freeze()))),
                Kind::Ping => return Ok(Some(Incoming::Ping(payload.get_u64_le()))),
                Kind::Pong => return Ok(Some(Incoming::Pong(payload.get_u64_le()))),
                Kind::BulkBegin => self.begin(payload)?,
                Kind::BulkMore => self.more(&payload)?,
            }
            if let Some(whole) = self.finished() {
                return Ok(Some(Incoming::Frame(whole)));
            }
        }
    }

    /// Kind and payload length, checked as far as they alone allow.
    fn header(&self) -> Result<Option<(Kind, usize)>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [a, b, c, d, kind] = *header;
        let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        let (kind, max) = match kind {
            1 => (Kind::Control, self.limits.control_bytes),
            2 => (Kind::BulkBegin, 4 + PIECE_BYTES),
            3 => (Kind::BulkMore, PIECE_BYTES),
            4 => (Kind::Ping, 8),
            5 => (Kind::Pong, 8),
            other => return Err(FrameError::Kind(other)),
        };
        if bytes > max {
            return Err(FrameError::TooLong { bytes, max });
        }
        match kind {
            Kind::Ping | Kind::Pong if bytes != 8 => Err(FrameError::PingLength(bytes)),
            Kind::BulkBegin if bytes <= 4 => Err(FrameError::Empty),
            _ if bytes == 0 => Err(FrameError::Empty),
            _ => Ok(Some((kind, bytes))),
        }
    }

    fn begin(&mut self, mut payload: BytesMut) -> Result<(), FrameError> {
        let (total, max) = (payload.get_u32_le() as usize, self.limits.bulk_bytes);
        if total > max {
            return Err(FrameError::TooLong { bytes: total, max });
        }
        if self.bulk.is_some() {
            return Err(FrameError::Pieces);
        }
        self.bulk = Some(Assembly { total, bytes: Vec::with_capacity(total) });
        self.more(&payload)
    }

    fn more(&mut self, piece: &[u8]) -> Result<(), FrameError> {
        let bulk = self.bulk.as_mut().ok_or(FrameError::Pieces)?;
        if bulk.bytes.len() + piece.len() > bulk.total {
            return Err(FrameError::Pieces);
        }
        bulk.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn finished(&mut self) -> Option<Bytes> {
        let whole = self.bulk.take_if(|bulk| bulk.bytes.len() == bulk.total)?;
        Some(Bytes::from(whole.bytes))
    }
}

/// The frames in a recorded stream that arrives `step` bytes at a time: how any peer's bytes are read,
/// for who wants to try some.
///
/// # Errors
/// What no sender writes.
pub fn frames_in(limits: FrameLimits, bytes: &[u8], step: usize) -> Result<Vec<Bytes>, String> {
    let mut decoder = Decoder::new(limits);
    let mut frames = Vec::new();
    for part in bytes.chunks(step) {
        decoder.room().extend_from_slice(part);
        while let Some(incoming) = decoder.next().map_err(|error| error.to_string())? {
            if let Incoming::Frame(frame) = incoming {
                frames.push(frame);
            }
        }
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: FrameLimits = FrameLimits { control_bytes: 1 << 10, bulk_bytes: 200 << 10 };

    fn decode(bytes: &[u8], step: usize) -> Result<Vec<Incoming>, FrameError> {
        let mut decoder = Decoder::new(LIMITS);
        let mut found = Vec::new();
        for part in bytes.chunks(step) {
            decoder.room().extend_from_slice(part);
            while let Some(incoming) = decoder.next()? {
                found.push(incoming);
            }
        }
        Ok(found)
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_are_split() {
        let bulk = Bytes::from((0..150_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>());
        let mut out = BytesMut::new();
        let after_first = put_piece(&mut out, &bulk, 0);
        put_control(&mut out, b"vote");
        let after_second = put_piece(&mut out, &bulk, after_first);
        put_ping(&mut out, 7);
        assert_eq!(put_piece(&mut out, &bulk, after_second), bulk.len());
        put_pong(&mut out, 8);
        assert_eq!(put_piece(&mut out, b"short", 0), 5);
        let expected = vec![
            Incoming::Frame(Bytes::from_static(b"vote")),
            Incoming::Ping(7),
            Incoming::Frame(bulk),
            Incoming::Pong(8),
            Incoming::Frame(Bytes::from_static(b"short")),
        ];
        for step in [1, 3, 1_000, 65_541, usize::MAX] {
            assert_eq!(decode(&out, step), Ok(expected.clone()), "in steps of {step}");
        }
    }

    #[test]
    fn what_no_sender_writes_is_refused_before_it_is_stored() {
        let header = |length: u32, kind: u8| [&length.to_le_bytes()[..], &[kind]].concat();
        let begin = |total: u32| [header(5, 2), total.to_le_bytes().to_vec(), vec![1]].concat();
        for (bytes, expected) in [
            (header(1_025, 1), FrameError::TooLong { bytes: 1_025, max: 1_024 }),
            (header(u32::MAX, 3), FrameError::TooLong { bytes: u32::MAX as usize, max: 65_536 }),
            (header(4, 9), FrameError::Kind(9)),
            (header(7, 4), FrameError::PingLength(7)),
            (header(0, 1), FrameError::Empty),
            (header(4, 2), FrameError::Empty),
            (begin(u32::MAX), FrameError::TooLong { bytes: u32::MAX as usize, max: 200 << 10 }),
            (begin(0), FrameError::Pieces),
            ([begin(9), begin(9)].concat(), FrameError::Pieces),
            ([header(1, 3), vec![1]].concat(), FrameError::Pieces),
        ] {
            assert_eq!(decode(&bytes, usize::MAX), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic_or_hold_more_than_its_limits(
            bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
            kinds in proptest::collection::vec(0_u8..7, 0..20),
        ) {
            let mut stream = Vec::new();
            for (at, kind) in kinds.iter().enumerate() {
                let payload = &bytes[..bytes.len().min(at * 7)];
                stream.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_le_bytes());
                stream.push(*kind);
                stream.extend_from_slice(payload);
            }
            stream.extend_from_slice(&bytes);
            if let Ok(found) = decode(&stream, 100) {
                for incoming in found {
                    if let Incoming::Frame(frame) = incoming {
                        prop_assert!(frame.len() <= LIMITS.bulk_bytes);
                    }
                }
            }
        }
    }
}
