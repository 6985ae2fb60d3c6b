//! Writing: entries come in order, pages leave in order, and no more is held than one page of each level.
//!
//! The first two pages name the root, which is written last. So a file is written twice: first measured,
//! with lengths in place of values, then for real, at the place the first pass found.

use crate::storage::bbolt::{
    BRANCH, BRANCH_ELEMENT_BYTES, BUCKET_BYTES, BUCKET_FLAG, FREELIST, HEADER_BYTES, LEAF,
    LEAF_ELEMENT_BYTES, MAGIC, META, META_BYTES, META_CHECKED_BYTES, PAGE_BYTES, VERSION, checksum,
};

/// The transaction that the file is as of; the page of the older one is never used.
const TRANSACTION: u64 = 2;

/// Where the free list stands: it is empty.
const FREELIST_PAGE: u64 = 2;

/// What the first pages say: found by measuring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    root: u64,
    pages: u64,
}

impl Layout {
    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }
}

/// Takes pages in the order of their numbers.
type Sink<'a, E> = &'a mut dyn FnMut(&[u8]) -> Result<(), E>;

/// Writes a file, bucket after bucket.
pub struct DatabaseWriter<'a, E> {
    /// None while measuring.
    sink: Option<Sink<'a, E>>,
    next_page: u64,
    /// Name and root page of every bucket so far; 0 for an empty one.
    buckets: Vec<(Vec<u8>, u64)>,
    tree: Tree,
}

/// The right edge of the bucket being written.
#[derive(Default)]
struct Tree {
    last: Option<Vec<u8>>,
    leaf: Leaf,
    /// Branches, the lowest first.
    levels: Vec<Vec<(Vec<u8>, u64)>>,
}

#[derive(Default)]
struct Leaf {
    first: Vec<u8>,
    /// Lengths of keys and values, and whether a value is a bucket.
    elements: Vec<(usize, usize, bool)>,
    /// Keys and values; nothing while measuring.
    data: Vec<u8>,
    bytes: usize,
}

impl<'a, E> DatabaseWriter<'a, E> {
    /// Writes nothing and finds out where everything would go.
    #[must_use]
    pub fn measure() -> Self {
        Self {
            sink: None,
            next_page: FREELIST_PAGE + 1,
            buckets: Vec::new(),
            tree: Tree::default(),
        }
    }

    /// Begins a file that was measured.
    ///
    /// # Errors
    /// The sink's.
    pub fn begin(layout: Layout, sink: Sink<'a, E>) -> Result<Self, E> {
        for number in 0..2 {
            sink(&meta_page(number, layout))?;
        }
        let mut free = page_header(FREELIST_PAGE, FREELIST, 0, 0);
        free.resize(PAGE_BYTES, 0);
        sink(&free)?;
        Ok(Self { sink: Some(sink), ..Self::measure() })
    }

