//! A chain of one bundle a block, executed by two replicas: one that answers, one that does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use althing::apply::{self, Reply};
use althing::chain::{
    Author, BlockHeader, BlockParts, Bundle, BundleParts, Entry, Genesis, GenesisMember, Op,
    Ownership, Parameters, Skeleton, Value, ValueError, ValueRef, ValueSlot, ValueSource,
};
use althing::crypto::Scheme;
use althing::state::State;
use althing::types::{Digest, Epoch, Height, Millis, OrgId, ReplicaId, View};
use bytes::Bytes;

use crate::sim::scheme::KeyRing;

/// Values where a log would keep them.
#[derive(Default)]
pub(super) struct Kept(BTreeMap<u32, Value>);

impl ValueSource for Kept {
    fn read(&self, at: ValueRef) -> Result<Value, ValueError> {
        Ok(self.0.get(&at.offset).cloned().expect("it was put there"))
    }
}

impl Kept {
    fn keep(&mut self, value: &Value) -> ValueRef {
        let offset = u32::try_from(self.0.len()).expect("few values");
        let length = u32::try_from(value.bytes.len()).expect("small values");
        self.0.insert(offset, value.clone());
        ValueRef { segment: 1, offset, length, check: Value::check(&value.commitment()) }
    }
}

/// The values of a bundle under construction.
#[derive(Default)]
pub(super) struct Operands(pub Vec<Value>);

impl Operands {
    pub(super) fn slot(&mut self, bytes: &[u8]) -> ValueSlot {
        let index = u32::try_from(self.0.len()).expect("few values");
        let salt = [index.to_le_bytes()[0]; 16];
        let value = Value { salt, bytes: Bytes::copy_from_slice(bytes) };
        let commitment = value.commitment();
        self.0.push(value);
        ValueSlot { index, commitment }
    }
}

/// The chain, and the states behind it.
pub(super) struct Chain {
    pub genesis: Genesis,
    pub header: BlockHeader,
    pub state: State,
    pub kept: Kept,
    /// Of a replica that answers nobody.
    other: State,
    scheme: Arc<dyn Scheme>,
    sequence: BTreeMap<u16, u64>,
}

/// A network of organisations with a replica each, which have these keys.
pub(super) fn genesis(keys: &[althing::crypto::PublicKey]) -> Genesis {
    let member = |(id, key): (u16, &_)| GenesisMember {
        id: ReplicaId(id),
        organisation: OrgId(id),
        name: format!("member {id}"),
        key: *key,
        governance_keys: Vec::new(),
        client_urls: Vec::new(),
        peer_address: String::new(),
    };
    Genesis {
        ownership: Ownership::Many,
        demo: false,
        salt: [5; 32],
        created_ms: Millis(0),
        members: (0..).zip(keys).map(member).collect(),
        parameters: Parameters::default(),
        initial: None,
    }
}

impl Chain {
    pub(super) fn new(organisations: u16) -> Self {
        let secrets: Vec<[u8; 32]> =
            (0..organisations).map(|id| [id.to_le_bytes()[0] + 1; 32]).collect();
        let (ring, keys) = KeyRing::new(&secrets);
        let genesis = genesis(&keys);
        let header = BlockHeader {
            flags: 0,
            cluster_id: genesis.cluster_id(),
            epoch: Epoch(0),
            height: Height(0),
            view: View(0),
            proposer: ReplicaId(0),
            time_ms: Millis(0),
            parent: Digest::ZERO,
            body_root: Digest::ZERO,
            skeleton_len: 0,
            values_len: 0,
            n_ops: 0,
            exec_height: Height(0),
            exec_root: Digest::ZERO,
            config_hash: Digest::ZERO,
        };
        Self {
            header,
            state: State::genesis(&genesis),
            kept: Kept::default(),
            other: State::genesis(&genesis),
            scheme: ring.scheme(secrets[0]),
            sequence: BTreeMap::new(),
            genesis,
        }
    }

    /// Executes ops of one organisation's clients `gained_ms` after the block before; their replies.
    pub(super) fn execute(
        &mut self,
        gained_ms: u64,
        origin: ReplicaId,
        ops: Vec<(Author, Op)>,
        operands: Operands,
    ) -> Vec<Reply> {
        self.header.height = self.header.height.next();
        self.header.time_ms = self.header.time_ms.plus(gained_ms);
        let sequence = self.sequence.entry(origin.0).or_default();
        let first_seq = core::mem::replace(sequence, *sequence + ops.len() as u64);
        let parts = BundleParts {
            origin,
            session: 1,
            first_seq,
            not_after_ms: Millis(u64::MAX),
            skeletons: ops.into_iter().map(|(author, op)| Skeleton { author, op }).collect(),
            values: operands.0,
        };
        let bundle = Bundle::sign(parts, &self.header.cluster_id, self.scheme.as_ref());
        let refs: Vec<ValueRef> = bundle.values.iter().map(|value| self.kept.keep(value)).collect();
        let parts = BlockParts::new(vec![Entry::Bundle(bundle)]);
        let block = parts.into_block(self.header.clone());
        self.header = block.header.clone();
        let nobody = ReplicaId(u16::MAX);
        let done = apply::execute(
            &mut self.state,
            &block,
            core::slice::from_ref(&refs),
            &self.kept,
            origin,
        );
        let done = done.expect("all values");
        let silent = apply::execute(&mut self.other, &block, &[refs], &self.kept, nobody);
        let silent = silent.expect("all values");
        assert_eq!(done.effects, silent.effects, "who answers is of no matter");
        assert_eq!(done.revision, silent.revision);
        done.replies.into_iter().map(|(_, _, reply)| reply).collect()
    }
}
