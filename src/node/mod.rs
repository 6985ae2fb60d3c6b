//! The replica's only event loop: the one place that gives time to the ordering core, starts threads
//! and joins ordering, log, apply and network.
//!
//! Threads: *protocol* (this loop: core, planning of the log, apply), *log* (write and fsync), *bulk*
//! (pages of blocks for peers that lag), *checkpoint*, *index*. They talk through closed enums and
//! channels; the state is shared with readers under one lock, held by the protocol thread once per
//! block and by readers for the length of a range.

mod admit;
mod backup;
mod bootstrap;
mod bulk;
mod checkpoint;
mod clock;
mod error;
mod event;
mod evidence;
mod execute;
mod frames;
mod gates;
mod handle;
mod halt;
mod index;
mod initial;
mod intake;
mod joining;
mod lie;
mod members;
mod metrics;
mod open;
mod pending;
mod persist;
mod prune;
mod quarantine;
mod recover;
mod reopen;
mod repair;
mod report;
mod run;
mod scrub;
mod stable;
mod start;
mod status;
mod tokens;
mod transfer;
mod values;

pub use backup::Backup;
pub use bootstrap::{FoundError, Founder, found};
pub use error::{ChangeError, NodeError, StartError};
pub use evidence::KeptEvidence;
pub use halt::{EXIT_HALTED, EXIT_LOG_FAILED, EXIT_REMOVED};
pub use handle::{Handle, Shared};
pub use initial::{InitialSnapshot, InitialSummary};
pub use joining::{JoinError, Joined, Joiner, OwnedError, join, vote_when_ready};
pub use start::{Node, NodeConfig};
pub use status::NodeStatus;
pub use tokens::Tokens;

pub use crate::storage::backup::STORAGE_VERSION;
pub use crate::storage::index::{Provenance, WrittenBy};
