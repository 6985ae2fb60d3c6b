//! Checking a file offline: the certified chunks are put together again from what etcd would read, so that
//! the proof is about that content, and nothing may stand beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{CheckpointCertificate, ChunkEntry, EpochProof, Manifest, Value};
use crate::codec::{Decode, DecodeError, Reader};
use crate::storage::backup::chunk::{Gathered, Head, Item, keys_chunk};
use crate::storage::backup::etcd::{
    KEY, Small, key_value, read_key_value, revision_key, small_buckets,
};
use crate::storage::backup::export::{SKELETON, WHOLE, chunk_name, epoch_name};
use crate::storage::backup::{BUCKET, BackupError, FORMAT, Proof};
use crate::storage::bbolt::Database;
use crate::storage::disk::DiskFile;
use crate::types::{Digest, OrgId};

const ITEMS_MAX: usize = 8 << 20;

/// Most epochs of one file.
const EPOCHS_MAX: usize = 1 << 20;

/// A file, opened.
pub struct Backup {
    database: Database,
    owner: OrgId,
    genesis: Digest,
}

/// What a checked file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The store's revision.
    pub revision: i64,
    /// What is below it is compacted.
    pub compact_revision: i64,
    /// Keys that exist.
    pub keys: u64,
    /// Versions and deletes of all keys.
    pub versions: u64,
    /// Leases.
    pub leases: u64,
    /// Chunks they were certified in.
    pub chunks: usize,
}

impl Backup {
    /// Opens a file.
    ///
    /// # Errors
    /// [`BackupError`]; [`BackupError::Unproven`] for a file that is etcd's own.
    pub fn open(file: Arc<dyn DiskFile>) -> Result<Self, BackupError> {
        let database = Database::open(file)?;
        let format = database.get(BUCKET, b"format")?.ok_or(BackupError::Unproven)?;
        let genesis = database.get(BUCKET, b"genesis")?.ok_or(BackupError::Unproven)?;
        let read = || -> Result<(OrgId, Digest), DecodeError> {
            let mut reader = Reader::new(format);
            if reader.u16("format")? != FORMAT {
                return Err(DecodeError::Invalid("format"));
            }
            let owner = OrgId(reader.u16("organisation")?);
            reader.finish()?;
            let mut reader = Reader::new(genesis);
            let genesis = reader.digest("genesis")?;
            reader.finish()?;
            Ok((owner, genesis))
        };
        let (owner, genesis) = read().map_err(|error| BackupError::Decode("format", error))?;
        Ok(Self { database, owner, genesis })
    }

