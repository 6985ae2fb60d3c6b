//! What is ordered: the types of the hash-chained log, their one encoding, and the checks that bytes
//! alone decide. Nothing here asks the state, the clock or another replica.

mod administrators;
mod auth_op;
mod author;
mod block;
mod bundle;
mod certificate;
mod change;
pub mod check;
mod checkpoint;
mod config_error;
mod effects;
mod epoch;
mod epoch_proof;
mod evidence;
mod evidence_check;
mod evidence_op;
mod genesis;
mod header;
mod hello;
mod manifest;
mod network;
mod op;
mod question;
mod record;
mod session;
mod state_leaf;
mod state_proof;
mod transition;
mod value;
mod view_change;

pub use administrators::Administrators;
pub use auth_op::{AuthOp, Permission, PermissionKind};
pub use author::Author;
pub use block::{BLOCK_BYTES_MAX, Block, BlockParts, Entry, Rejoin};
pub use bundle::{BUNDLE_BYTES_MAX, BUNDLE_OPS_MAX, Bundle, BundleHeader, BundleParts, Skeleton};
pub use certificate::{Certificate, CertificateError, Phase, Vote, VoteSignature};
pub use change::{
    Attestation, ConfigAction, ConfigChange, GovernanceVote, NewReplica, possession_bytes,
};
pub use checkpoint::{CheckpointCertificate, CheckpointId, CheckpointVote};
pub use config_error::ConfigError;
pub use effects::{Change, ChangeKind, Effects, SYSTEM_ORDINAL};
pub use epoch::{Member, Membership, Parameters};
pub use epoch_proof::{EpochError, EpochProof};
pub use evidence::{Evidence, EvidenceError, EvidenceFile, Fork, Trust};
pub use evidence_check::NewViewFault;
pub use evidence_op::{EVIDENCE_OP_BYTES_MAX, EvidenceKind};
pub use genesis::{Genesis, GenesisMember, Ownership};
pub use header::{BlockHeader, HEADER_BYTES, flags};
pub use hello::{Hello, InitialCluster};
pub use manifest::{
    CHUNK_BYTES_MAX, CHUNK_FORMAT, ChunkEntry, MANIFEST_VERSION, Manifest, carry_root,
};
pub use network::{
    Address, Network, Organisation, PEER_ADDRESS_BYTES_MAX, Reserved, dialled, peer_urls,
};
pub use op::{
    AlarmAction, AlarmKind, Compare, CompareResult, CompareTarget, DeleteRange, Op, Put, Range,
    SortOrder, SortTarget, Txn,
};
pub use question::{Answer, Question};
pub use record::Record;
pub use session::{REJOIN_INTERVAL_MS, REJOIN_SHIFT, SESSION_WINDOW, SessionWindow};
pub use state_leaf::{StateLeaf, SubState, exec_root};
pub use state_proof::{PathLeaf, PathStep, StateFinding, StatePath, StateProof};
pub use transition::ATTESTATION_HEIGHTS;
pub use value::{Value, ValueError, ValueRef, ValueSlot, ValueSource};
pub use view_change::{NewView, ViewChange};
