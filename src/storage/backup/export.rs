//! Writing the file. Chunks come in the order of keys and etcd wants the order of revisions, so a place
//! per version is held (about 50 bytes), and values are read where they lie when their turn comes.

use bytes::Bytes;

use crate::chain::Value;
use crate::codec::{Encode, Writer};
use crate::storage::backup::chunk::{self, Gathered, Head, Item, KEYS, Span};
use crate::storage::backup::etcd::{KEY, Small, key_value, revision_key, small_buckets};
use crate::storage::backup::{BUCKET, BackupError, ChunkFiles, FORMAT, Proof};
use crate::storage::bbolt::{DatabaseWriter, Layout};
use crate::types::OrgId;

/// A skeleton's kind: a chunk that stands there as it is, or one whose values are in the bucket `key`.
pub(super) const WHOLE: u8 = 0;
pub(super) const SKELETON: u8 = 1;

/// Bytes of a skeleton's items.
const PUT_BYTES: usize = 29;
const DELETE_BYTES: usize = 13;

/// Takes pages in their order.
type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), BackupError>;

/// A version's place in the file and in its chunk.
struct Place {
    revision: i64,
    sub: u32,
    is_delete: bool,
    /// Its number in the order of chunks.
    ordinal: u32,
    chunk: u32,
    key: Span,
    item: Span,
    /// Of its KeyValue.
    bytes: u32,
}

/// A file that is ready to be written.
pub struct Export {
    files: ChunkFiles,
    head: Head,
    /// In the order of revisions.
    places: Vec<Place>,
    /// The place within the revision, by ordinal.
    subs: Vec<u32>,
    /// The length of each chunk's entry.
    entries: Vec<usize>,
    small: Small,
    proof: Option<Proof>,
    owner: OrgId,
    layout: Layout,
}

impl Export {
    /// Reads all chunks once and finds out where everything goes. `owner`'s users become etcd's, which
    /// knows one organisation.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn plan(
        files: ChunkFiles,
        owner: OrgId,
        proof: Option<Proof>,
    ) -> Result<Self, BackupError> {
        let mut plan = Plan::default();
        for number in 0..files.count() {
            let bytes = files.chunk(number)?;
            let what = |error| BackupError::Decode("chunk", error);
            plan.chunk(number, &bytes, owner).map_err(what)?;
        }
        let Plan { small, mut places, entries } = plan;
        let none = BackupError::Chunk { number: 0, what: "there is no head".to_owned() };
        let head = small.head.ok_or(none)?;
        let subs = order(&mut places, head.compact_revision);
        let small = small_buckets(&head, &small);
        let layout = Layout::default();
        let mut export = Self { files, head, places, subs, entries, small, proof, owner, layout };
        export.layout = export.fill(DatabaseWriter::measure(), false)?;
        Ok(export)
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// The store's revision in it.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.head.revision
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`BackupError`], the sink's too.
    pub fn write(&self, sink: Sink<'_>) -> Result<(), BackupError> {
        let layout = self.fill(DatabaseWriter::begin(self.layout, sink)?, true)?;
        assert_eq!(layout, self.layout, "both passes find the same places");
        Ok(())
    }

    fn fill(
        &self,
        mut writer: DatabaseWriter<'_, BackupError>,
        for_real: bool,
    ) -> Result<Layout, BackupError> {
        for place in &self.places {
            let key = revision_key(place.revision, place.sub, place.is_delete);
            if for_real {
                let value = self.key_value(place)?;
                assert_eq!(value.len(), place.bytes as usize, "what was measured is written");
                writer.put(&key, &value)?;
            } else {
                writer.put_length(&key, place.bytes as usize)?;
            }
        }
        writer.end_bucket(KEY)?;
        for (name, entries) in &self.small {
            for (key, value) in entries {
                writer.put(key, value)?;
            }
            writer.end_bucket(name)?;
        }
        self.fill_proof(&mut writer, for_real)?;
        writer.finish()
    }

    fn fill_proof(
        &self,
        writer: &mut DatabaseWriter<'_, BackupError>,
        for_real: bool,
    ) -> Result<(), BackupError> {
        if let Some(proof) = &self.proof {
            writer.put(b"certificate", &proof.certificate.to_bytes())?;
            let mut ordinal = 0;
            for (number, length) in self.entries.iter().enumerate() {
                let key = chunk_name(number);
                if for_real {
                    writer.put(key.as_bytes(), &self.entry(number, &mut ordinal)?)?;
                } else {
                    writer.put_length(key.as_bytes(), *length)?;
                }
            }
            for (number, epoch) in proof.epochs.iter().enumerate() {
                writer.put(epoch_name(number).as_bytes(), &epoch.to_bytes())?;
            }
        }
        let mut format = Writer::new();
        format.u16(FORMAT);
        format.u16(self.owner.0);
        writer.put(b"format", format.as_slice())?;
        writer.put(b"genesis", &self.head.cluster_id.0)?;
        if let Some(proof) = &self.proof {
            writer.put(b"manifest", &proof.manifest.to_bytes())?;
        }
        writer.end_bucket(BUCKET)
    }

    fn key_value(&self, place: &Place) -> Result<Vec<u8>, BackupError> {
        let part = |(offset, length): Span| self.files.part(place.chunk as usize, offset, length);
        let (key, item) = (part(place.key)?, part(place.item)?);
        let what = |error| BackupError::Decode("chunk", error);
        let item = <Item as crate::codec::Decode>::from_bytes(item).map_err(what)?;
        Ok(key_value(&key, &item))
    }

    /// What stands for a chunk: all of it, or places in `key` and salts; then `ordinal` goes on.
    fn entry(&self, number: usize, ordinal: &mut usize) -> Result<Bytes, BackupError> {
        let bytes = self.files.chunk(number)?;
        let mut writer = Writer::new();
        if bytes.first() != Some(&KEYS) {
            writer.u8(WHOLE);
            writer.raw(&bytes);
            return Ok(writer.finish());
        }
        let mut items = Writer::new();
        let mut count = 0;
        let done = chunk::items(&bytes, &mut |_, (item, _)| {
            let sub = self.subs[*ordinal + count];
            skeleton(&item, sub, &mut items);
            count += 1;
        });
        done.map_err(|error| BackupError::Decode("chunk", error))?;
        *ordinal += count;
        writer.u8(SKELETON);
        writer.length(count);
        writer.raw(items.as_slice());
        Ok(writer.finish())
    }
}

