//! What is ordered: the types of the hash-chained log, their one encoding, and the checks that bytes
//! alone decide. Nothing here asks the state, the clock or another replica.

mod author;
mod block;
mod bundle;
mod certificate;
pub mod check;
mod checkpoint;
mod effects;
mod epoch;
mod evidence;
mod genesis;
mod header;
mod manifest;
mod op;
mod record;
mod session;
mod state_leaf;
mod state_proof;
mod value;

pub use author::Author;
pub use block::{BLOCK_BYTES_MAX, Block, BlockParts, Entry, Rejoin};
pub use bundle::{BUNDLE_BYTES_MAX, BUNDLE_OPS_MAX, Bundle, BundleHeader, BundleParts, Skeleton};
pub use certificate::{Certificate, CertificateError, Phase, Vote, VoteSignature};
pub use checkpoint::{CheckpointCertificate, CheckpointId, CheckpointVote};
pub use effects::{Change, ChangeKind, Effects, SYSTEM_ORDINAL};
pub use epoch::{Member, Membership, Parameters};
pub use evidence::Evidence;
pub use genesis::{Genesis, GenesisMember, Ownership};
pub use header::{BlockHeader, HEADER_BYTES, flags};
pub use manifest::{CHUNK_BYTES_MAX, ChunkEntry, MANIFEST_VERSION, Manifest};
pub use op::{
    AlarmAction, AlarmKind, Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range,
    SortOrder, SortTarget, Txn,
};
pub use record::Record;
pub use session::{REJOIN_INTERVAL_MS, REJOIN_SHIFT, SESSION_WINDOW, SessionWindow};
pub use state_leaf::{StateLeaf, SubState, exec_root};
pub use state_proof::{PathLeaf, PathStep, StateFinding, StatePath, StateProof};
pub use value::{Value, ValueError, ValueRef, ValueSlot, ValueSource};
