//! What shows, against one `exec_root`, that a key had a version or was absent. `state` makes it,
//! `verify` checks it.

use bytes::Bytes;

use crate::chain::{StateLeaf, SubState};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::types::{Digest, LeaseId, Revision};

/// One step towards the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStep {
    /// Whether the path comes from the right side, the sibling being the left one.
    pub from_right: bool,
    /// The other side's hash.
    pub sibling: Digest,
}

/// From a leaf, or a fork, up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatePath {
    /// Inside the page.
    pub page: Vec<PathStep>,
    /// Inner nodes.
    pub nodes: Vec<PathStep>,
}

/// A leaf and its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathLeaf {
    /// The key.
    pub key: Bytes,
    /// What the trie says of it.
    pub leaf: StateLeaf,
    /// Up to the root or the fork.
    pub path: StatePath,
}

/// What is shown of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateFinding {
    /// There is no key at all.
    Empty,
    /// This is its leaf.
    Present(PathLeaf),
    /// It lies before the first key.
    Before(PathLeaf),
    /// It lies behind the last key.
    Behind(PathLeaf),
    /// It lies between two neighbours, whose paths meet at a fork.
    Between {
        /// The neighbour before it; its path ends below the fork.
        left: PathLeaf,
        /// The neighbour behind it; its path ends below the fork.
        right: PathLeaf,
        /// Whether the fork lies inside a page.
        in_page: bool,
        /// From the fork up.
        shared: StatePath,
    },
}

/// A proof about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateProof {
    /// The key asked for.
    pub key: Bytes,
    /// How many keys the trie holds.
    pub count: u64,
    /// What is shown.
    pub finding: StateFinding,
    /// The roots of all sub-states, the keys' own included.
    pub roots: Vec<(SubState, Digest)>,
}

/// Deepest path: nine levels per byte of a key, and a page.
const STEPS_MAX: usize = 9 * 1024 + 16;
const KEY_MAX: usize = 64 << 10;
const ROOTS: [SubState; 11] = [
    SubState::Keys,
    SubState::Store,
    SubState::Leases,
    SubState::Clock,
    SubState::Sessions,
    SubState::Alarms,
    SubState::Counters,
    SubState::Config,
    SubState::Effects,
    SubState::Auth,
    SubState::Evidence,
];

impl Encode for StatePath {
    fn encode(&self, writer: &mut Writer) {
        for steps in [&self.page, &self.nodes] {
            writer.length(steps.len());
            for step in steps {
                writer.bool(step.from_right);
                writer.digest(&step.sibling);
            }
        }
    }
}

fn decode_steps(reader: &mut Reader) -> Result<Vec<PathStep>, DecodeError> {
    let mut steps = Vec::new();
    for _ in 0..reader.length(STEPS_MAX, "proof steps")? {
        steps.push(PathStep {
            from_right: reader.bool("proof side")?,
            sibling: reader.digest("proof sibling")?,
        });
    }
    Ok(steps)
}

impl Decode for StatePath {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { page: decode_steps(reader)?, nodes: decode_steps(reader)? })
    }
}

impl Encode for PathLeaf {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.key);
        writer.i64(self.leaf.modified.0);
        writer.i64(self.leaf.create.0);
        writer.i64(self.leaf.version);
        writer.i64(self.leaf.lease.0);
        writer.digest(&self.leaf.commitment);
        self.path.encode(writer);
    }
}

impl Decode for PathLeaf {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.bytes(KEY_MAX, "proof leaf key")?,
            leaf: StateLeaf {
                modified: Revision(reader.i64("proof leaf modified")?),
                create: Revision(reader.i64("proof leaf create")?),
                version: reader.i64("proof leaf version")?,
                lease: LeaseId(reader.i64("proof leaf lease")?),
                commitment: reader.digest("proof leaf commitment")?,
            },
            path: StatePath::decode(reader)?,
        })
    }
}

impl Encode for StateProof {
    fn encode(&self, writer: &mut Writer) {
        writer.u16(1);
        writer.bytes(&self.key);
        writer.u64(self.count);
        match &self.finding {
            StateFinding::Empty => writer.u8(0),
            StateFinding::Present(leaf) => {
                writer.u8(1);
                leaf.encode(writer);
            }
            StateFinding::Before(leaf) => {
                writer.u8(2);
                leaf.encode(writer);
            }
            StateFinding::Behind(leaf) => {
                writer.u8(3);
                leaf.encode(writer);
            }
            StateFinding::Between { left, right, in_page, shared } => {
                writer.u8(4);
                left.encode(writer);
                right.encode(writer);
                writer.bool(*in_page);
                shared.encode(writer);
            }
        }
        writer.length(self.roots.len());
        for (tag, root) in &self.roots {
            writer.u8(*tag as u8);
            writer.digest(root);
        }
    }
}

impl Decode for StateProof {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        if reader.u16("proof version")? != 1 {
            return Err(DecodeError::Invalid("proof version"));
        }
        let key = reader.bytes(KEY_MAX, "proof key")?;
        let count = reader.u64("proof count")?;
        let finding = match reader.u8("proof finding")? {
            0 => StateFinding::Empty,
            1 => StateFinding::Present(PathLeaf::decode(reader)?),
            2 => StateFinding::Before(PathLeaf::decode(reader)?),
            3 => StateFinding::Behind(PathLeaf::decode(reader)?),
            4 => StateFinding::Between {
                left: PathLeaf::decode(reader)?,
                right: PathLeaf::decode(reader)?,
                in_page: reader.bool("proof fork")?,
                shared: StatePath::decode(reader)?,
            },
            _ => return Err(DecodeError::Invalid("proof finding")),
        };
        let mut roots = Vec::new();
        for _ in 0..reader.length(ROOTS.len(), "proof roots")? {
            let number = reader.u8("proof root tag")?;
            let tag = ROOTS.into_iter().find(|tag| *tag as u8 == number);
            let tag = tag.ok_or(DecodeError::Invalid("proof root tag"))?;
            if roots.last().is_some_and(|(last, _)| *last >= tag) {
                return Err(DecodeError::Invalid("proof root order"));
            }
            roots.push((tag, reader.digest("proof root")?));
        }
        Ok(Self { key, count, finding, roots })
    }
}
