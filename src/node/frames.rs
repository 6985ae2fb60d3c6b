//! From peers' frames to the core, and what useless ones cost (protocol.md 10).

use bytes::Bytes;

use crate::codec::Decode;
use crate::node::run::Replica;
use crate::ordering::{Input, Message};
use crate::types::ReplicaId;

/// Frames given to the core before outputs are carried out: enough to batch, few enough to stay quick.
const FRAMES_PER_TURN: usize = 512;
/// And so long at most: timers and clients wait meanwhile.
const FRAMES_TURN_MS: u64 = 10;

impl Replica {
    /// Peers in turn, some frames of each.
    pub(super) fn take_frames(&mut self) {
        let now = self.clock.mono_ms();
        for taken in 0..FRAMES_PER_TURN {
            if taken % 16 == 0 && self.clock.mono_ms() >= now + FRAMES_TURN_MS {
                break;
            }
            let Some((peer, frame, _receipt)) = self.intake.pop(now) else { break };
            self.take_frame(peer, frame);
        }
    }

    /// What was of no use costs its peer more. Bytes of bundles do not: where blocks are late, correct
    /// origins send theirs to all.
    fn take_frame(&mut self, peer: ReplicaId, frame: Bytes) {
        let length = frame.len();
        match Message::from_bytes(frame) {
            Ok(message) => {
                let repeated = matches!(message, Message::Bundle(_));
                self.step(Input::Recv { peer, message });
                let wasted = self.core.take_wasted(peer);
                if wasted > 0 {
                    self.intake.charge(peer, wasted, if repeated { 0 } else { length });
                }
            }
            Err(error) => {
                self.complain(peer, &error.to_string());
                self.intake.charge(peer, 1, length);
            }
        }
    }

    /// Says that a peer sends garbage, once a second at most.
    fn complain(&mut self, peer: ReplicaId, error: &str) {
        let now = self.clock.mono_ms();
        if now >= self.complained_ms + 1000 {
            self.complained_ms = now;
            tracing::warn!(event = "bad_message", peer = peer.0, "a peer sent {error}");
        }
    }
}
