use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::chain::{CHUNK_FORMAT, CheckpointId, ChunkEntry, Value};
use crate::codec::{Encode, Writer};
use crate::storage::backup::chunk::{AUTH, HEAD, Item, LEASES, keys_chunk};
use crate::storage::bbolt::Database;
use crate::storage::disk::memory::MemoryDisk;
use crate::types::{Digest, Epoch, Height, OrgId};

/// One revision: keys that are put (with value lengths) or deleted.
type Step = Vec<(u8, Option<u16>)>;

#[derive(Clone, Debug, Default)]
struct Model {
    revision: i64,
    compact: i64,
    /// Items of every key, oldest first.
    keys: BTreeMap<Bytes, Vec<Item>>,
    leases: Vec<i64>,
}

fn head(model: &Model, leases: usize) -> Bytes {
    let mut writer = Writer::new();
    writer.u8(HEAD);
    writer.u16(CHUNK_FORMAT);
    writer.digest(&Digest([5; 32]));
    writer.i64(model.revision);
    writer.i64(model.compact);
    writer.raw(&[0; 24]);
    writer.u64(3);
    writer.u64(leases as u64);
    writer.raw(b"and what says nothing to etcd");
    writer.finish()
}

impl Model {
    fn of(steps: &[Step], compact: u8, leases: &[i64]) -> Self {
        let mut model = Self { revision: 1, compact: -1, ..Self::default() };
        for step in steps {
            model.revision += 1;
            for (sub, (key, put)) in step.iter().enumerate() {
                model.change(*key, *put, u32::try_from(sub).expect("few"));
            }
        }
        model.compact(i64::from(compact) % (model.revision + 1));
        let mut leases = leases.to_vec();
        leases.sort_unstable();
        leases.dedup();
        model.leases = leases;
        model
    }

    fn change(&mut self, key: u8, put: Option<u16>, sub: u32) {
        let revision = self.revision;
        let items = self.keys.entry(Bytes::from(format!("/key/{key:03}"))).or_default();
        let last = match items.last() {
            Some(Item::Put { create, version, .. }) => Some((*create, *version)),
            _ => None,
        };
        match (put, last) {
            (Some(length), _) => {
                let (create, version) = last.unwrap_or((revision, 0));
                let bytes = Bytes::from(vec![key; usize::from(length)]);
                let value = Value { salt: [sub as u8 + 1; 16], bytes };
                let lease = i64::from(length % 3) - 1;
                let version = version + 1;
                items.push(Item::Put { modified: revision, sub, create, version, lease, value });
            }
            (None, Some(_)) => items.push(Item::Delete { revision, sub }),
            (None, None) => {}
        }
    }

    /// Keeps of what lies below the compact revision each key's last version, without its place.
    fn compact(&mut self, compact: i64) {
        self.compact = if compact < 2 { -1 } else { compact };
        let floor = self.compact;
        for items in self.keys.values_mut() {
            let behind = items.partition_point(|item| item.place().0 <= floor);
            let mut kept = items.split_off(behind.saturating_sub(1));
            match kept.first_mut() {
                Some(Item::Delete { revision, .. }) if *revision < floor => drop(kept.remove(0)),
                Some(Item::Put { modified, sub, .. }) if *modified < floor => *sub = 0,
                _ => {}
            }
            *items = kept;
        }
        self.keys.retain(|_, items| !items.is_empty());
    }

    /// The chunks a checkpoint of it would have, cut every few keys.
    fn chunks(&self, every: usize) -> Vec<Bytes> {
        let mut chunks = vec![head(self, self.leases.len())];
        for organisation in [1_u16, 2] {
            let mut writer = Writer::new();
            writer.u8(AUTH);
            writer.u16(organisation);
            writer.bool(organisation == 2);
            writer.u64(7);
            writer.u64(0);
            writer.length(1);
            writer.bytes(b"root");
            writer.u64(2);
            writer.bool(true);
            Value { salt: [9; 16], bytes: Bytes::from_static(b"$2a$hash") }.encode(&mut writer);
            writer.length(1);
            writer.bytes(b"root");
            writer.length(0);
            chunks.push(writer.finish());
        }
        let mut leases = Writer::new();
        leases.u8(LEASES);
        leases.length(self.leases.len());
        for id in &self.leases {
            leases.i64(*id);
            leases.i64(60);
            leases.u64(1);
        }
        chunks.push(leases.finish());
        let records: Vec<(Bytes, Vec<Item>)> = self.keys.clone().into_iter().collect();
        chunks.extend(records.chunks(every.max(1)).map(keys_chunk));
        chunks
    }
}

fn proof_of(chunks: &[Bytes]) -> Proof {
    let manifest = Manifest {
        cluster_id: Digest([5; 32]),
        height: Height(9),
        block_hash: Digest([6; 32]),
        exec_root: Digest([7; 32]),
        exec_roots: Vec::new(),
        chunks: chunks.iter().map(|chunk| ChunkEntry::of(chunk)).collect(),
    };
    let id: CheckpointId = manifest.id();
    let certificate = CheckpointCertificate { epoch: Epoch(0), id, signatures: Vec::new() };
    Proof { manifest, certificate, epochs: Vec::new() }
}

