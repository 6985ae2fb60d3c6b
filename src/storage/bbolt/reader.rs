//! Reading a file of unknown origin: every number in it is checked before it is used, no page is read
//! twice in one walk, keys must ascend. So any bytes give entries or an error, in bounded time and memory.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::storage::bbolt::{
    BRANCH, BRANCH_ELEMENT_BYTES, BUCKET_BYTES, BUCKET_FLAG, HEADER_BYTES, LEAF,
    LEAF_ELEMENT_BYTES, MAGIC, META, META_BYTES, META_CHECKED_BYTES, VERSION, checksum,
};
use crate::storage::disk::{DiskError, DiskFile};

/// Longest page with those that continue it: one etcd value and its neighbours.
const LEAF_BYTES_MAX: u64 = 16 << 20;
const BRANCH_BYTES_MAX: u64 = 1 << 20;

/// Deepest tree: with two keys a page this is more than any file holds.
const DEPTH_MAX: usize = 48;

/// Most buckets of a file, and most bytes of their root's values.
const BUCKETS_MAX: usize = 1024;

/// etcd appends a SHA-256 to a snapshot: pages are multiples of 512 bytes, so it is seen.
const DIGEST_BYTES: u64 = 32;
const SECTOR_BYTES: u64 = 512;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseError {
    /// The disk refused.
    Disk(DiskError),
    /// Neither of the first pages is a bbolt meta page that is whole.
    NoDatabase,
    /// The file ends before the last page it names.
    CutOff {
        /// Bytes there are.
        found: u64,
        /// Bytes its first pages speak of.
        wanted: u64,
    },
    /// A page is not what it should be.
    Page {
        /// Its number.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "{error}"),
            Self::NoDatabase => {
                f.write_str("this is no bbolt file, or its first pages are damaged")
            }
            Self::CutOff { found, wanted } => {
                write!(f, "the file is cut off: {found} bytes of {wanted} are there")
            }
            Self::Page { number, what } => write!(f, "page {number} is damaged: {what}"),
        }
    }
}

impl std::error::Error for DatabaseError {}

impl From<DiskError> for DatabaseError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

#[derive(Clone)]
enum Root {
    Page(u64),
    /// The bucket's only page stands in the root's.
    Inline(Bytes),
}

/// An open file.
pub struct Database {
    file: Arc<dyn DiskFile>,
    page_bytes: u64,
    pages: u64,
    digest: Option<[u8; 32]>,
    buckets: BTreeMap<Bytes, Root>,
}

struct Page {
    number: u64,
    kind: u16,
    count: usize,
    bytes: Bytes,
}

struct Meta {
    page_bytes: u64,
    root: u64,
    pages: u64,
    transaction: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// A meta page, if it is one and whole.
fn meta(page: &[u8]) -> Option<Meta> {
    let kind = u16::from_le_bytes(page.get(8..10)?.try_into().ok()?);
    let meta = page.get(HEADER_BYTES..HEADER_BYTES + META_BYTES)?;
    let whole = checksum(&meta[..META_CHECKED_BYTES]) == u64_at(meta, META_CHECKED_BYTES)?;
    let page_bytes = u32_at(meta, 8)?;
    let sound = page_bytes.is_power_of_two() && (1024..=65536).contains(&page_bytes);
    if kind != META || u32_at(meta, 0)? != MAGIC || u32_at(meta, 4)? != VERSION || !whole || !sound
    {
        return None;
    }
    Some(Meta {
        page_bytes: page_bytes.into(),
        root: u64_at(meta, 16)?,
        pages: u64_at(meta, 40)?,
        transaction: u64_at(meta, 48)?,
    })
}

impl Database {
    /// Reads the first pages and the list of buckets.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn open(file: Arc<dyn DiskFile>) -> Result<Self, DatabaseError> {
        let length = file.len()?;
        let has_digest = length % SECTOR_BYTES == DIGEST_BYTES;
        let content = if has_digest { length - DIGEST_BYTES } else { length };
        let digest = if has_digest {
            let mut digest = [0; 32];
            file.read_at(content, &mut digest)?;
            Some(digest)
        } else {
            None
        };
        let mut found: Option<Meta> = None;
        // The second meta page stands where the first ends, whatever the size of pages is.
        let places = (10..=16).map(|shift| 1_u64 << shift);
        for place in core::iter::once(0).chain(places) {
            let mut bytes = [0; HEADER_BYTES + META_BYTES];
            if place + bytes.len() as u64 > content {
                break;
            }
            file.read_at(place, &mut bytes)?;
            if let Some(meta) = meta(&bytes)
                && (place == 0 || place == meta.page_bytes)
                && found.as_ref().is_none_or(|found| found.transaction < meta.transaction)
            {
                found = Some(meta);
            }
        }
        let Meta { page_bytes, root, pages, .. } = found.ok_or(DatabaseError::NoDatabase)?;
        let wanted = pages.saturating_mul(page_bytes);
        if wanted > content {
            return Err(DatabaseError::CutOff { found: content, wanted });
        }
        let mut database = Self { file, page_bytes, pages, digest, buckets: BTreeMap::new() };
        database.buckets = database.read_buckets(root)?;
        Ok(database)
    }

