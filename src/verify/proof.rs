use core::fmt;

use crate::chain::{
    PathLeaf, PathStep, StateFinding, StateLeaf, StatePath, StateProof, SubState, exec_root,
};
use crate::crypto::{Context, hash};
use crate::types::Digest;

/// Why a proof shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// Its sub-states do not make the root it is checked against.
    ExecRoot,
    /// It names no root of the keys.
    NoKeys,
    /// Its path does not lead to the keys' root.
    Path,
    /// Its leaf is of another key.
    Key,
    /// Its neighbours are not neighbours, or the key does not lie between them.
    Neighbours,
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExecRoot => "the proof's sub-states do not make the state root",
            Self::NoKeys => "the proof names no root of the keys",
            Self::Path => "the proof's path does not lead to the root of the keys",
            Self::Key => "the proof is about another key",
            Self::Neighbours => "the proof's neighbours do not enclose the key",
        })
    }
}

impl std::error::Error for ProofError {}

/// Checks a proof against the root of a state, which a certified header names; the key's leaf, or None
/// if the key is shown to be absent.
///
/// # Errors
/// [`ProofError`].
pub fn state_proof(proof: &StateProof, root: &Digest) -> Result<Option<StateLeaf>, ProofError> {
    let ascending = proof.roots.is_sorted_by(|one, two| one.0 < two.0);
    if !ascending || exec_root(&proof.roots) != *root {
        return Err(ProofError::ExecRoot);
    }
    let keys = proof.roots.iter().find(|(tag, _)| *tag == SubState::Keys);
    let keys = keys.ok_or(ProofError::NoKeys)?.1;
    let leads = |top: Digest| {
        let made = hash(&Context::STATE_ROOT, &[&proof.count.to_le_bytes(), &top.0]);
        if made == keys { Ok(()) } else { Err(ProofError::Path) }
    };
    let key = &proof.key;
    match &proof.finding {
        StateFinding::Empty => {
            let empty = hash(&Context::STATE_ROOT, &[&0_u64.to_le_bytes()]);
            if proof.count == 0 && empty == keys { Ok(None) } else { Err(ProofError::Path) }
        }
        StateFinding::Present(leaf) => {
            leads(climb_leaf(leaf))?;
            if leaf.key == *key { Ok(Some(leaf.leaf)) } else { Err(ProofError::Key) }
        }
        StateFinding::Before(first) => {
            leads(climb_leaf(first))?;
            enclosed(comes_from(&first.path, false) && *key < first.key)
        }
        StateFinding::Behind(last) => {
            leads(climb_leaf(last))?;
            enclosed(comes_from(&last.path, true) && last.key < *key)
        }
        StateFinding::Between { left, right, in_page, shared } => {
            let context = if *in_page { &Context::STATE_PAGE } else { &Context::STATE_NODE };
            // Only a page's own levels lie below a fork inside it, and none of them above another.
            let levels = if *in_page {
                left.path.nodes.is_empty() && right.path.nodes.is_empty()
            } else {
                shared.page.is_empty()
            };
            let fork = hash(context, &[&climb_leaf(left).0, &climb_leaf(right).0]);
            leads(climb(fork, shared))?;
            let adjacent = comes_from(&left.path, true) && comes_from(&right.path, false);
            enclosed(levels && adjacent && left.key < *key && *key < right.key)
        }
    }
}

fn enclosed(holds: bool) -> Result<Option<StateLeaf>, ProofError> {
    if holds { Ok(None) } else { Err(ProofError::Neighbours) }
}

fn comes_from(path: &StatePath, right: bool) -> bool {
    path.page.iter().chain(&path.nodes).all(|step| step.from_right == right)
}

fn climb_leaf(leaf: &PathLeaf) -> Digest {
    if leaf.key.len() > usize::from(u16::MAX) {
        // No leaf has such a key, so no path leads from it.
        return Digest::ZERO;
    }
    climb(leaf.leaf.hash(&leaf.key), &leaf.path)
}

fn climb(from: Digest, path: &StatePath) -> Digest {
    let ascend = |context: &Context, from: Digest, steps: &[PathStep]| {
        steps.iter().fold(from, |at, step| {
            if step.from_right {
                hash(context, &[&step.sibling.0, &at.0])
            } else {
                hash(context, &[&at.0, &step.sibling.0])
            }
        })
    };
    let page = ascend(&Context::STATE_PAGE, from, &path.page);
    ascend(&Context::STATE_NODE, page, &path.nodes)
}
