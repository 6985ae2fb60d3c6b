//! Where a value's bytes come from: recent blocks in memory, then log segments, then checkpoint files.
//!
//! The owner keeps [`Values`] behind its own lock and changes it by `&mut`. A reader takes a [`Plan`]
//! under that lock, which copies nothing from disk, and reads it after letting go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::chain::{Value, ValueError, ValueRef, ValueSource};
use crate::codec::Decode;
use crate::storage::checkpoint::chunk_path;
use crate::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};
use crate::storage::log::{Placed, segment_path};

/// Set in [`ValueRef::segment`] of a value in a checkpoint file.
pub const CHECKPOINT_BIT: u32 = 1 << 31;

/// Salt and length in front of a value's bytes.
const VALUE_HEAD_BYTES: u64 = 20;

/// Bytes of recent blocks kept once they are durable.
const RECENT_BYTES_MAX: usize = 32 << 20;

/// Values at most this far apart in a file are read together.
const GAP_BYTES_MAX: u64 = 4096;

/// Most bytes of one merged read.
const READ_BYTES_MAX: u64 = 1 << 20;

/// All places that hold values.
pub struct Values {
    disk: Arc<dyn Disk>,
    /// Encoded blocks by the place of their first byte; what is not durable yet is only here.
    recent: BTreeMap<(u32, u32), Bytes>,
    recent_bytes: usize,
    recent_bytes_max: usize,
    durable: Placed,
    files: BTreeMap<u32, Arc<dyn DiskFile>>,
    /// Segments rewritten in place: no reference of the state points there, and a stale one would
    /// find something else.
    rewritten: BTreeSet<u32>,
}

impl Values {
    /// Nothing in memory yet.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        let (recent, files) = (BTreeMap::new(), BTreeMap::new());
        let durable = Placed::default();
        let recent_bytes_max = RECENT_BYTES_MAX;
        let rewritten = BTreeSet::new();
        Self { disk, recent, recent_bytes: 0, recent_bytes_max, durable, files, rewritten }
    }

    /// Keeps an appended block: `placed` as [`super::log::Appender::append`] returned it, the block's
    /// encoded bytes.
    pub fn remember(&mut self, placed: Placed, block: Bytes) {
        self.recent_bytes += block.len();
        let replaced = self.recent.insert((placed.segment, block_offset(placed)), block);
        self.recent_bytes -= replaced.map_or(0, |old| old.len());
        self.evict();
    }

    /// All blocks in front of `end` can be read from disk from now on.
    pub fn durable(&mut self, end: Placed) {
        self.durable = self.durable.max(end);
        self.evict();
    }

    fn evict(&mut self) {
        while self.recent_bytes > self.recent_bytes_max {
            let Some(oldest) = self.recent.first_entry() else { return };
            let (segment, offset) = *oldest.key();
            if (Placed { segment, offset }) >= self.durable {
                return;
            }
            self.recent_bytes -= oldest.remove().len();
        }
    }

    /// Opens a segment or checkpoint file once for all later reads.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(&mut self, segment: u32) -> Result<(), DiskError> {
        if !self.files.contains_key(&segment) {
            self.files.insert(segment, self.disk.open(&path(segment), Open::Read)?);
        }
        Ok(())
    }

    /// Forgets a file that is about to be removed, rewritten or was; its values are erased.
    pub fn erase(&mut self, segment: u32) {
        self.files.remove(&segment);
        self.rewritten.insert(segment);
        let held: Vec<(u32, u32)> =
            self.recent.range((segment, 0)..=(segment, u32::MAX)).map(|(at, _)| *at).collect();
        for at in held {
            self.recent_bytes -= self.recent.remove(&at).map_or(0, |block| block.len());
        }
    }

    /// Everything needed to read `refs` without this object.
    #[must_use]
    pub fn plan(&self, refs: &[ValueRef]) -> Plan {
        let mut files: BTreeMap<u32, File> = BTreeMap::new();
        let places = refs
            .iter()
            .map(|at| {
                if self.rewritten.contains(&at.segment) {
                    return Place::Erased(*at);
                }
                let place = self.in_memory(*at);
                if matches!(place, Place::File(_)) {
                    files.entry(at.segment).or_insert_with(|| self.file(at.segment));
                }
                place
            })
            .collect();
        Plan { places, files }
    }

    fn in_memory(&self, at: ValueRef) -> Place {
        let before = self.recent.range(..=(at.segment, at.offset)).next_back();
        let Some(((segment, offset), block)) = before else { return Place::File(at) };
        let start = (at.offset - offset.min(&at.offset)) as usize;
        let length = at.length as usize + VALUE_HEAD_BYTES as usize;
        match block.get(start..start + length) {
            Some(_) if *segment == at.segment => {
                Place::Memory(at, block.slice(start..start + length))
            }
            _ => Place::File(at),
        }
    }

    fn file(&self, segment: u32) -> File {
        match self.files.get(&segment) {
            Some(file) => File::Open(Arc::clone(file)),
            None => File::Closed(Arc::clone(&self.disk), path(segment)),
        }
    }
}

