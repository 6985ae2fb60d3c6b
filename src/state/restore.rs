//! The way back from a checkpoint's chunks to a state whose values lie in the chunk files.

use bytes::Bytes;

use crate::chain::{Genesis, Network, Parameters, Value, ValueRef};
use crate::codec::{Decode, DecodeError, Reader};
use crate::state::kv::{Item, Kv, KvNumbers, Version};
use crate::state::lease::Lease;
use crate::state::snapshot::{AUTH, FORMAT, HEAD, KEYS, LEASES, RestoreError};
use crate::state::{Alarms, Auth, Counters, Leases, Proofs, Sessions, State};
use crate::types::{Digest, LeaseId, Millis, Revision};

/// Most leases or keys of one chunk: each takes a byte or more.
pub(super) const ITEMS_MAX: usize = 8 << 20;

/// A chunk with the place it is kept at.
#[derive(Clone, Debug)]
pub struct KeptChunk {
    /// Its bytes.
    pub bytes: Bytes,
    /// The chunk file's number in references, its top bit set.
    pub segment: u32,
    /// Where the chunk starts in that file.
    pub base: u32,
}

/// A state being rebuilt, chunk by chunk in their order.
pub struct Restore {
    cluster_id: Digest,
    head: Option<Head>,
    last_lease: Option<LeaseId>,
    last_key: Option<Bytes>,
    /// Of that key the last version: a chunk may begin with the rest of its versions.
    last_place: Option<(Revision, u32)>,
    /// Changes from the compact revision on, to be replayed in order.
    changes: Vec<(Revision, u32, Bytes, Item, Digest)>,
}

struct Head {
    state: State,
    numbers: KvNumbers,
    keys: u64,
    leases: u64,
    /// Chunks of users and roles still to come.
    stores: u16,
}

impl State {
    /// Rebuilds a state. The caller compares its root with the certified one.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(
        genesis: &Genesis,
        chunks: impl IntoIterator<Item = KeptChunk>,
    ) -> Result<Self, RestoreError> {
        let mut restore = Restore::new(genesis);
        for chunk in chunks {
            restore.push(&chunk)?;
        }
        restore.finish()
    }
}

impl Restore {
    /// Begins with nothing.
    #[must_use]
    pub fn new(genesis: &Genesis) -> Self {
        Self {
            cluster_id: genesis.cluster_id(),
            head: None,
            last_lease: None,
            last_key: None,
            last_place: None,
            changes: Vec::new(),
        }
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn push(&mut self, chunk: &KeptChunk) -> Result<(), RestoreError> {
        let mut reader = Reader::new(chunk.bytes.clone());
        match (reader.u8("chunk kind")?, self.head.is_some()) {
            (HEAD, false) => {
                self.head = Some(read_head(&mut reader, self.cluster_id)?);
            }
            (AUTH, true) => self.read_auth(&mut reader)?,
            (LEASES, true) if self.last_key.is_none() => self.read_leases(&mut reader)?,
            (KEYS, true) => self.read_keys(&mut reader, chunk)?,
            (HEAD | AUTH | LEASES | KEYS, _) => return Err(RestoreError::Order),
            _ => return Err(DecodeError::Invalid("chunk kind").into()),
        }
        Ok(reader.finish()?)
    }

    fn read_auth(&mut self, reader: &mut Reader) -> Result<(), RestoreError> {
        let head = self.head.as_mut().ok_or(RestoreError::Order)?;
        head.stores = head.stores.checked_sub(1).ok_or(RestoreError::Order)?;
        Ok(head.state.auth.read_chunk(reader)?)
    }

    fn read_leases(&mut self, reader: &mut Reader) -> Result<(), RestoreError> {
        let head = self.head.as_mut().ok_or(RestoreError::Order)?;
        for _ in 0..reader.length(ITEMS_MAX, "leases")? {
            let id = LeaseId(reader.i64("lease id")?);
            let ttl_seconds = reader.i64("lease ttl")?;
            let expiry = Millis(reader.u64("lease expiry")?);
            if self.last_lease.is_some_and(|last| last >= id) {
                return Err(RestoreError::Order);
            }
            self.last_lease = Some(id);
            head.state.leases.insert(Lease { id, ttl_seconds, expiry, keys: Default::default() });
        }
        Ok(())
    }

    fn read_keys(&mut self, reader: &mut Reader, chunk: &KeptChunk) -> Result<(), RestoreError> {
        let head = self.head.as_mut().ok_or(RestoreError::Order)?;
        let compact = head.numbers.compact_revision;
        for number in 0..reader.length(ITEMS_MAX, "keys")? {
            let key = reader.bytes(Parameters::KEY_BYTES_MAX, "key")?;
            let goes_on = number == 0 && self.last_key.as_ref() == Some(&key);
            let rises = self.last_key.as_ref().is_none_or(|last| *last < key);
            if key.is_empty() || !(rises || goes_on) {
                return Err(RestoreError::Order);
            }
            let mut last = self.last_place.take().filter(|_| goes_on);
            for _ in 0..reader.length(ITEMS_MAX, "versions")? {
                let (item, commitment) = read_item(reader, chunk)?;
                let place = item.place();
                if last.is_some_and(|last| last >= place) || place.0 > head.numbers.revision {
                    return Err(RestoreError::Order);
                }
                last = Some(place);
                match item {
                    Item::Put { version, sub: 0 } if version.modified < compact => {
                        head.state.kv.restore_base(&key, version, commitment);
                    }
                    item if place.0 >= compact => {
                        self.changes.push((place.0, place.1, key.clone(), item, commitment));
                    }
                    _ => return Err(RestoreError::Inconsistent("what is compacted")),
                }
            }
            (self.last_key, self.last_place) = (Some(key), last);
        }
        Ok(())
    }

    /// Completes the state.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn finish(mut self) -> Result<State, RestoreError> {
        let Head { mut state, numbers, keys, leases, stores } =
            self.head.ok_or(RestoreError::Order)?;
        if stores > 0 {
            return Err(RestoreError::Order);
        }
        self.changes.sort_by_key(|(revision, sub, ..)| (*revision, *sub));
        let doubled = |pair: &[(Revision, u32, Bytes, Item, Digest)]| {
            (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)
        };
        if self.changes.windows(2).any(doubled) {
            return Err(RestoreError::Inconsistent("the order of changes"));
        }
        for (_, _, key, item, commitment) in self.changes {
            state.kv.restore_change(&key, &item, commitment);
        }
        if state.kv.key_count() as u64 != keys || state.leases.len() as u64 != leases {
            return Err(RestoreError::Inconsistent("how many keys and leases there are"));
        }
        if state.kv.numbers() != numbers {
            return Err(RestoreError::Inconsistent("the bytes it counts"));
        }
        for (key, lease) in state.kv.leased_keys() {
            if state.leases.get(lease).is_none() {
                return Err(RestoreError::Inconsistent("a key's lease"));
            }
            state.leases.attach(lease, key);
        }
        state.refresh_root();
        Ok(state)
    }
}