    /// The store's revision, as the file says it.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn revision(&self) -> Result<i64, BackupError> {
        let head = self.chunk(0, &mut Found::default())?;
        let head = Head::read(&head).map_err(|error| BackupError::Decode("head", error))?;
        Ok(head.revision)
    }

    /// The network it says it is of.
    #[must_use]
    pub fn genesis(&self) -> Digest {
        self.genesis
    }

    /// Whose users are in it.
    #[must_use]
    pub fn owner(&self) -> OrgId {
        self.owner
    }

    /// The SHA-256 appended to the file, over what stands in front of it.
    #[must_use]
    pub fn digest(&self) -> Option<&[u8; 32]> {
        self.database.digest()
    }

    /// What is to be checked against the genesis before [`Backup::check`] means anything.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn proof(&self) -> Result<Proof, BackupError> {
        let certificate: CheckpointCertificate = self.decode("certificate")?;
        let manifest: Manifest = self.decode("manifest")?;
        let mut epochs: Vec<EpochProof> = Vec::new();
        while epochs.len() < EPOCHS_MAX {
            let name = epoch_name(epochs.len());
            let Some(bytes) = self.database.get(BUCKET, name.as_bytes())? else { break };
            let epoch = EpochProof::from_bytes(own(&bytes));
            epochs.push(epoch.map_err(|error| BackupError::Decode("epoch proof", error))?);
        }
        Ok(Proof { manifest, certificate, epochs })
    }

    fn decode<T: Decode>(&self, name: &'static str) -> Result<T, BackupError> {
        let bytes = self.database.get(BUCKET, name.as_bytes())?.ok_or(BackupError::Unproven)?;
        T::from_bytes(own(&bytes)).map_err(|error| BackupError::Decode(name, error))
    }

    /// Puts the chunks of a certified manifest together from the file's content, and compares everything
    /// else that etcd reads with what they say.
    ///
    /// # Errors
    /// The first [`BackupError`].
    pub fn check(&self, manifest: &Manifest) -> Result<Content, BackupError> {
        let mut found = Found::default();
        for (number, wanted) in manifest.chunks.iter().enumerate() {
            let bytes = self.chunk(number, &mut found)?;
            if ChunkEntry::of(&bytes) != *wanted {
                let what = "its hash is another one".to_owned();
                return Err(BackupError::Chunk { number, what });
            }
            let taken = found.small.take(&bytes, self.owner);
            taken.map_err(|error| BackupError::Chunk { number, what: error.to_string() })?;
        }
        let none = || BackupError::Chunk { number: 0, what: "there is no head".to_owned() };
        let head = found.small.head.ok_or_else(none)?;
        self.check_keys(found.versions)?;
        self.check_small(&small_buckets(&head, &found.small))?;
        Ok(Content {
            revision: head.revision,
            compact_revision: head.compact_revision,
            keys: head.keys,
            versions: found.versions,
            leases: head.leases,
            chunks: manifest.chunks.len(),
        })
    }

    fn chunk(&self, number: usize, found: &mut Found) -> Result<Bytes, BackupError> {
        let failed = |what: String| BackupError::Chunk { number, what };
        let name = chunk_name(number);
        let entry = self.database.get(BUCKET, name.as_bytes())?;
        let entry = entry.ok_or_else(|| failed("it is missing".to_owned()))?;
        match entry.first() {
            Some(&WHOLE) => Ok(own(&entry.slice(1..))),
            Some(&SKELETON) => {
                let decoded = |error: DecodeError| failed(error.to_string());
                let mut reader = Reader::new(entry.slice(1..));
                let mut records: Vec<(Bytes, Vec<Item>)> = Vec::new();
                for _ in 0..reader.length(ITEMS_MAX, "versions").map_err(decoded)? {
                    let bone = Bone::read(&mut reader).map_err(decoded)?;
                    let (key, item) = self.item(number, &bone, found)?;
                    match records.last_mut() {
                        Some((last, items)) if *last == key => items.push(item),
                        _ => records.push((key, vec![item])),
                    }
                }
                reader.finish().map_err(decoded)?;
                Ok(keys_chunk(&records))
            }
            _ => Err(failed("it is of no kind".to_owned())),
        }
    }

    /// A version, as etcd would read it.
    fn item(
        &self,
        number: usize,
        bone: &Bone,
        found: &mut Found,
    ) -> Result<(Bytes, Item), BackupError> {
        let (revision, sub) = (bone.revision, bone.sub);
        let place = format!("revision {revision}, change {sub}");
        let failed = |what: &str| BackupError::Chunk { number, what: format!("{place}: {what}") };
        let name = revision_key(revision, sub, bone.salt.is_none());
        let bytes = self.database.get(KEY, &name)?.ok_or_else(|| failed("it is missing"))?;
        let read = read_key_value(&bytes).ok_or_else(|| failed("it is no KeyValue"))?;
        let compact = found.small.head.map_or(0, |head| head.compact_revision);
        let own_sub = if revision < compact { 0 } else { sub };
        let item = match bone.salt {
            Some(salt) => Item::Put {
                modified: read.modified,
                sub: own_sub,
                create: read.create,
                version: read.version,
                lease: read.lease,
                value: Value { salt, bytes: read.value.clone() },
            },
            None => Item::Delete { revision, sub: own_sub },
        };
        let named = bone.salt.is_none() || read.modified == revision;
        if !named || key_value(&read.key, &item) != bytes[..] {
            return Err(failed("it is not what etcd writes for its key"));
        }
        let key = Bytes::copy_from_slice(&read.key);
        // Keys ascend, and the places of one key: so no version is counted twice.
        let next = (key.clone(), revision, sub);
        if found.last.as_ref().is_some_and(|last| *last >= next) {
            return Err(failed("it stands in the wrong place"));
        }
        found.last = Some(next);
        found.versions += 1;
        Ok((key, item))
    }

    /// The bucket `key` holds what the chunks named and nothing else.
    fn check_keys(&self, named: u64) -> Result<(), BackupError> {
        let mut cursor = self.database.cursor(KEY);
        let mut count = 0_u64;
        while cursor.next_entry()?.is_some() {
            count += 1;
        }
        if count == named {
            return Ok(());
        }
        let what = format!("it holds {count} versions, the chunks {named}");
        Err(BackupError::Bucket { name: "key".to_owned(), what })
    }

    fn check_small(&self, wanted: &Small) -> Result<(), BackupError> {
        let differs = |name: &[u8], what: &str| {
            let name = String::from_utf8_lossy(name).into_owned();
            BackupError::Bucket { name, what: what.to_owned() }
        };
        let known = |name: &&[u8]| *name == KEY || *name == BUCKET || wanted.contains_key(*name);
        if let Some(name) = self.database.buckets().find(|name| !known(name)) {
            return Err(differs(name, "no such bucket is written"));
        }
        for (name, wanted) in wanted {
            let mut cursor = self.database.cursor(name);
            let mut found = BTreeMap::new();
            while let Some((key, value)) = cursor.next_entry()? {
                if wanted.get(&key[..]).is_none_or(|wanted| *wanted != value[..]) {
                    return Err(differs(name, "an entry is not the one that the chunks give"));
                }
                found.insert(key, ());
            }
            if found.len() != wanted.len() {
                return Err(differs(name, "an entry is missing"));
            }
        }
        Ok(())
    }
}

/// A copy: a slice would keep its page in memory.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// What the file keeps of a version beside what etcd reads.
struct Bone {
    revision: i64,
    sub: u32,
    /// None for a delete.
    salt: Option<[u8; 16]>,
}

impl Bone {
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let kind = reader.u8("version kind")?;
        let (revision, sub) = (reader.i64("version revision")?, reader.u32("version place")?);
        let salt = match kind {
            1 => Some(reader.array("version salt")?),
            2 => None,
            _ => return Err(DecodeError::Invalid("version kind")),
        };
        Ok(Self { revision, sub, salt })
    }
}

/// What the chunks before the next one held.
#[derive(Default)]
struct Found {
    small: Gathered,
    versions: u64,
    last: Option<(Bytes, i64, u32)>,
}
