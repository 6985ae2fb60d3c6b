use bytes::Bytes;

use crate::api::errors::Refusal;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::compare::{
    CompareResult as PbResult, CompareTarget as PbTarget, TargetUnion,
};
use crate::api::pb::etcdserverpb::range_request::{SortOrder as PbOrder, SortTarget as PbBy};
use crate::api::pb::etcdserverpb::request_op::Request;
use crate::chain::{
    Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range, SortOrder, SortTarget, Txn,
    ValueSlot,
};
use crate::types::{Digest, LeaseId};

/// An op and the values its slots index into.
pub(in crate::api) type Proposal = (Op, Vec<Bytes>);

/// A checked PutRequest.
pub(in crate::api) fn put_op(request: pb::PutRequest) -> Proposal {
    let mut values = Vec::new();
    (put(request, &mut values), values)
}

/// A checked DeleteRangeRequest.
pub(in crate::api) fn delete_op(request: pb::DeleteRangeRequest) -> Op {
    let pb::DeleteRangeRequest { key, range_end, prev_kv } = request;
    Op::DeleteRange(DeleteRange { key, range_end, prev_kv })
}

/// A checked TxnRequest.
///
/// # Errors
/// An operation without content, which no checked request holds.
pub(in crate::api) fn txn_op(request: pb::TxnRequest) -> Result<Proposal, Refusal> {
    let mut values = Vec::new();
    let txn = txn(request, &mut values)?;
    Ok((Op::Txn(txn), values))
}

/// A checked RangeRequest, less its `serializable`.
pub(in crate::api) fn range_of(request: pb::RangeRequest) -> Range {
    let sort_order = match request.sort_order() {
        PbOrder::None => SortOrder::None,
        PbOrder::Ascend => SortOrder::Ascend,
        PbOrder::Descend => SortOrder::Descend,
    };
    let sort_target = match request.sort_target() {
        PbBy::Key => SortTarget::Key,
        PbBy::Version => SortTarget::Version,
        PbBy::Create => SortTarget::Create,
        PbBy::Mod => SortTarget::Mod,
        PbBy::Value => SortTarget::Value,
    };
    Range {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        sort_order,
        sort_target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

/// Whether both branches only read; a nested transaction counts as a write (etcd's IsTxnReadonly).
pub(in crate::api) fn is_read_only(request: &pb::TxnRequest) -> bool {
    reads(request).all(|read| read.is_some())
}

/// Whether all its reads may be stale; so may one that reads nothing (etcd's IsTxnSerializable).
pub(in crate::api) fn is_serializable(request: &pb::TxnRequest) -> bool {
    reads(request).all(|read| read.is_some_and(|range| range.serializable))
}

fn reads(request: &pb::TxnRequest) -> impl Iterator<Item = Option<&pb::RangeRequest>> {
    request.success.iter().chain(&request.failure).map(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => Some(range),
        _ => None,
    })
}

/// Slots are numbered in the order they are written; the commitment is made at admission.
fn slot(value: Bytes, values: &mut Vec<Bytes>) -> ValueSlot {
    let index = u32::try_from(values.len()).expect("a request of a few MiB has fewer values");
    values.push(value);
    ValueSlot { index, commitment: Digest::ZERO }
}

fn put(request: pb::PutRequest, values: &mut Vec<Bytes>) -> Op {
    let value = (!request.ignore_value).then(|| slot(request.value, values));
    Op::Put(Put {
        key: request.key,
        value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_lease: request.ignore_lease,
    })
}

fn txn(request: pb::TxnRequest, values: &mut Vec<Bytes>) -> Result<Txn, Refusal> {
    let mut compares = Vec::with_capacity(request.compare.len());
    for compare in request.compare {
        compares.push(compare_of(compare, values));
    }
    let success = branch(request.success, values)?;
    let failure = branch(request.failure, values)?;
    Ok(Txn { compares, success, failure })
}

fn branch(operations: Vec<pb::RequestOp>, values: &mut Vec<Bytes>) -> Result<Vec<Op>, Refusal> {
    let mut ops = Vec::with_capacity(operations.len());
    for operation in operations {
        ops.push(match operation.request {
            Some(Request::RequestRange(request)) => Op::Range(range_of(request)),
            Some(Request::RequestPut(request)) => put(request, values),
            Some(Request::RequestDeleteRange(request)) => delete_op(request),
            Some(Request::RequestTxn(request)) => Op::Txn(txn(request, values)?),
            None => return Err(Refusal::KeyNotFound),
        });
    }
    Ok(ops)
}

/// A compare whose answer depends on nothing.
fn constant(holds: bool) -> (CompareResult, CompareTarget) {
    let result = if holds { CompareResult::Greater } else { CompareResult::Less };
    (result, CompareTarget::Version(i64::MIN))
}

/// Follows etcd's applyCompare in what it does by accident too: an operand of another kind than the
/// target counts as 0 or empty, an unknown target equals its operand, an unknown result holds,
/// unless it is about the value of an absent key.
fn compare_of(compare: pb::Compare, values: &mut Vec<Bytes>) -> Compare {
    let result = match PbResult::try_from(compare.result) {
        Ok(PbResult::Equal) => Some(CompareResult::Equal),
        Ok(PbResult::Greater) => Some(CompareResult::Greater),
        Ok(PbResult::Less) => Some(CompareResult::Less),
        Ok(PbResult::NotEqual) => Some(CompareResult::NotEqual),
        Err(_) => None,
    };
    let (result, target) = match (result, PbTarget::try_from(compare.target)) {
        (Some(result), Ok(target)) => (result, target_of(target, compare.target_union, values)),
        (None, Ok(PbTarget::Value)) => (CompareResult::Greater, CompareTarget::Version(0)),
        (None, _) => constant(true),
        (Some(result), Err(_)) => constant(result == CompareResult::Equal),
    };
    Compare { result, target, key: compare.key, range_end: compare.range_end }
}

fn target_of(
    target: PbTarget,
    union: Option<TargetUnion>,
    values: &mut Vec<Bytes>,
) -> CompareTarget {
    match (target, union) {
        (PbTarget::Version, Some(TargetUnion::Version(operand))) => CompareTarget::Version(operand),
        (PbTarget::Version, _) => CompareTarget::Version(0),
        (PbTarget::Create, Some(TargetUnion::CreateRevision(operand))) => {
            CompareTarget::Create(operand)
        }
        (PbTarget::Create, _) => CompareTarget::Create(0),
        (PbTarget::Mod, Some(TargetUnion::ModRevision(operand))) => CompareTarget::Mod(operand),
        (PbTarget::Mod, _) => CompareTarget::Mod(0),
        (PbTarget::Value, Some(TargetUnion::Value(operand))) => {
            CompareTarget::Value(slot(operand, values))
        }
        (PbTarget::Value, _) => CompareTarget::Value(slot(Bytes::new(), values)),
        (PbTarget::Lease, Some(TargetUnion::Lease(operand))) => CompareTarget::Lease(operand),
        (PbTarget::Lease, _) => CompareTarget::Lease(0),
    }
}
