//! A checkpoint's content: canonical chunks of everything replicated, each key with all its versions
//! that the compact revision leaves visible, values with their salts. Equal states give equal bytes,
//! whatever was swept, wherever values are kept (consensus.md 8, state.md 0.4).
//!
//! A snapshot is taken in slices while the state moves on: the small sub-states are copied at its
//! beginning, the keys' history serves the cut.

use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{CHUNK_FORMAT, Value, ValueError, ValueRef, ValueSource};
use crate::codec::{Encode, Writer};
use crate::planted::{self, Bug};
use crate::state::State;
use crate::state::kv::{Item, Kv};
use crate::types::{Digest, LeaseId, Millis, Revision};

/// Most bytes of a chunk, unless a single version is larger. A key with more goes on in the next one.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The first byte of a chunk.
pub(super) const HEAD: u8 = 1;
pub(super) const LEASES: u8 = 2;
pub(super) const KEYS: u8 = 3;
pub(super) const AUTH: u8 = 4;

/// Version of the format.
pub(super) const FORMAT: u16 = CHUNK_FORMAT;

/// Encoded bytes of a lease, and of a version and a delete beside key and value.
const LEASE_BYTES: usize = 24;
const RECORD_BYTES: usize = 8;
const PUT_BYTES: usize = 57;
const DELETE_BYTES: usize = 13;

/// Takes a snapshot of the state as it was at [`Snapshotter::begin`].
pub struct Snapshotter {
    /// The head, then an organisation's users and roles each.
    small: std::vec::IntoIter<Bytes>,
    leases: std::vec::IntoIter<(LeaseId, i64, Millis)>,
    compact: Revision,
    cut: Revision,
    /// Where the next chunk goes on: a key, and how many of its versions are written; None behind the
    /// last key.
    from: Option<(Vec<u8>, usize)>,
    /// Keeps the history the cut needs.
    _pin: Arc<()>,
}

/// A chunk whose values are still to be read: made under the state's lock, written outside it.
pub struct ChunkPlan {
    kind: PlanKind,
}

enum PlanKind {
    Ready(Bytes),
    Keys(Vec<(Bytes, Vec<Item>)>),
}

impl Snapshotter {
    /// Begins a snapshot of this very state, between two blocks.
    #[must_use]
    pub fn begin(state: &mut State) -> Self {
        let mut leases: Vec<_> =
            state.leases.list().map(|lease| (lease.id, lease.ttl_seconds, lease.expiry)).collect();
        leases.sort();
        let auth = state.auth.chunks(AUTH);
        let small = [vec![head(state, leases.len(), auth.len())], auth].concat();
        Self {
            small: small.into_iter(),
            leases: leases.into_iter(),
            compact: state.kv.compact_revision(),
            cut: state.kv.revision(),
            from: Some((Vec::new(), 0)),
            _pin: state.kv.pin(),
        }
    }

    /// Plans the next chunk; None behind the last. The state may have moved on.
    pub fn plan_chunk(&mut self, state: &State) -> Option<ChunkPlan> {
        if let Some(chunk) = self.small.next() {
            return Some(ChunkPlan { kind: PlanKind::Ready(chunk) });
        }
        if self.leases.len() > 0 {
            let mut writer = Writer::new();
            writer.u8(LEASES);
            let count = self.leases.len().min((CHUNK_BYTES_MAX - 8) / LEASE_BYTES);
            writer.length(count);
            for (id, ttl_seconds, expiry) in self.leases.by_ref().take(count) {
                writer.i64(id.0);
                writer.i64(ttl_seconds);
                writer.u64(expiry.0);
            }
            return Some(ChunkPlan { kind: PlanKind::Ready(writer.finish()) });
        }
        let records = self.plan_keys(&state.kv);
        (!records.is_empty()).then_some(ChunkPlan { kind: PlanKind::Keys(records) })
    }

    fn plan_keys(&mut self, kv: &Kv) -> Vec<(Bytes, Vec<Item>)> {
        let Some((from, written)) = self.from.take() else { return Vec::new() };
        let mut records = Vec::new();
        let mut bytes = RECORD_BYTES;
        let mut next = None;
        let cut = if planted::is(Bug::RevisionApart) { kv.revision() } else { self.cut };
        kv.visit_items(&from, self.compact, cut, &mut |key, mut items| {
            let written = if *key == *from { written } else { 0 };
            items.drain(..written);
            let size = record_bytes(key, &items);
            if bytes + size <= CHUNK_BYTES_MAX {
                bytes += size;
                records.push((Bytes::copy_from_slice(key), items));
                return core::ops::ControlFlow::Continue(());
            }
            if !records.is_empty() {
                next = Some((key.to_vec(), written));
                return core::ops::ControlFlow::Break(());
            }
            let fitting = fitting(key, &items);
            if fitting < items.len() {
                items.truncate(fitting);
                next = Some((key.to_vec(), written + fitting));
            } else {
                next = Some(([key, &[0]].concat(), 0));
            }
            records.push((Bytes::copy_from_slice(key), items));
            core::ops::ControlFlow::Break(())
        });
        self.from = next;
        records
    }