impl ValueSource for Values {
    fn read(&self, at: ValueRef) -> Result<Value, ValueError> {
        let mut values = self.read_many(&[at])?;
        Ok(values.pop().expect("one answer to one question"))
    }

    fn read_many(&self, refs: &[ValueRef]) -> Result<Vec<Value>, ValueError> {
        self.plan(refs).read()
    }
}

fn block_offset(placed: Placed) -> u32 {
    // The record's tag is one byte.
    placed.offset + 1
}

fn path(segment: u32) -> String {
    match segment & CHECKPOINT_BIT {
        0 => segment_path(segment),
        _ => chunk_path(segment & !CHECKPOINT_BIT),
    }
}

enum Place {
    Memory(ValueRef, Bytes),
    File(ValueRef),
    Erased(ValueRef),
}

enum File {
    Open(Arc<dyn DiskFile>),
    Closed(Arc<dyn Disk>, String),
}

/// Reads that were looked up and not yet done.
pub struct Plan {
    places: Vec<Place>,
    files: BTreeMap<u32, File>,
}

impl Plan {
    /// Reads all values, in the order asked; neighbours in a file in one read.
    ///
    /// # Errors
    /// The first [`ValueError`].
    pub fn read(self) -> Result<Vec<Value>, ValueError> {
        let mut answers: Vec<Option<Value>> = Vec::new();
        let mut wanted: Vec<(ValueRef, usize)> = Vec::new();
        for (index, place) in self.places.into_iter().enumerate() {
            match place {
                Place::Memory(at, bytes) => answers.push(Some(decode(at, bytes)?)),
                Place::Erased(at) => return Err(ValueError::Erased(at)),
                Place::File(at) => {
                    answers.push(None);
                    wanted.push((at, index));
                }
            }
        }
        wanted.sort_by_key(|(at, _)| (at.segment, at.offset));
        let mut rest = wanted.as_slice();
        while let Some((first, _)) = rest.first() {
            let count = run_length(rest);
            let (run, behind) = rest.split_at(count);
            let file = self.files.get(&first.segment).expect("a file for every place in a file");
            read_run(file, run, &mut answers)?;
            rest = behind;
        }
        Ok(answers.into_iter().map(|answer| answer.expect("every place was read")).collect())
    }
}

fn end_of(at: ValueRef) -> u64 {
    u64::from(at.offset) + VALUE_HEAD_BYTES + u64::from(at.length)
}

/// How many of the places, sorted, are read at once.
fn run_length(places: &[(ValueRef, usize)]) -> usize {
    let Some((first, _)) = places.first() else { return 0 };
    let mut end = end_of(*first);
    let near = |(at, _): &&(ValueRef, usize)| {
        let joins = at.segment == first.segment
            && u64::from(at.offset) <= end + GAP_BYTES_MAX
            && end_of(*at) <= u64::from(first.offset) + READ_BYTES_MAX;
        end = end.max(end_of(*at));
        joins
    };
    1 + places[1..].iter().take_while(near).count()
}

fn read_run(
    file: &File,
    run: &[(ValueRef, usize)],
    answers: &mut [Option<Value>],
) -> Result<(), ValueError> {
    let Some((first, _)) = run.first().copied() else { return Ok(()) };
    let end = run.iter().map(|(at, _)| end_of(*at)).max().unwrap_or_default();
    let length = usize::try_from(end - u64::from(first.offset)).expect("a bounded read");
    let mut buffer = vec![0; length];
    let result = match file {
        File::Open(file) => file.read_at(u64::from(first.offset), &mut buffer),
        File::Closed(disk, path) => disk
            .open(path, Open::Read)
            .and_then(|file| file.read_at(u64::from(first.offset), &mut buffer)),
    };
    result.map_err(|error| match error.kind {
        DiskErrorKind::NotFound => ValueError::Erased(first),
        DiskErrorKind::Short => ValueError::Rotten(first),
        _ => ValueError::Disk(error.to_string()),
    })?;
    let buffer = Bytes::from(buffer);
    for (at, index) in run {
        let start = (at.offset - first.offset) as usize;
        let length = VALUE_HEAD_BYTES as usize + at.length as usize;
        // A copy of its own: a slice would keep the whole read in memory.
        let bytes = Bytes::copy_from_slice(&buffer[start..start + length]);
        answers[*index] = Some(decode(*at, bytes)?);
    }
    Ok(())
}

