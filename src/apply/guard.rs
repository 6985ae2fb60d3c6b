//! What is refused before an op is looked at: alarms, permissions and the quota, in etcd's order
//! (etcdserver/apply: corrupt.go, capped.go, auth.go, quota.go). Who has no permission raises no alarm.

use crate::apply::permission::Subject;
use crate::apply::{OpError, Operands, Step};
use crate::chain::{AlarmKind, Op};
use crate::state::LEASE_CHARGE;
use crate::state::kv::KEY_CHARGE;

impl Step<'_> {
    /// Refuses, and raises NOSPACE with the first op that does not fit.
    pub(super) fn guard(&mut self, op: &Op) -> Result<(), OpError> {
        let always = matches!(
            op,
            Op::Alarm { .. }
                | Op::CheckpointNow
                | Op::LeaseKeepAlive { .. }
                | Op::Config(_)
                | Op::Auth(_)
                | Op::Evidence { .. }
        );
        if !always && self.state.alarms.is_raised(AlarmKind::Corrupt) {
            return Err(OpError::Corrupt);
        }
        let cost = cost(op, self.operands);
        if cost > 0 && self.state.alarms.is_raised(AlarmKind::NoSpace) {
            return Err(OpError::NoSpace);
        }
        let organisation = self.organisation.ok_or(OpError::Malformed)?;
        Subject::new(self.state, organisation, self.author).may(op)?;
        let quota = self.state.membership().parameters.quota_bytes;
        if cost > 0 && self.state.used_bytes().saturating_add(cost) > quota {
            self.state.alarms.raise(0, AlarmKind::NoSpace);
            return Err(OpError::NoSpace);
        }
        Ok(())
    }
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