pub(super) fn chunk_name(number: usize) -> String {
    format!("chunk/{number:08x}")
}

pub(super) fn epoch_name(number: usize) -> String {
    format!("epoch/{number:08x}")
}

fn skeleton(item: &Item, sub: u32, writer: &mut Writer) {
    match item {
        Item::Put { modified, value: Value { salt, .. }, .. } => {
            writer.u8(1);
            writer.i64(*modified);
            writer.u32(sub);
            writer.raw(salt);
        }
        Item::Delete { revision, .. } => {
            writer.u8(2);
            writer.i64(*revision);
            writer.u32(sub);
        }
    }
}

/// Puts versions in order and gives those from before the compact revision, whose place within it is
/// forgotten, the order of their keys; the places by ordinal.
fn order(places: &mut [Place], compact: i64) -> Vec<u32> {
    places.sort_by_key(|place| (place.revision, place.sub, place.ordinal));
    let mut last: Option<(i64, u32)> = None;
    let mut subs = vec![0; places.len()];
    for place in places {
        if place.revision < compact {
            let behind = last.filter(|(revision, _)| *revision == place.revision);
            place.sub = behind.map_or(0, |(_, sub)| sub + 1);
        }
        last = Some((place.revision, place.sub));
        subs[place.ordinal as usize] = place.sub;
    }
    subs
}

/// What the first pass gathers.
#[derive(Default)]
struct Plan {
    small: Gathered,
    places: Vec<Place>,
    entries: Vec<usize>,
}

impl Plan {
    fn chunk(
        &mut self,
        number: usize,
        bytes: &Bytes,
        owner: OrgId,
    ) -> Result<(), crate::codec::DecodeError> {
        self.small.take(bytes, owner)?;
        let is_keys = bytes.first() == Some(&KEYS);
        let entry = if is_keys { self.keys(number, bytes)? } else { 1 + bytes.len() };
        self.entries.push(entry);
        Ok(())
    }

    /// The length of the chunk's skeleton.
    fn keys(&mut self, number: usize, bytes: &Bytes) -> Result<usize, crate::codec::DecodeError> {
        let mut length = 1 + 4;
        let number_of = |number: usize| u32::try_from(number).expect("below 2^32 versions");
        chunk::items(bytes, &mut |(key, key_span), (item, span)| {
            let is_delete = matches!(item, Item::Delete { .. });
            length += if is_delete { DELETE_BYTES } else { PUT_BYTES };
            let (revision, sub) = item.place();
            self.places.push(Place {
                revision,
                sub,
                is_delete,
                ordinal: number_of(self.places.len()),
                chunk: number_of(number),
                key: key_span,
                item: span,
                bytes: number_of(key_value(key, &item).len()),
            });
        })?;
        Ok(length)
    }
}