fn exported(chunks: &[Bytes], proof: Option<Proof>) -> Vec<u8> {
    let disk = MemoryDisk::default();
    let mut files = ChunkFiles::begin(&disk).expect("memory does not fail");
    for chunk in chunks {
        files.push(chunk).expect("memory does not fail");
    }
    let export = Export::plan(files, OrgId(2), proof).expect("the chunks are whole");
    let mut file = Vec::new();
    let written = export.write(&mut |page| {
        file.extend_from_slice(page);
        Ok(())
    });
    assert_eq!(written, Ok(()));
    assert_eq!(file.len() as u64, export.bytes(), "the size is known before");
    file
}

fn opened(bytes: Vec<u8>) -> Arc<dyn DiskFile> {
    let disk = MemoryDisk::default();
    disk.put("file", bytes);
    disk.open("file", Open::Read).expect("it is there")
}

fn model() -> impl Strategy<Value = Model> {
    let change = (0_u8..30, proptest::option::weighted(0.7, 0_u16..300));
    let step = proptest::collection::vec(change, 1..4).prop_map(|mut step| {
        step.sort_unstable_by_key(|(key, _)| *key);
        step.dedup_by_key(|(key, _)| *key);
        step
    });
    let leases = proptest::collection::vec(any::<i64>(), 0..5);
    (proptest::collection::vec(step, 1..120), any::<u8>(), leases)
        .prop_map(|(steps, compact, leases)| Model::of(&steps, compact, &leases))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_exported_proves_the_chunks_it_came_from(model in model(), every in 1_usize..12) {
        let chunks = model.chunks(every);
        let proof = proof_of(&chunks);
        let backup = Backup::open(opened(exported(&chunks, Some(proof.clone())))).expect("whole");
        prop_assert_eq!(backup.proof(), Ok(proof.clone()));
        let content = backup.check(&proof.manifest).expect("its own content");
        let versions: usize = model.keys.values().map(Vec::len).sum();
        prop_assert_eq!(content.versions, versions as u64);
        let revisions = (content.revision, content.compact_revision);
        prop_assert_eq!(revisions, (model.revision, model.compact));
    }

    /// etcd finds every version under its revision, in order, each place once.
    #[test]
    fn versions_stand_in_the_order_of_revisions(model in model()) {
        let database = Database::open(opened(exported(&model.chunks(7), None))).expect("whole");
        let mut cursor = database.cursor(b"key");
        let mut found = BTreeMap::<Bytes, Vec<i64>>::new();
        while let Some((place, value)) = cursor.next_entry().expect("whole") {
            let read = etcd::read_key_value(&value).expect("a KeyValue");
            let revision = i64::from_be_bytes(place[..8].try_into().expect("eight"));
            prop_assert_eq!(place.len() == 18, read.version == 0, "a tombstone is marked");
            found.entry(Bytes::copy_from_slice(&read.key)).or_default().push(revision);
        }
        let wanted: BTreeMap<Bytes, Vec<i64>> = model.keys.iter()
            .map(|(key, items)| (key.clone(), items.iter().map(|item| item.place().0).collect()))
            .collect();
        prop_assert_eq!(found, wanted);
    }

    /// Whichever byte changes, either nobody reads it or the file is refused; nothing panics.
    #[test]
    fn a_changed_byte_never_passes_for_other_content(
        model in model(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let chunks = model.chunks(5);
        let proof = proof_of(&chunks);
        let mut file = exported(&chunks, Some(proof.clone()));
        let whole = Backup::open(opened(file.clone()));
        let whole = whole.and_then(|backup| backup.check(&proof.manifest));
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        if let Ok(backup) = Backup::open(opened(file))
            && let Ok(content) = backup.check(&proof.manifest)
        {
            prop_assert_eq!(Ok(content), whole);
        }
    }
}

#[test]
fn an_entry_too_many_or_of_another_organisation_is_told() {
    let steps: Vec<Step> = (0..20).map(|key| vec![(key, Some(10))]).collect();
    let model = Model::of(&steps, 0, &[3, -4]);
    let chunks = model.chunks(4);
    let proof = proof_of(&chunks);
    // A version more than the certified chunks have.
    let more = Model::of(&[steps, vec![vec![(200, Some(1))]]].concat(), 0, &[3, -4]);
    let mut other = more.chunks(4);
    other[0] = chunks[0].clone();
    let file = exported(&other, Some(proof.clone()));
    let found = Backup::open(opened(file)).expect("whole").check(&proof.manifest);
    assert!(
        matches!(found, Err(BackupError::Bucket { ref name, .. }) if name == "key"),
        "{found:?}"
    );
    // No proof at all.
    let none = Backup::open(opened(exported(&chunks, None))).expect("whole");
    assert_eq!(none.proof(), Err(BackupError::Unproven));
}
