//! What peers sent and the core has not seen: one queue per peer, served in turn, each at its own
//! pace. A peer that sends more than its share waits for itself alone: its frames stay unsettled, so
//! its connection is not read (protocol.md 10.2).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::net::Receipt;
use crate::types::{Bucket, ReplicaId};

/// Messages a peer may send per second, and at once after a pause: several for each block and bundle
/// of a full pipeline.
const MESSAGES_PER_SECOND: u64 = 4_000;
/// Bytes likewise: hashing them takes about a tenth of a core; a state transfer needs less from one
/// peer.
const BYTES_PER_SECOND: u64 = 128 << 20;
/// What a message of no use counts for: hardly any of a correct peer's is, so it never waits for that.
const WASTE_COSTS: u64 = 20;

struct Queue<T> {
    frames: VecDeque<(Bytes, T)>,
    messages: Bucket,
    bytes: Bucket,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self {
            frames: VecDeque::new(),
            messages: Bucket::full(MESSAGES_PER_SECOND),
            bytes: Bucket::full(BYTES_PER_SECOND),
        }
    }

    /// Milliseconds until the first frame may be taken; None if there is none.
    fn wait_ms(&mut self, now_ms: u64) -> Option<u64> {
        let (frame, _) = self.frames.front()?;
        let bytes = self.bytes.wait_ms(frame.len() as u64, now_ms);
        Some(self.messages.wait_ms(1, now_ms).max(bytes))
    }
}

/// All peers' queues. What waits is bounded by what the network lets each peer have unsettled.
pub(super) struct Intake<T = Receipt> {
    queues: BTreeMap<ReplicaId, Queue<T>>,
    /// Served last.
    last: ReplicaId,
}

impl<T> Default for Intake<T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), last: ReplicaId(0) }
    }
}

impl<T> Intake<T> {
    /// Puts a frame at the end of its peer's queue.
    pub(super) fn push(&mut self, peer: ReplicaId, frame: Bytes, receipt: T) {
        self.queues.entry(peer).or_insert_with(Queue::new).frames.push_back((frame, receipt));
    }

    /// The next peer's next frame, if one may be taken now.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<(ReplicaId, Bytes, T)> {
        let after = |id: &ReplicaId| *id > self.last;
        let ids: Vec<ReplicaId> = self.queues.keys().copied().collect();
        let turn = ids.iter().filter(|id| after(id)).chain(ids.iter().filter(|id| !after(id)));
        for id in turn {
            let Some(queue) = self.queues.get_mut(id) else { continue };
            if queue.wait_ms(now_ms) != Some(0) {
                continue;
            }
            let Some((frame, receipt)) = queue.frames.pop_front() else { continue };
            queue.messages.take(1);
            queue.bytes.take(frame.len() as u64);
            self.last = *id;
            return Some((*id, frame, receipt));
        }
        None
    }

    /// Lets a peer pay for `count` useless messages of so many bytes in all, by waiting (protocol.md 10.4).
    pub(super) fn charge(&mut self, peer: ReplicaId, count: u64, bytes: usize) {
        let Some(queue) = self.queues.get_mut(&peer) else { return };
        // Once it was paid when it was taken.
        let more = WASTE_COSTS - 1;
        queue.messages.owe(count.saturating_mul(more));
        queue.bytes.owe((bytes as u64).saturating_mul(more));
    }

    /// Milliseconds until a frame may be taken; None if none waits.
    pub(super) fn wait_ms(&mut self, now_ms: u64) -> Option<u64> {
        self.queues.values_mut().filter_map(|queue| queue.wait_ms(now_ms)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = &[0; 100];

    fn push(intake: &mut Intake<()>, peer: u16, count: usize) {
        (0..count).for_each(|_| intake.push(ReplicaId(peer), Bytes::from_static(FRAME), ()));
    }

    fn served(intake: &mut Intake<()>, now_ms: u64, most: usize) -> BTreeMap<u16, usize> {
        let mut served = BTreeMap::new();
        for _ in 0..most {
            let Some((peer, ..)) = intake.pop(now_ms) else { break };
            *served.entry(peer.0).or_default() += 1;
        }
        served
    }

    #[test]
    fn a_flood_is_served_in_turn_with_the_others() {
        let mut intake = Intake::default();
        push(&mut intake, 1, 5000);
        push(&mut intake, 2, 3);
        push(&mut intake, 3, 3);
        assert_eq!(served(&mut intake, 0, 9), BTreeMap::from([(1, 3), (2, 3), (3, 3)]));
    }

    #[test]
    fn above_its_budget_a_peer_waits_and_the_others_do_not() {
        let mut intake = Intake::default();
        push(&mut intake, 1, 20_000);
        let second = usize::try_from(MESSAGES_PER_SECOND).expect("small");
        assert_eq!(served(&mut intake, 5, 20_000)[&1], second);
        assert_eq!(intake.wait_ms(5), Some(1));
        push(&mut intake, 2, 1);
        assert_eq!(intake.wait_ms(5), Some(0));
        assert_eq!(served(&mut intake, 5, 10), BTreeMap::from([(2, 1)]));
        assert_eq!(served(&mut intake, 505, 20_000)[&1], second / 2);
    }

    #[test]
    fn who_sends_nothing_of_use_is_listened_to_less() {
        let mut intake = Intake::default();
        push(&mut intake, 1, 20_000);
        push(&mut intake, 2, 20_000);
        let mut taken = BTreeMap::<u16, u64>::new();
        for now_ms in 0..10_000 {
            while let Some((peer, ..)) = intake.pop(now_ms) {
                *taken.entry(peer.0).or_default() += 1;
                if peer == ReplicaId(1) {
                    intake.charge(peer, 1, FRAME.len());
                }
            }
        }
        // The second's worth it began with, then what is earned in ten.
        assert!(taken[&1] <= 11 * MESSAGES_PER_SECOND / WASTE_COSTS + 1, "{taken:?}");
        assert_eq!(taken[&2], 20_000);
    }

    #[test]
    fn a_frame_above_a_seconds_bytes_still_passes() {
        let mut intake = Intake::default();
        let huge = Bytes::from(vec![0; (BYTES_PER_SECOND as usize) + 1]);
        intake.push(ReplicaId(1), huge.clone(), ());
        intake.push(ReplicaId(1), huge, ());
        assert!(intake.pop(0).is_some());
        assert!(intake.pop(500).is_none());
        assert!(intake.pop(1000).is_some());
        assert_eq!(intake.wait_ms(1000), None);
    }
}
