//! What is refused before an op is looked at: the quota and the alarms (etcd: apply/capped.go,
//! apply/corrupt.go, storage/quota.go).

use crate::apply::{OpError, Operands};
use crate::chain::{AlarmKind, Op};
use crate::state::kv::KEY_CHARGE;
use crate::state::{LEASE_CHARGE, State};

/// Refuses, and raises NOSPACE with the first op that does not fit.
pub(super) fn check(state: &mut State, op: &Op, operands: &Operands<'_>) -> Result<(), OpError> {
    let always = matches!(
        op,
        Op::Alarm { .. } | Op::CheckpointNow | Op::LeaseKeepAlive { .. } | Op::Config(_)
    );
    if !always && state.alarms.is_raised(AlarmKind::Corrupt) {
        return Err(OpError::Corrupt);
    }
    let cost = cost(op, operands);
    if cost == 0 {
        return Ok(());
    }
    let quota = state.membership().parameters.quota_bytes;
    if state.used_bytes().saturating_add(cost) > quota {
        state.alarms.raise(0, AlarmKind::NoSpace);
    }
    if state.alarms.is_raised(AlarmKind::NoSpace) {
        return Err(OpError::NoSpace);
    }
    Ok(())
}

/// Bytes the op may add: of a transaction the dearer branch.
fn cost(op: &Op, operands: &Operands<'_>) -> u64 {
    match op {
        Op::Put(put) => {
            let value = put.value.as_ref().map_or(0, |slot| operands.place(slot).length);
            KEY_CHARGE + put.key.len() as u64 + u64::from(value)
        }
        Op::Txn(txn) => {
            let branch = |ops: &[Op]| ops.iter().map(|op| cost(op, operands)).sum::<u64>();
            branch(&txn.success).max(branch(&txn.failure))
        }
        Op::LeaseGrant { .. } => LEASE_CHARGE,
        _ => 0,
    }
}
