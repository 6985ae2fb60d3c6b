//! What tests of `state` and `apply` share: a small network, values in memory, blocks.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::chain::{
    Author, Block, BlockHeader, BlockParts, Bundle, BundleParts, CompareTarget, Entry, Genesis,
    GenesisMember, Op, Ownership, Parameters, Put, Skeleton, Value, ValueError, ValueRef,
    ValueSlot, ValueSource,
};
use crate::crypto::{Ed25519, PublicKey};
use crate::types::{Digest, Epoch, Height, LeaseId, Millis, OrgId, ReplicaId, View};

/// Values kept in memory: the reference's segment is the block's height.
#[derive(Clone, Default)]
pub struct MapValues(pub BTreeMap<(u32, u32), Value>);

impl ValueSource for MapValues {
    fn read(&self, at: ValueRef) -> Result<Value, ValueError> {
        self.0.get(&(at.segment, at.offset)).cloned().ok_or(ValueError::Erased(at))
    }
}

pub fn genesis() -> Genesis {
    let members = (0_u8..4)
        .map(|id| GenesisMember {
            id: ReplicaId(u16::from(id)),
            organisation: OrgId(u16::from(id)),
            name: format!("org{id}"),
            key: PublicKey([id; 32]),
            governance_keys: Vec::new(),
            client_urls: Vec::new(),
            peer_address: String::new(),
        })
        .collect();
    Genesis {
        ownership: Ownership::Many,
        demo: false,
        salt: [7; 32],
        created_ms: Millis(0),
        members,
        parameters: Parameters { quota_bytes: 100_000, ..Parameters::default() },
        initial: None,
    }
}

/// An op whose value slots stand for `values`, in slot order.
pub fn put(key: &str) -> Op {
    Op::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(slot()),
        lease: LeaseId(0),
        prev_kv: true,
        ignore_lease: false,
    })
}

pub fn slot() -> ValueSlot {
    ValueSlot { index: 0, commitment: Digest::ZERO }
}

/// One origin's requests in a block.
pub struct Request {
    pub origin: u16,
    pub first_seq: u64,
    pub not_after_ms: u64,
    pub author: Author,
    pub ops: Vec<(Op, Vec<&'static str>)>,
}

impl Request {
    pub fn new(first_seq: u64, ops: Vec<(Op, Vec<&'static str>)>) -> Self {
        let author = Author { client_name: "test".into(), ..Author::default() };
        Self { origin: 0, first_seq, not_after_ms: u64::MAX, author, ops }
    }

    fn bundle(mut self, salt: u64) -> Bundle {
        let mut values = Vec::new();
        let mut skeletons = Vec::new();
        for (op, texts) in &mut self.ops {
            let mut texts = texts.iter();
            op.for_each_slot(&mut |slot| {
                let bytes = Bytes::from_static(texts.next().expect("a value per slot").as_bytes());
                let mut value = Value { salt: [0; 16], bytes };
                value.salt[..8].copy_from_slice(&(salt * 1000 + values.len() as u64).to_le_bytes());
                slot.index = u32::try_from(values.len()).expect("few values");
                slot.commitment = value.commitment();
                values.push(value);
            });
            assert!(texts.next().is_none(), "a slot per value");
            skeletons.push(Skeleton { author: self.author.clone(), op: op.clone() });
        }
        let parts = BundleParts {
            origin: ReplicaId(self.origin),
            session: 1,
            first_seq: self.first_seq,
            not_after_ms: Millis(self.not_after_ms),
            skeletons,
            values,
        };
        Bundle::sign(parts, &Digest::ZERO, &Ed25519::from_seed(&[1; 32]))
    }
}

/// The block of these requests, and where its values are kept in `values`.
pub fn block(
    height: u64,
    time_ms: u64,
    requests: Vec<Request>,
    values: &mut MapValues,
) -> (Block, Vec<Vec<ValueRef>>) {
    let entries =
        requests.into_iter().map(|request| Entry::Bundle(request.bundle(height))).collect();
    let header = BlockHeader {
        flags: 0,
        cluster_id: Digest::ZERO,
        epoch: Epoch(0),
        height: Height(height),
        view: View(0),
        proposer: ReplicaId(0),
        time_ms: Millis(time_ms),
        parent: Digest::ZERO,
        body_root: Digest::ZERO,
        skeleton_len: 0,
        values_len: 0,
        n_ops: 0,
        exec_height: Height(0),
        exec_root: Digest::ZERO,
        config_hash: Digest::ZERO,
    };
    let block = BlockParts::new(entries).into_block(header);
    let refs = keep(&block, u32::try_from(height).expect("few blocks"), values);
    (block, refs)
}

/// Keeps a block's values under a segment of this number.
pub fn keep(block: &Block, segment: u32, values: &mut MapValues) -> Vec<Vec<ValueRef>> {
    let mut refs = Vec::new();
    for (entry, offsets) in block.entries.iter().zip(block.value_offsets()) {
        let Entry::Bundle(bundle) = entry else {
            refs.push(Vec::new());
            continue;
        };
        let places = bundle.values.iter().zip(offsets).map(|(value, offset)| {
            values.0.insert((segment, offset), value.clone());
            let length = u32::try_from(value.bytes.len()).expect("short values");
            ValueRef { segment, offset, length, check: 0 }
        });
        refs.push(places.collect());
    }
    refs
}

pub fn value_target() -> CompareTarget {
    CompareTarget::Value(slot())
}
