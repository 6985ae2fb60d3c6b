use std::sync::{Arc, PoisonError, RwLock};

use crate::chain::{Value, ValueError, ValueRef, ValueSource};
use crate::storage::values::Values;

/// The replica's values behind a lock that is held to look places up, never during a read of the disk.
#[derive(Clone)]
pub(super) struct SharedValues(Arc<RwLock<Values>>);

impl SharedValues {
    pub(super) fn new(values: Values) -> Self {
        Self(Arc::new(RwLock::new(values)))
    }

    /// Changes what is known of places.
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut Values) -> R) -> R {
        f(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ValueSource for SharedValues {
    fn read(&self, at: ValueRef) -> Result<Value, ValueError> {
        let mut values = self.read_many(&[at])?;
        Ok(values.pop().expect("one answer to one question"))
    }

    fn read_many(&self, refs: &[ValueRef]) -> Result<Vec<Value>, ValueError> {
        let plan = self.0.read().unwrap_or_else(PoisonError::into_inner).plan(refs);
        plan.read()
    }
}
