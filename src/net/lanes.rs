use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::frame::{FrameLimits, PIECE_BYTES, put_control, put_piece, put_ping};

/// How urgent a frame is. Within a lane order is kept; between lanes it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Votes, view changes, status: small, and first.
    Control,
    /// Blocks, bundles, pages, chunks.
    Bulk,
}

/// What waits to be sent to one peer. Bounded: a peer that does not read costs a fixed amount of
/// memory and its frames, which the protocol sends again when it must.
pub(super) struct Lanes {
    limits: FrameLimits,
    queue_bytes_max: usize,
    queues: Mutex<Queues>,
    filled: Notify,
}

#[derive(Default)]
struct Queues {
    /// Frames are taken only while a link stands: after a pause the protocol knows better what is
    /// still worth sending.
    open: bool,
    ping: Option<u64>,
    control: VecDeque<Bytes>,
    control_bytes: usize,
    bulk: VecDeque<Bytes>,
    bulk_bytes: usize,
    /// How much of the first bulk frame is written.
    bulk_offset: usize,
}

impl Lanes {
    pub fn new(limits: FrameLimits, queue_bytes_max: usize) -> Self {
        let queues = Mutex::new(Queues::default());
        Self { limits, queue_bytes_max, queues, filled: Notify::new() }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Queues) -> R) -> R {
        // Nothing below panics between two changes, so a poisoned lock cannot guard half a change.
        f(&mut self.queues.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub fn open(&self) {
        self.with(|queues| *queues = Queues { open: true, ..Queues::default() });
    }

    pub fn close(&self) {
        self.with(|queues| *queues = Queues::default());
    }

    /// Whether the frame was queued.
    pub fn push(&self, frame: Bytes, lane: Lane) -> bool {
        let max = match lane {
            Lane::Control => self.limits.control_bytes,
            Lane::Bulk => self.limits.bulk_bytes,
        };
        if frame.is_empty() || frame.len() > max {
            return false;
        }
        let queued = self.with(|queues| {
            let (queue, bytes) = match lane {
                Lane::Control => (&mut queues.control, &mut queues.control_bytes),
                Lane::Bulk => (&mut queues.bulk, &mut queues.bulk_bytes),
            };
            let fits = *bytes + frame.len() <= self.queue_bytes_max;
            if queues.open && fits {
                *bytes += frame.len();
                queue.push_back(frame);
            }
            queues.open && fits
        });
        if queued {
            self.filled.notify_one();
        }
        queued
    }

    /// Goes out before everything else.
    pub fn ping(&self, nonce: u64) {
        self.with(|queues| queues.ping = Some(nonce));
        self.filled.notify_one();
    }

    /// Waits until something was queued since the last [`Lanes::fill`] that found nothing.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Appends what goes out next, control first, until a write is worth its while. Returns whether
    /// there was anything.
    pub fn fill(&self, out: &mut BytesMut) -> bool {
        self.with(|queues| {
            if let Some(nonce) = queues.ping.take() {
                put_ping(out, nonce);
            }
            while out.len() < PIECE_BYTES {
                let Some(frame) = queues.control.pop_front() else { break };
                queues.control_bytes -= frame.len();
                put_control(out, &frame);
            }
            while out.len() < PIECE_BYTES {
                let Some(frame) = queues.bulk.front() else { break };
                queues.bulk_offset = put_piece(out, frame, queues.bulk_offset);
                if queues.bulk_offset == frame.len() {
                    queues.bulk_bytes -= frame.len();
                    queues.bulk_offset = 0;
                    queues.bulk.pop_front();
                }
            }
        });
        !out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Decoder, Incoming};
    use super::*;

    const LIMITS: FrameLimits = FrameLimits { control_bytes: 100, bulk_bytes: 1 << 20 };

    #[test]
    fn control_overtakes_a_bulk_frame_between_its_pieces() {
        let lanes = Lanes::new(LIMITS, 2 << 20);
        lanes.open();
        assert!(lanes.push(Bytes::from(vec![7; 300_000]), Lane::Bulk));
        let (mut decoder, mut out) = (Decoder::new(LIMITS), BytesMut::new());
        assert!(lanes.fill(&mut out));
        assert!(lanes.push(Bytes::from_static(b"vote"), Lane::Control));
        let mut found = Vec::new();
        loop {
            decoder.room().extend_from_slice(&out.split());
            while let Some(incoming) = decoder.next().expect("well-formed") {
                found.push(incoming);
            }
            if !lanes.fill(&mut out) {
                break;
            }
        }
        let lengths: Vec<usize> = found
            .iter()
            .map(|incoming| match incoming {
                Incoming::Frame(frame) => frame.len(),
                _ => 0,
            })
            .collect();
        assert_eq!(lengths, [4, 300_000]);
    }

    #[test]
    fn a_full_or_closed_queue_takes_nothing_and_empties_to_its_old_room() {
        let lanes = Lanes::new(LIMITS, 250);
        let frame = || Bytes::from(vec![1; 100]);
        assert!(!lanes.push(frame(), Lane::Control), "no link yet");
        lanes.open();
        assert!(lanes.push(frame(), Lane::Control) && lanes.push(frame(), Lane::Control));
        assert!(!lanes.push(frame(), Lane::Control), "full");
        assert!(lanes.push(frame(), Lane::Bulk), "the other lane has its own room");
        assert!(!lanes.push(Bytes::from(vec![1; 101]), Lane::Control), "above the lane's limit");
        assert!(!lanes.push(Bytes::new(), Lane::Control), "empty");
        let mut out = BytesMut::new();
        assert!(lanes.fill(&mut out));
        assert!(lanes.push(frame(), Lane::Control) && lanes.push(frame(), Lane::Control));
        lanes.close();
        assert!(!lanes.push(frame(), Lane::Control));
        out.clear();
        assert!(!lanes.fill(&mut out), "what waited for a lost link is gone");
    }
}
