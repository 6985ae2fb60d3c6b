//! etcd's static checks, in etcd's order (`server/etcdserver/api/v3rpc/key.go`): what the bytes of
//! a request alone decide, before anything is asked of the state.
//!
//! One rule is stricter than etcd's: nested transactions end at [`TXN_DEPTH_MAX`], where etcd
//! bounds the depth only by the operations left.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::api::errors::Refusal;
use crate::api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::api::pb::etcdserverpb::request_op::Request;
use crate::api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use crate::chain::PEER_ADDRESS_BYTES_MAX;

/// How deep transactions may nest, the outer one counted.
pub const TXN_DEPTH_MAX: usize = 8;

/// A member's peer URLs as one text, sorted (etcd's types.NewURLs). unix sockets are no peers' here.
pub fn peer_urls(urls: &[String]) -> Result<String, Refusal> {
    let good = |url: &&str| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let port = rest.and_then(|rest| rest.rsplit_once(':'));
        port.is_some_and(|(host, port)| {
            let bracketed = host.starts_with('[') && host.ends_with(']');
            let plain = !host.is_empty() && !host.contains([':', '/', ',', '@', '?', '#']);
            (plain || bracketed && !host.contains('/')) && port.parse::<u16>().is_ok()
        })
    };
    let mut sorted: Vec<&str> = urls.iter().map(|url| url.trim()).collect();
    sorted.sort_unstable();
    let text = sorted.join(",");
    let sound = !sorted.is_empty() && sorted.iter().all(good);
    if sound && text.len() <= PEER_ADDRESS_BYTES_MAX {
        Ok(text)
    } else {
        Err(Refusal::MemberBadUrls)
    }
}

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
    puts: BTreeSet<Bytes>,
    deletes: Deleted,
}

/// The changes of one branch, if no two of its operations touch the same key, as far as etcd looks:
/// deletes may overlap, the branches of one nested transaction exclude each other, and a delete in
/// a nested transaction is not held against puts in an earlier one.
fn branch_changes(operations: &[RequestOp]) -> Result<Changes, Refusal> {
    let mut changes = Changes::default();
    for operation in operations {
        if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
            changes.deletes.insert(delete.key.clone(), end_of(delete));
        }
    }
    for operation in operations {
        if let Some(Request::RequestTxn(nested)) = &operation.request {
            let success = branch_changes(&nested.success)?;
            let failure = branch_changes(&nested.failure)?;
            for key in success.puts.union(&failure.puts) {
                changes.put(key)?;
            }
            changes.deletes.extend(success.deletes);
            changes.deletes.extend(failure.deletes);
        }
    }
    for operation in operations {
        if let Some(Request::RequestPut(put)) = &operation.request {
            changes.put(&put.key)?;
        }
    }
    Ok(changes)
}

/// Where a deleted range ends, taken literally: for this check etcd gives "\0" no special meaning,
/// so that a delete of everything from a key on overlaps nothing.
fn end_of(delete: &DeleteRangeRequest) -> Bytes {
    if delete.range_end.is_empty() {
        [delete.key.as_ref(), &[0]].concat().into()
    } else {
        delete.range_end.clone()
    }
}

impl Changes {
    fn put(&mut self, key: &Bytes) -> Result<(), Refusal> {
        if self.deletes.contains(key) || !self.puts.insert(key.clone()) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }
}

/// A set of ranges [start, end), kept disjoint.
#[derive(Default)]
struct Deleted(BTreeMap<Bytes, Bytes>);

impl Deleted {
    fn insert(&mut self, mut start: Bytes, mut end: Bytes) {
        if end <= start {
            return;
        }
        while let Some((touching, until)) = self.0.range(..=end.clone()).next_back() {
            if *until < start {
                break;
            }
            let (touching, until) = (touching.clone(), until.clone());
            self.0.remove(&touching);
            start = start.min(touching);
            end = end.max(until);
        }
        self.0.insert(start, end);
    }

    fn extend(&mut self, other: Self) {
        other.0.into_iter().for_each(|(start, end)| self.insert(start, end));
    }

    fn contains(&self, key: &Bytes) -> bool {
        self.0.range(..=key.clone()).next_back().is_some_and(|(_, end)| key < end)
    }
}

#[cfg(test)]
mod tests;
