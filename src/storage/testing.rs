//! Small chains for the tests of the log and the index.

use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{
    Author, Block, BlockHeader, BlockParts, Bundle, BundleParts, Certificate, Entry, Op, Phase,
    Put, Record, Skeleton, Value, ValueSlot,
};
use crate::crypto::Ed25519;
use crate::types::{Digest, Epoch, Height, LeaseId, Millis, ReplicaId, View};

pub(super) const NETWORK: Digest = Digest([7; 32]);

/// A header of view 0 at a height, with nothing in its block.
pub(super) fn header(height: u64) -> BlockHeader {
    BlockHeader {
        flags: 0,
        cluster_id: NETWORK,
        epoch: Epoch(0),
        height: Height(height),
        view: View(0),
        proposer: ReplicaId(0),
        time_ms: Millis(height),
        parent: Digest::ZERO,
        body_root: Digest::ZERO,
        skeleton_len: 0,
        values_len: 0,
        n_ops: 0,
        exec_height: Height(0),
        exec_root: Digest::ZERO,
        config_hash: Digest::ZERO,
    }
}

/// A block of puts, each (key, client name).
pub(super) fn block_on(parent: Option<&Block>, view: u64, puts: &[(&[u8], &[u8])]) -> Arc<Block> {
    let height = parent.map_or(Height(1), |block| block.header.height.next());
    let mut values = Vec::new();
    let mut skeletons = Vec::new();
    for ((key, client), index) in puts.iter().zip(0_u32..) {
        let value = Value { salt: [3; 16], bytes: Bytes::from(format!("{view} {height}")) };
        let slot = ValueSlot { index, commitment: value.commitment() };
        values.push(value);
        let put = Put {
            key: Bytes::copy_from_slice(key),
            value: Some(slot),
            lease: LeaseId(0),
            prev_kv: false,
            ignore_lease: false,
        };
        let client_name = Bytes::copy_from_slice(client);
        let author = Author { client_name, ..Author::default() };
        skeletons.push(Skeleton { author, op: Op::Put(put) });
    }
    let parts = BundleParts {
        origin: ReplicaId(1),
        session: 1,
        first_seq: height.0,
        not_after_ms: Millis(1),
        skeletons,
        values,
    };
    let bundle = Bundle::sign(parts, &NETWORK, &Ed25519::from_seed(&[1; 32]));
    let block = BlockParts::new(vec![Entry::Bundle(bundle)]).into_block(BlockHeader {
        view: View(view),
        time_ms: Millis(1),
        parent: parent.map_or(Digest::ZERO, Block::hash),
        ..header(height.0)
    });
    Arc::new(block)
}

/// Blocks of one put each.
pub(super) fn chain_of(length: usize) -> Vec<Arc<Block>> {
    let mut chain: Vec<Arc<Block>> = Vec::new();
    for _ in 0..length {
        chain.push(block_on(chain.last().map(|block| &**block), 0, &[(b"key", b"client")]));
    }
    chain
}

/// The record of a certificate, whose signatures nobody checks here.
pub(super) fn commit(block: &Block) -> Record {
    Record::Committed(Certificate {
        phase: Phase::Commit,
        epoch: Epoch(0),
        view: block.header.view,
        height: block.header.height,
        block_hash: block.hash(),
        signatures: Vec::new(),
    })
}
