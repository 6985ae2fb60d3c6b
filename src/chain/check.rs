//! What bytes alone decide about a bundle, checked at admission, before a proposal and in acceptance
//! by the same function, so that no honest proposal is ever refused for it.

use core::fmt;

use crate::chain::{Bundle, Evidence, Membership, Op, Parameters, Trust};
use crate::planted::{self, Bug};

/// Why a bundle is never proposed or accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// The origin is no member.
    Origin,
    /// The origin did not sign it.
    Signature,
    /// No ops, or more than its limit.
    Ops,
    /// A value is missing or is not the one committed to.
    Values,
    /// A key is empty or longer than its limit.
    Key,
    /// A transaction is too large or too deep, or holds an op that does not belong there.
    Txn,
    /// A read outside a transaction.
    Read,
    /// A change of members or parameters that is not alone.
    Config,
    /// Evidence that is not alone, proves nothing, or is of an epoch that has not begun here.
    Evidence,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Origin => "the bundle's origin is no member",
            Self::Signature => "the bundle's origin did not sign it",
            Self::Ops => "the bundle holds no op or too many",
            Self::Values => "a value of the bundle is missing or not the one committed to",
            Self::Key => "a key of the bundle is empty or longer than 1,024 bytes",
            Self::Txn => "a transaction of the bundle is too large, too deep or malformed",
            Self::Read => "the bundle orders a read",
            Self::Config => "a change of members or parameters is not alone in its bundle",
            Self::Evidence => "evidence that proves nothing, or is not alone in its bundle",
        })
    }
}

impl std::error::Error for BundleError {}

/// Deepest nesting of transactions.
pub const TXN_DEPTH_MAX: usize = 8;

/// Checks shape, limits, values against commitments, then signatures, as the dearest.
///
/// # Errors
/// The first [`BundleError`].
pub fn bundle(
    bundle: &Bundle,
    membership: &Membership,
    trust: &Trust<'_>,
) -> Result<(), BundleError> {
    let member = membership.member(bundle.origin).ok_or(BundleError::Origin)?;
    unsigned_bundle(bundle, membership)?;
    if !bundle.verify(trust.cluster_id, &member.key, trust.scheme) {
        return Err(BundleError::Signature);
    }
    proof(bundle, trust)
}

/// Whether the proof a bundle carries, if it carries one, proves what it says. It may be of any epoch
/// that has begun, so that none expires on its way into a block.
///
/// # Errors
/// [`BundleError::Evidence`].
pub fn proof(bundle: &Bundle, trust: &Trust<'_>) -> Result<(), BundleError> {
    let Some(proof) = bundle.proof() else { return Ok(()) };
    let (evidence, _) = Evidence::of_op(proof).ok_or(BundleError::Evidence)?;
    if planted::is(Bug::ProofUnchecked) {
        return Ok(());
    }
    evidence.verify(trust).map_err(|_| BundleError::Evidence)
}

/// All of [`bundle`] but the signatures: for the bundles a replica has just signed itself.
///
/// # Errors
/// The first [`BundleError`].
pub fn unsigned_bundle(bundle: &Bundle, membership: &Membership) -> Result<(), BundleError> {
    if bundle.skeletons.is_empty() || bundle.skeletons.len() > crate::chain::BUNDLE_OPS_MAX {
        return Err(BundleError::Ops);
    }
    let config = |op: &Op| matches!(op, Op::Config(_));
    if bundle.skeletons.len() > 1 && bundle.skeletons.iter().any(|one| config(&one.op)) {
        return Err(BundleError::Config);
    }
    let evidence = |op: &Op| matches!(op, Op::Evidence { .. });
    if bundle.skeletons.len() > 1 && bundle.skeletons.iter().any(|one| evidence(&one.op)) {
        return Err(BundleError::Evidence);
    }
    for skeleton in &bundle.skeletons {
        op(&skeleton.op, &membership.parameters)?;
    }
    let slots = bundle.slots();
    let kept = slots.len() == bundle.values.len()
        && slots
            .iter()
            .zip(&bundle.values)
            .all(|(slot, value)| slot.commitment == value.commitment());
    if !kept {
        return Err(BundleError::Values);
    }
    Ok(())
}

/// One op of a bundle, by an epoch's parameters: at admission, before it gets a sequence number.
///
/// # Errors
/// The first [`BundleError`].
pub fn op(op: &Op, parameters: &Parameters) -> Result<(), BundleError> {
    match op {
        Op::Range(_) => Err(BundleError::Read),
        Op::Txn(_) => txn_op(op, parameters.txn_ops_max as usize, TXN_DEPTH_MAX),
        Op::Put(put) => put_key(&put.key),
        Op::DeleteRange(delete) => range_key(&delete.key),
        _ => Ok(()),
    }
}

/// A key that is written: bounded, because a trie's depth follows from it.
fn put_key(key: &[u8]) -> Result<(), BundleError> {
    if key.is_empty() || key.len() > Parameters::KEY_BYTES_MAX {
        return Err(BundleError::Key);
    }
    Ok(())
}

/// A key that is only looked for.
fn range_key(key: &[u8]) -> Result<(), BundleError> {
    if key.is_empty() { Err(BundleError::Key) } else { Ok(()) }
}

/// etcd's rule: each list has at most `ops_max` entries, and a nested transaction is left what the
/// outer one did not use (v3rpc/key.go, checkTxnRequest).
fn txn_op(op: &Op, ops_max: usize, depth: usize) -> Result<(), BundleError> {
    match op {
        Op::Put(put) => put_key(&put.key),
        Op::DeleteRange(delete) => range_key(&delete.key),
        Op::Range(range) => range_key(&range.key),
        Op::Txn(txn) => {
            let depth = depth.checked_sub(1).ok_or(BundleError::Txn)?;
            let used = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
            let left = ops_max.checked_sub(used).ok_or(BundleError::Txn)?;
            txn.compares.iter().try_for_each(|compare| range_key(&compare.key))?;
            txn.success.iter().chain(&txn.failure).try_for_each(|op| txn_op(op, left, depth))
        }
        _ => Err(BundleError::Txn),
    }
}