fn read_head(reader: &mut Reader, cluster_id: Digest) -> Result<Head, RestoreError> {
    if reader.u16("snapshot format")? != FORMAT {
        return Err(DecodeError::Invalid("snapshot format").into());
    }
    let network = reader.digest("snapshot network")?;
    if network != cluster_id {
        return Err(RestoreError::Network(network));
    }
    let numbers = KvNumbers::decode(reader)?;
    let keys = reader.u64("snapshot keys")?;
    let leases = reader.u64("snapshot leases")?;
    let clock = Millis(reader.u64("lease clock")?);
    let sessions = Sessions::decode(reader)?;
    let alarms = Alarms::decode(reader)?;
    let proofs = Proofs::decode(reader)?;
    let stores = reader.u16("snapshot auth stores")?;
    let state = State {
        kv: Kv::restoring(numbers),
        leases: Leases::at(clock),
        sessions,
        alarms,
        proofs,
        auth: Auth::default(),
        counters: Counters::decode(reader)?,
        network: Network::decode(reader)?,
        effects: reader.digest("effects digest")?,
        cluster_id,
        roots: Vec::new(),
        root: Digest::ZERO,
    };
    Ok(Head { state, numbers, keys, leases, stores })
}

pub(super) fn read_item(
    reader: &mut Reader,
    chunk: &KeptChunk,
) -> Result<(Item, Digest), RestoreError> {
    match reader.u8("version kind")? {
        1 => {
            let modified = Revision(reader.i64("version modified")?);
            let sub = reader.u32("version sub-revision")?;
            let create = Revision(reader.i64("version create")?);
            let version = reader.i64("version")?;
            let lease = LeaseId(reader.i64("version lease")?);
            let offset = u32::try_from(reader.position())
                .ok()
                .and_then(|position| chunk.base.checked_add(position))
                .ok_or(RestoreError::Inconsistent("where its values lie"))?;
            let value = Value::decode(reader)?;
            if version < 1 || create.0 < 1 || create > modified {
                return Err(DecodeError::Invalid("version").into());
            }
            let length = u32::try_from(value.bytes.len()).map_err(|_| RestoreError::Order)?;
            let commitment = value.commitment();
            let check = Value::check(&commitment);
            let value_ref = ValueRef { segment: chunk.segment, offset, length, check };
            let version = Version { modified, create, version, lease, value: value_ref, link: 0 };
            Ok((Item::Put { version, sub }, commitment))
        }
        2 => {
            let revision = Revision(reader.i64("delete revision")?);
            let sub = reader.u32("delete sub-revision")?;
            Ok((Item::Delete { revision, sub }, Digest::ZERO))
        }
        _ => Err(DecodeError::Invalid("version kind").into()),
    }
}
