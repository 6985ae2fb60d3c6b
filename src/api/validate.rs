//! etcd's static checks, in etcd's order (`server/etcdserver/api/v3rpc/key.go`): what the bytes of
//! a request alone decide, before anything is asked of the state.
//!
//! Two rules are stricter than etcd's. Nested transactions end at [`TXN_DEPTH_MAX`] (etcd bounds
//! the depth only by the operations left). And one transaction may change a key once: etcd misses
//! a put beside a delete whose end is "\0" and a delete in a later nested transaction.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::errors::Refusal;
use crate::api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::api::pb::etcdserverpb::request_op::Request;
use crate::api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// How deep transactions may nest, the outer one counted.
pub const TXN_DEPTH_MAX: usize = 8;

/// etcd's checkRangeRequest.
pub fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// etcd's checkPutRequest.
pub fn put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// etcd's checkDeleteRequest.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// etcd's checkTxnRequest and checkIntervals: counts first, then each operation, then overlaps.
/// `operations_max` is `--max-txn-ops`.
pub fn txn(request: &TxnRequest, operations_max: usize) -> Result<(), Refusal> {
    txn_operations(request, operations_max, TXN_DEPTH_MAX)?;
    branch_changes(&request.success)?;
    branch_changes(&request.failure)?;
    Ok(())
}

fn txn_operations(request: &TxnRequest, allowed: usize, depth: usize) -> Result<(), Refusal> {
    let TxnRequest { compare, success, failure } = request;
    let widest = compare.len().max(success.len()).max(failure.len());
    let left = allowed.checked_sub(widest).ok_or(Refusal::TooManyOperations)?;
    let depth = depth.checked_sub(1).ok_or(Refusal::TooManyOperations)?;
    if compare.iter().any(|compare: &Compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for operation in success.iter().chain(failure) {
        match &operation.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => txn_operations(request, left, depth)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations may change: keys put and ranges deleted, in any branch below it.
#[derive(Default)]
struct Changes {
    puts: Vec<Bytes>,
    deletes: Vec<(Bytes, End)>,
}

/// Where a deleted range ends; the order is that of the variants.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

fn range_of(request: &DeleteRangeRequest) -> (Bytes, End) {
    let end = match request.range_end.as_ref() {
        [] => End::Before([request.key.as_ref(), &[0]].concat().into()),
        [0] => End::Never,
        _ => End::Before(request.range_end.clone()),
    };
    (request.key.clone(), end)
}

/// The changes of one branch, after checking that no two of its operations touch the same key,
/// deletes among themselves apart. The branches of a nested transaction exclude each other.
fn branch_changes(operations: &[RequestOp]) -> Result<Changes, Refusal> {
    let mut puts: BTreeMap<Bytes, usize> = BTreeMap::new();
    let mut deletes: Vec<(Bytes, End, usize)> = Vec::new();
    for (owner, operation) in operations.iter().enumerate() {
        let changes = operation_changes(operation)?;
        for key in changes.puts {
            // Both branches of one nested transaction may put the same key: same owner.
            if puts.insert(key, owner).is_some_and(|earlier| earlier != owner) {
                return Err(Refusal::DuplicateKey);
            }
        }
        deletes.extend(changes.deletes.into_iter().map(|(start, end)| (start, end, owner)));
    }
    deletes.sort();
    if overlaps(&puts, &deletes) {
        return Err(Refusal::DuplicateKey);
    }
    let deletes = deletes.into_iter().map(|(start, end, _)| (start, end)).collect();
    Ok(Changes { puts: puts.into_keys().collect(), deletes })
}

fn operation_changes(operation: &RequestOp) -> Result<Changes, Refusal> {
    match &operation.request {
        Some(Request::RequestPut(put)) => {
            Ok(Changes { puts: vec![put.key.clone()], deletes: Vec::new() })
        }
        Some(Request::RequestDeleteRange(delete)) => {
            Ok(Changes { puts: Vec::new(), deletes: vec![range_of(delete)] })
        }
        Some(Request::RequestTxn(nested)) => {
            let mut changes = branch_changes(&nested.success)?;
            let other = branch_changes(&nested.failure)?;
            changes.puts.extend(other.puts);
            changes.deletes.extend(other.deletes);
            Ok(changes)
        }
        Some(Request::RequestRange(_)) | None => Ok(Changes::default()),
    }
}

/// Whether a put key lies in a range that another operation deletes. One sweep over both in key
/// order; of the ranges begun so far only the furthest end matters, and the furthest of another
/// owner for keys whose own operation deletes furthest.
fn overlaps(puts: &BTreeMap<Bytes, usize>, deletes: &[(Bytes, End, usize)]) -> bool {
    let mut begun = deletes.iter().peekable();
    let mut furthest: Option<(&End, usize)> = None;
    let mut other: Option<(&End, usize)> = None;
    for (key, &owner) in puts {
        while let Some((_, end, deleter)) = begun.next_if(|(start, ..)| start <= key) {
            let candidate = Some((end, *deleter));
            match furthest {
                Some((far, far_owner)) if far_owner == *deleter => {
                    furthest = Some((end.max(far), far_owner));
                }
                Some((far, _)) if end > far => {
                    other = furthest;
                    furthest = candidate;
                }
                Some(_) => other = other.filter(|(far, _)| *far >= end).or(candidate),
                None => furthest = candidate,
            }
        }
        let covering = furthest.filter(|(_, deleter)| *deleter != owner).or(other);
        if covering.is_some_and(|(end, _)| end.is_after(key)) {
            return true;
        }
    }
    false
}

impl End {
    fn is_after(&self, key: &Bytes) -> bool {
        match self {
            Self::Before(end) => key < end,
            Self::Never => true,
        }
    }
}

#[cfg(test)]
mod tests;