    /// The SHA-256 that etcd's tools append to a snapshot, of everything in front of it.
    #[must_use]
    pub fn digest(&self) -> Option<&[u8; 32]> {
        self.digest.as_ref()
    }

    /// Names of the buckets, in order.
    pub fn buckets(&self) -> impl Iterator<Item = &[u8]> {
        self.buckets.keys().map(|name| &name[..])
    }

    fn read_buckets(&self, root: u64) -> Result<BTreeMap<Bytes, Root>, DatabaseError> {
        let mut cursor = Cursor::new(self, Some(Root::Page(root)));
        let mut buckets = BTreeMap::new();
        while let Some((name, value, is_bucket)) = cursor.step()? {
            let damaged = |what| DatabaseError::Page { number: root, what };
            if !is_bucket || buckets.len() == BUCKETS_MAX {
                return Err(damaged("an entry of the root is no bucket, or there are too many"));
            }
            let page = u64_at(&value, 0).ok_or_else(|| damaged("a bucket without a root"))?;
            let root = match page {
                0 if value.len() > BUCKET_BYTES => {
                    Root::Inline(Bytes::copy_from_slice(&value[BUCKET_BYTES..]))
                }
                page => Root::Page(page),
            };
            buckets.insert(Bytes::copy_from_slice(&name), root);
        }
        Ok(buckets)
    }

    /// The entries of a bucket in order; none if it does not exist.
    #[must_use]
    pub fn cursor(&self, bucket: &[u8]) -> Cursor<'_> {
        Cursor::new(self, self.buckets.get(bucket).cloned())
    }

    /// One entry's value.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn get(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Bytes>, DatabaseError> {
        let Some(root) = self.buckets.get(bucket) else { return Ok(None) };
        let mut page = self.root_page(root)?;
        for _ in 0..DEPTH_MAX {
            if page.kind == LEAF {
                let (Err(at) | Ok(at)) = page.search(key)?;
                if at == page.count {
                    return Ok(None);
                }
                let (found, value, is_bucket) = page.leaf(at)?;
                return Ok((found == key && !is_bucket).then_some(value));
            }
            let at = match page.search(key)? {
                Ok(at) => at,
                Err(behind) => behind.saturating_sub(1),
            };
            page = self.page(page.branch(at)?.1)?;
        }
        Err(page.damaged("the tree is too deep"))
    }

    fn root_page(&self, root: &Root) -> Result<Page, DatabaseError> {
        match root {
            Root::Page(number) => self.page(*number),
            Root::Inline(bytes) => parse(0, bytes.clone()),
        }
    }

    fn page(&self, number: u64) -> Result<Page, DatabaseError> {
        let damaged = |what| DatabaseError::Page { number, what };
        if number < 2 || number >= self.pages {
            return Err(damaged("it lies outside of the file"));
        }
        let at = number * self.page_bytes;
        let mut header = [0; HEADER_BYTES];
        self.file.read_at(at, &mut header)?;
        let overflow = u64::from(u32_at(&header, 12).expect("the header is long enough"));
        let limit = if header[8] == 2 { LEAF_BYTES_MAX } else { BRANCH_BYTES_MAX };
        let bytes = (overflow + 1) * self.page_bytes;
        if number + overflow >= self.pages || bytes > limit {
            return Err(damaged("it is longer than the file or than anything that is written"));
        }
        let mut content = vec![0; usize::try_from(bytes).expect("bounded")];
        self.file.read_at(at, &mut content)?;
        let page = parse(number, Bytes::from(content))?;
        if u64_at(&page.bytes, 0) != Some(number) {
            return Err(damaged("it names itself as another one"));
        }
        Ok(page)
    }
}