    /// Plans and writes the next chunk at once; None behind the last.
    ///
    /// # Errors
    /// A value cannot be read.
    pub fn next_chunk(
        &mut self,
        state: &State,
        values: &dyn ValueSource,
    ) -> Result<Option<Bytes>, ValueError> {
        self.plan_chunk(state).map(|plan| plan.write(values)).transpose()
    }
}

fn item_bytes(item: &Item) -> usize {
    match item {
        Item::Put { version, .. } => PUT_BYTES + version.value.length as usize,
        Item::Delete { .. } => DELETE_BYTES,
    }
}

fn record_bytes(key: &[u8], items: &[Item]) -> usize {
    RECORD_BYTES + key.len() + items.iter().map(item_bytes).sum::<usize>()
}

/// How many of a key's versions, at least one, fill a chunk of their own.
fn fitting(key: &[u8], items: &[Item]) -> usize {
    let mut bytes = 2 * RECORD_BYTES + key.len();
    let fits = items.iter().take_while(|item| {
        bytes += item_bytes(item);
        bytes <= CHUNK_BYTES_MAX
    });
    fits.count().max(1)
}

impl ChunkPlan {
    /// Reads the values and writes the chunk's bytes.
    ///
    /// # Errors
    /// A value cannot be read, or is not of the length that was written.
    pub fn write(self, values: &dyn ValueSource) -> Result<Bytes, ValueError> {
        let records = match self.kind {
            PlanKind::Ready(bytes) => return Ok(bytes),
            PlanKind::Keys(records) => records,
        };
        let refs: Vec<ValueRef> =
            records.iter().flat_map(|(_, items)| items).filter_map(Item::value).collect();
        let mut read = refs.iter().zip(values.read_many(&refs)?);
        let mut writer = Writer::with_capacity(CHUNK_BYTES_MAX);
        writer.u8(KEYS);
        writer.length(records.len());
        for (key, items) in &records {
            writer.bytes(key);
            writer.length(items.len());
            for item in items {
                let value = match item.value() {
                    Some(_) => {
                        read.next().map(|(at, value)| check_length(*at, value)).transpose()?
                    }
                    None => None,
                };
                write_item(item, value.as_ref(), &mut writer);
            }
        }
        Ok(writer.finish())
    }
}

fn check_length(at: ValueRef, value: Value) -> Result<Value, ValueError> {
    if value.bytes.len() == at.length as usize { Ok(value) } else { Err(ValueError::Rotten(at)) }
}

fn write_item(item: &Item, value: Option<&Value>, writer: &mut Writer) {
    match item {
        Item::Put { version, sub } => {
            writer.u8(1);
            writer.i64(version.modified.0);
            writer.u32(*sub);
            writer.i64(version.create.0);
            writer.i64(version.version);
            writer.i64(version.lease.0);
            value.expect("a version has a value").encode(writer);
        }
        Item::Delete { revision, sub } => {
            writer.u8(2);
            writer.i64(revision.0);
            writer.u32(*sub);
        }
    }
}

fn head(state: &State, leases: usize, stores: usize) -> Bytes {
    let mut writer = Writer::new();
    writer.u8(HEAD);
    writer.u16(FORMAT);
    writer.digest(&state.cluster_id);
    state.kv.numbers().encode(&mut writer);
    writer.u64(state.kv.key_count() as u64);
    writer.u64(leases as u64);
    writer.u64(state.leases.clock().0);
    let none = crate::state::Sessions::default();
    let lost = planted::is(Bug::SessionsLost);
    (if lost { &none } else { &state.sessions }).encode(&mut writer);
    state.alarms.encode(&mut writer);
    state.proofs.encode(&mut writer);
    writer.u16(u16::try_from(stores).expect("organisations have 16-bit numbers"));
    state.counters.encode(&mut writer);
    state.network.encode(&mut writer);
    writer.digest(&state.effects);
    writer.finish()
}

/// Why chunks do not make a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// A chunk's bytes are not what a snapshot writes.
    Decode(crate::codec::DecodeError),
    /// The snapshot is of another network.
    Network(Digest),
    /// A chunk is missing, doubled or out of order.
    Order,
    /// What the chunks hold contradicts what the head says of it.
    Inconsistent(&'static str),
}

impl core::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Decode(error) => write!(f, "a chunk of the checkpoint is damaged: {error}"),
            Self::Network(id) => write!(f, "the checkpoint is of another network, {id}"),
            Self::Order => f.write_str("a chunk of the checkpoint is missing or out of order"),
            Self::Inconsistent(what) => {
                write!(f, "the checkpoint contradicts itself about {what}")
            }
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<crate::codec::DecodeError> for RestoreError {
    fn from(error: crate::codec::DecodeError) -> Self {
        Self::Decode(error)
    }
}
