//! A replica of a demo network that lies on request, so that people can watch the others prove it. The
//! core stays honest: this signs more with the replica's key, on the way out.

use std::sync::Arc;

use crate::chain::{BlockParts, Phase, Vote};
use crate::crypto::Scheme;
use crate::ordering::Message;
use crate::types::{ClusterId, Digest, ReplicaId};

/// How long one request to lie lasts.
const LIE_MS: u64 = 10_000;

/// Exists only where the genesis says `demo`.
pub(super) struct Liar {
    own: ReplicaId,
    cluster_id: ClusterId,
    scheme: Arc<dyn Scheme>,
    until_ms: u64,
}

impl Liar {
    pub(super) fn new(own: ReplicaId, cluster_id: ClusterId, scheme: Arc<dyn Scheme>) -> Self {
        Self { own, cluster_id, scheme, until_ms: 0 }
    }

    pub(super) fn begin(&mut self, now_ms: u64) {
        self.until_ms = now_ms + LIE_MS;
    }

    /// What every second peer is told in place of `message`, if that is a lie worth telling.
    pub(super) fn other_face(&self, message: &Message, now_ms: u64) -> Option<Message> {
        if now_ms >= self.until_ms {
            return None;
        }
        match message {
            Message::Votes(votes) => {
                Some(Message::Votes(votes.iter().map(|vote| self.contradiction(vote)).collect()))
            }
            Message::PrePrepare { block, .. } if block.header.proposer == self.own => {
                let mut header = block.header.clone();
                header.time_ms = header.time_ms.next();
                let block = Arc::new(BlockParts::new(block.entries.clone()).into_block(header));
                let header = &block.header;
                let round = (Phase::Prepare, header.epoch, header.view);
                let prepare = self.sign(round, (header.height, vec![block.hash()]));
                Some(Message::PrePrepare { block, prepare })
            }
            _ => None,
        }
    }

    /// A vote at the same place for blocks that nobody proposed.
    fn contradiction(&self, vote: &Vote) -> Vote {
        let invert = |hash: &Digest| Digest(hash.0.map(|byte| !byte));
        let hashes = vote.signed.hashes.iter().map(invert).collect();
        self.sign((vote.phase, vote.epoch, vote.view), (vote.signed.from_height, hashes))
    }

    fn sign(
        &self,
        round: (Phase, crate::types::Epoch, crate::types::View),
        range: (crate::types::Height, Vec<Digest>),
    ) -> Vote {
        Vote::sign(round, self.own, range, &self.cluster_id, self.scheme.as_ref())
    }
}