fn decode(at: ValueRef, bytes: Bytes) -> Result<Value, ValueError> {
    // A length other than the reference's leaves bytes over or ends early.
    let value = Value::from_bytes(bytes).map_err(|_| ValueError::Rotten(at))?;
    if at.check != 0 && Value::check(&value.commitment()) != at.check {
        return Err(ValueError::Rotten(at));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encode;
    use crate::storage::disk::memory::MemoryDisk;

    fn value(number: u8) -> Value {
        Value { salt: [number; 16], bytes: Bytes::from(vec![number; 10 + usize::from(number)]) }
    }

    /// A file of values back to back with a hole, and where they are.
    fn file_of(segment: u32, start: u32, hole: usize) -> (Vec<u8>, Vec<ValueRef>) {
        let mut bytes = vec![0; start as usize];
        let mut refs = Vec::new();
        for number in 0..20_u8 {
            let value = value(number);
            let length = u32::try_from(value.bytes.len()).expect("small");
            let offset = u32::try_from(bytes.len()).expect("small");
            let check = Value::check(&value.commitment());
            refs.push(ValueRef { segment, offset, length, check });
            bytes.extend_from_slice(&value.to_bytes());
            if number % 5 == 4 {
                bytes.resize(bytes.len() + hole, 0xee);
            }
        }
        (bytes, refs)
    }

    #[test]
    fn many_are_read_from_all_places_in_the_order_asked() {
        let disk = Arc::new(MemoryDisk::default());
        let (bytes, mut refs) = file_of(3, 97, 10_000);
        disk.put(&segment_path(3), bytes);
        let (bytes, more) = file_of(CHECKPOINT_BIT | 6, 0, 3);
        disk.put(&chunk_path(6), bytes);
        let mut values = Values::new(disk);
        let (block, recent) = file_of(4, 0, 0);
        values.remember(Placed { segment: 4, offset: 99 }, Bytes::from(block));
        values.open(3).expect("it is there");
        let recent = recent.iter().map(|at| ValueRef { offset: at.offset + 100, ..*at });
        refs.extend(more.into_iter().chain(recent));
        refs.reverse();
        let read = values.read_many(&refs).expect("all are there");
        let wanted: Vec<Value> = [0, 1, 2].iter().flat_map(|_| (0..20).rev().map(value)).collect();
        assert_eq!(read, wanted);
        assert_eq!(values.read(refs[7]), Ok(value(12)));
    }

    #[test]
    fn only_what_is_durable_leaves_memory() {
        let mut values = Values::new(Arc::new(MemoryDisk::default()));
        values.recent_bytes_max = 100;
        for number in 0..4_u32 {
            values.remember(Placed { segment: 1, offset: 100 * number }, Bytes::from(vec![0; 60]));
        }
        assert_eq!(values.recent.len(), 4);
        values.durable(Placed { segment: 1, offset: 160 });
        assert_eq!(values.recent.len(), 2);
        values.durable(Placed { segment: 2, offset: 0 });
        assert_eq!((values.recent.len(), values.recent_bytes), (1, 60));
    }

    #[test]
    fn gone_and_damaged_values_are_named() {
        let disk = Arc::new(MemoryDisk::default());
        let (mut bytes, refs) = file_of(1, 0, 0);
        bytes[16] ^= 1;
        disk.put(&segment_path(1), bytes);
        let values = Values::new(disk);
        assert_eq!(values.read(refs[0]), Err(ValueError::Rotten(refs[0])));
        assert_eq!(values.read(refs[1]), Ok(value(1)));
        let behind = ValueRef { segment: 1, offset: 1 << 20, length: 5, check: 0 };
        assert_eq!(values.read(behind), Err(ValueError::Rotten(behind)));
        let gone = ValueRef { segment: 2, ..refs[0] };
        assert_eq!(values.read(gone), Err(ValueError::Erased(gone)));
    }
}
