use crate::apply::{Done, OpError, Reply, Step};
use crate::chain::{Parameters, Put};
use crate::state::NewVersion;
use crate::types::LeaseId;

impl Step<'_> {
    /// etcd's order: the lease first, then the key (txn/put.go).
    pub(super) fn check_put(&self, put: &Put) -> Result<(), OpError> {
        if put.key.is_empty() || put.key.len() > Parameters::KEY_BYTES_MAX {
            return Err(OpError::Malformed);
        }
        if put.lease != LeaseId(0) && self.state.leases.get(put.lease).is_none() {
            return Err(OpError::LeaseNotFound);
        }
        let keeps = put.value.is_none() || put.ignore_lease;
        if keeps && self.state.kv.get(&put.key).is_none() {
            return Err(OpError::KeyNotFound);
        }
        Ok(())
    }

    pub(super) fn put_alone(&mut self, put: &Put) -> Done<Reply> {
        self.check_put(put)?;
        self.put(put)
    }

    /// Writes. Total: in a transaction whose own deletes took the key away that `ignore_value` needs
    /// (etcd's check for duplicates, and so ours, does not see a delete from a key on; etcd then
    /// panics), it writes nothing.
    pub(super) fn put(&mut self, put: &Put) -> Done<Reply> {
        let keeps = put.value.is_none() || put.ignore_lease;
        let old = if keeps { self.state.kv.get(&put.key) } else { None };
        if keeps && old.is_none() {
            return Ok(Reply::Put { revision: self.revision(), prev: None });
        }
        let (value, commitment) = match (&put.value, &old) {
            (Some(slot), _) => (self.operands.place(slot), slot.commitment),
            (None, Some(old)) => (old.value, self.operands.read(old.value)?.commitment()),
            (None, None) => unreachable!("a put without a value keeps the old one"),
        };
        let lease = match &old {
            Some(old) if put.ignore_lease => old.lease,
            _ => put.lease,
        };
        let new = NewVersion { lease, value, commitment };
        let prev = self.state.put(&put.key, new, &self.cause, self.record);
        self.record.puts += 1;
        let prev = prev.filter(|_| put.prev_kv);
        Ok(Reply::Put { revision: self.revision(), prev })
    }
}