fn parse(number: u64, bytes: Bytes) -> Result<Page, DatabaseError> {
    let damaged = |what| DatabaseError::Page { number, what };
    let header = bytes.get(..HEADER_BYTES).ok_or_else(|| damaged("it is cut off"))?;
    let kind = u16::from_le_bytes([header[8], header[9]]);
    let count = usize::from(u16::from_le_bytes([header[10], header[11]]));
    if kind != LEAF && kind != BRANCH {
        return Err(damaged("it is neither leaf nor branch"));
    }
    if kind == BRANCH && count == 0 {
        return Err(damaged("a branch without children"));
    }
    Ok(Page { number, kind, count, bytes })
}

impl Page {
    fn damaged(&self, what: &'static str) -> DatabaseError {
        DatabaseError::Page { number: self.number, what }
    }

    fn slice(&self, start: usize, length: usize) -> Result<Bytes, DatabaseError> {
        let end = start.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.damaged("an entry reaches beyond the page"))?;
        Ok(self.bytes.slice(start..end))
    }

    /// Key, value, and whether that is a bucket.
    fn leaf(&self, index: usize) -> Result<(Bytes, Bytes, bool), DatabaseError> {
        let at = HEADER_BYTES + index * LEAF_ELEMENT_BYTES;
        let field = |number: usize| {
            let field = u32_at(&self.bytes, at + 4 * number).map(|field| field as usize);
            field.ok_or_else(|| self.damaged("an entry reaches beyond the page"))
        };
        let (position, key_length, value_length) = (field(1)?, field(2)?, field(3)?);
        let key = self.slice(at + position, key_length)?;
        let value = self.slice(at + position + key_length, value_length)?;
        Ok((key, value, field(0)? as u32 & BUCKET_FLAG != 0))
    }

    /// Key and child.
    fn branch(&self, index: usize) -> Result<(Bytes, u64), DatabaseError> {
        let at = HEADER_BYTES + index * BRANCH_ELEMENT_BYTES;
        let beyond = || self.damaged("an entry reaches beyond the page");
        let position = u32_at(&self.bytes, at).ok_or_else(beyond)? as usize;
        let length = u32_at(&self.bytes, at + 4).ok_or_else(beyond)? as usize;
        let child = u64_at(&self.bytes, at + 8).ok_or_else(beyond)?;
        Ok((self.slice(at + position, length)?, child))
    }

    fn key(&self, index: usize) -> Result<Bytes, DatabaseError> {
        if self.kind == LEAF { Ok(self.leaf(index)?.0) } else { Ok(self.branch(index)?.0) }
    }

    /// Where a key is, or where it would be.
    fn search(&self, key: &[u8]) -> Result<Result<usize, usize>, DatabaseError> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.key(middle)?[..].cmp(key) {
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Equal => return Ok(Ok(middle)),
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(Err(low))
    }
}

/// Walks the entries of a bucket in order. After an error it is of no more use.
pub struct Cursor<'a> {
    database: &'a Database,
    root: Option<Root>,
    stack: Vec<(Page, usize)>,
    /// Pages read: no tree has more than the file.
    read: u64,
    last: Bytes,
}

impl<'a> Cursor<'a> {
    fn new(database: &'a Database, root: Option<Root>) -> Self {
        Self { database, root, stack: Vec::new(), read: 0, last: Bytes::new() }
    }

    /// The next entry; None behind the last.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn next_entry(&mut self) -> Result<Option<(Bytes, Bytes)>, DatabaseError> {
        match self.step()? {
            Some((_, _, true)) => {
                let number = self.stack.last().map_or(0, |(page, _)| page.number);
                Err(DatabaseError::Page { number, what: "a bucket within a bucket" })
            }
            entry => Ok(entry.map(|(key, value, _)| (key, value))),
        }
    }

    fn step(&mut self) -> Result<Option<(Bytes, Bytes, bool)>, DatabaseError> {
        if let Some(root) = self.root.take() {
            self.stack.push((self.database.root_page(&root)?, 0));
        }
        while let Some((page, at)) = self.stack.last_mut() {
            if *at == page.count {
                self.stack.pop();
                continue;
            }
            let index = *at;
            *at += 1;
            if page.kind == LEAF {
                let (key, value, is_bucket) = page.leaf(index)?;
                if key <= self.last {
                    return Err(page.damaged("its keys do not ascend"));
                }
                self.last = Bytes::copy_from_slice(&key);
                return Ok(Some((key, value, is_bucket)));
            }
            let (_, child) = page.branch(index)?;
            self.read += 1;
            if self.read > self.database.pages || self.stack.len() == DEPTH_MAX {
                let what = "pages refer to each other in a circle";
                return Err(DatabaseError::Page { number: child, what });
            }
            let child = self.database.page(child)?;
            self.stack.push((child, 0));
        }
        Ok(None)
    }
}
