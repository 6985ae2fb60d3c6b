//! An auditor's half: checks what replicas hand out with nothing but public keys and digests. It knows
//! neither ordering nor state nor storage, and shares no predicate with them.

mod epochs;
mod chain;
mod evidence;
mod proof;
mod snapshot;

pub use chain::{ChainCheck, ChainCount, ChainError};
pub use epochs::epochs;
pub use evidence::{Finding, FindingError, evidence};
pub use proof::{ProofError, state_proof};
pub use snapshot::{SnapshotError, snapshot};