    /// Puts an entry into the bucket being written.
    ///
    /// # Errors
    /// The sink's.
    ///
    /// # Panics
    /// If keys do not ascend.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), E> {
        self.add(key, value.len(), Some(value), false)
    }

    /// While measuring: an entry whose value has this length.
    ///
    /// # Errors
    /// None.
    ///
    /// # Panics
    /// If this is not measuring, or keys do not ascend.
    pub fn put_length(&mut self, key: &[u8], length: usize) -> Result<(), E> {
        assert!(self.sink.is_none(), "a file is written with its values");
        self.add(key, length, None, false)
    }

    fn add(
        &mut self,
        key: &[u8],
        length: usize,
        value: Option<&[u8]>,
        is_bucket: bool,
    ) -> Result<(), E> {
        let ascends = self.tree.last.as_deref().is_none_or(|last| last < key);
        assert!(ascends && !key.is_empty(), "the keys of a bucket ascend");
        let bytes = LEAF_ELEMENT_BYTES + key.len() + length;
        let leaf = &self.tree.leaf;
        if !leaf.elements.is_empty() && HEADER_BYTES + leaf.bytes + bytes > PAGE_BYTES {
            self.end_leaf()?;
        }
        let leaf = &mut self.tree.leaf;
        if leaf.elements.is_empty() {
            leaf.first = key.to_vec();
        }
        leaf.elements.push((key.len(), length, is_bucket));
        leaf.bytes += bytes;
        if let (Some(value), true) = (value, self.sink.is_some()) {
            leaf.data.extend_from_slice(key);
            leaf.data.extend_from_slice(value);
        }
        self.tree.last = Some(key.to_vec());
        Ok(())
    }

    fn end_leaf(&mut self) -> Result<(), E> {
        let Leaf { first, elements, data, bytes } = core::mem::take(&mut self.tree.leaf);
        let number = self.next_page;
        let pages = self.take_pages(HEADER_BYTES + bytes);
        if self.sink.is_some() {
            let mut page = page_header(number, LEAF, elements.len(), pages - 1);
            let mut at = HEADER_BYTES + elements.len() * LEAF_ELEMENT_BYTES;
            for (key, value, is_bucket) in elements {
                let position = at - page.len();
                let flags = if is_bucket { BUCKET_FLAG } else { 0 };
                page.extend(flags.to_le_bytes());
                for field in [position, key, value] {
                    page.extend(number_of(field).to_le_bytes());
                }
                at += key + value;
            }
            page.extend_from_slice(&data);
            self.write(page, pages)?;
        }
        self.add_branch(0, first, number)
    }

    /// A page was written below this level.
    fn add_branch(&mut self, level: usize, first: Vec<u8>, page: u64) -> Result<(), E> {
        if self.tree.levels.len() == level {
            self.tree.levels.push(Vec::new());
        }
        let branch = &self.tree.levels[level];
        let size = |key: &[u8]| BRANCH_ELEMENT_BYTES + key.len();
        let used: usize = branch.iter().map(|(key, _)| size(key)).sum();
        // bbolt's own pages have two keys at least.
        if branch.len() >= 2 && HEADER_BYTES + used + size(&first) > PAGE_BYTES {
            self.end_branch(level)?;
        }
        self.tree.levels[level].push((first, page));
        Ok(())
    }

    fn end_branch(&mut self, level: usize) -> Result<(), E> {
        let children = core::mem::take(&mut self.tree.levels[level]);
        let first = children[0].0.clone();
        let elements = children.len() * BRANCH_ELEMENT_BYTES;
        let keys: usize = children.iter().map(|(key, _)| key.len()).sum();
        let number = self.next_page;
        let pages = self.take_pages(HEADER_BYTES + elements + keys);
        if self.sink.is_some() {
            let mut page = page_header(number, BRANCH, children.len(), pages - 1);
            let mut at = HEADER_BYTES + elements;
            for (key, child) in &children {
                page.extend(number_of(at - page.len()).to_le_bytes());
                page.extend(number_of(key.len()).to_le_bytes());
                page.extend(child.to_le_bytes());
                at += key.len();
            }
            children.iter().for_each(|(key, _)| page.extend_from_slice(key));
            self.write(page, pages)?;
        }
        self.add_branch(level + 1, first, number)
    }

    fn take_pages(&mut self, bytes: usize) -> usize {
        let pages = bytes.div_ceil(PAGE_BYTES);
        self.next_page += pages as u64;
        pages
    }

    fn write(&mut self, mut page: Vec<u8>, pages: usize) -> Result<(), E> {
        page.resize(pages * PAGE_BYTES, 0);
        self.sink.as_mut().map_or(Ok(()), |sink| sink(&page))
    }

    /// Ends the bucket being written; one without entries exists and is empty.
    ///
    /// # Errors
    /// The sink's.
    pub fn end_bucket(&mut self, name: &[u8]) -> Result<(), E> {
        let root = self.end_tree()?;
        self.buckets.push((name.to_vec(), root));
        Ok(())
    }

    /// Writes what is left of the tree; its root, or 0 if it is empty.
    fn end_tree(&mut self) -> Result<u64, E> {
        if !self.tree.leaf.elements.is_empty() {
            self.end_leaf()?;
        }
        let mut level = 0;
        while level < self.tree.levels.len() {
            let branch = &self.tree.levels[level];
            if let ([(_, only)], true) = (branch.as_slice(), level + 1 == self.tree.levels.len()) {
                let root = *only;
                self.tree = Tree::default();
                return Ok(root);
            }
            if !branch.is_empty() {
                self.end_branch(level)?;
            }
            level += 1;
        }
        self.tree = Tree::default();
        Ok(0)
    }

    /// Writes the root, the last page.
    ///
    /// # Errors
    /// The sink's.
    ///
    /// # Panics
    /// If a bucket was begun and not ended, or two have one name.
    pub fn finish(mut self) -> Result<Layout, E> {
        assert!(self.tree.last.is_none(), "the last bucket is ended");
        let mut buckets = core::mem::take(&mut self.buckets);
        buckets.sort();
        for (name, root) in buckets {
            let mut value = root.to_le_bytes().to_vec();
            value.resize(BUCKET_BYTES, 0);
            if root == 0 {
                value.extend(page_header(0, LEAF, 0, 0));
            }
            self.add(&name, value.len(), Some(&value), true)?;
        }
        let root = self.end_tree()?;
        Ok(Layout { root, pages: self.next_page })
    }
}

fn number_of(length: usize) -> u32 {
    u32::try_from(length).expect("a page holds a few values of a few MiB")
}

fn page_header(number: u64, kind: u16, count: usize, overflow: usize) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE_BYTES);
    page.extend(number.to_le_bytes());
    page.extend(kind.to_le_bytes());
    let count = u16::try_from(count).expect("4 KiB hold few elements");
    page.extend(count.to_le_bytes());
    page.extend(number_of(overflow).to_le_bytes());
    page
}

fn meta_page(number: u64, layout: Layout) -> Vec<u8> {
    let mut page = page_header(number, META, 0, 0);
    let page_bytes = number_of(PAGE_BYTES);
    for field in [MAGIC, VERSION, page_bytes, 0] {
        page.extend(field.to_le_bytes());
    }
    // The meta of transaction t stands on page t mod 2.
    let transaction = TRANSACTION - number;
    for field in [layout.root, 0, FREELIST_PAGE, layout.pages, transaction] {
        page.extend(field.to_le_bytes());
    }
    let checksum = checksum(&page[HEADER_BYTES..HEADER_BYTES + META_CHECKED_BYTES]);
    page.extend(checksum.to_le_bytes());
    assert_eq!(page.len(), HEADER_BYTES + META_BYTES, "a meta has its length");
    page.resize(PAGE_BYTES, 0);
    page
}
