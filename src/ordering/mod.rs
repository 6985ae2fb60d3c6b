//! PBFT as a value: inputs in, outputs out (protocol.md). Owns the order of blocks, every vote and
//! every certificate; it knows no clock, socket, disk or random source, and does not interpret what
//! it orders. The shell feeds [`Core::step`] and carries out what it emits.

mod input;
mod output;
mod message;
mod status_message;
mod core;
mod recover;
mod normal;
mod votes;
mod commit;
mod evidence;
mod witness;
mod budget;
mod gates;
mod fence;
mod asking;
mod shown;
mod rejoin;
mod blocks;
mod epochs;
mod view;
mod view_change;
mod new_view;
mod pool;
mod requests;
mod timers;
mod tenure;
mod pace;
mod status;
mod reads;
mod catch_up;
mod feed;
mod checkpoints;
mod transfer;
mod invariants;
#[cfg(test)]
mod tests;

pub use self::core::Core;
pub use crate::chain::{NewView, ViewChange};
pub use input::{CoreConfig, Input, Recovery};
pub use message::{Message, PAGE_BYTES_MAX, ReadAnswer, ReadNonce};
pub use output::{Alarm, CoreStatus, Counters, Output, PeerView, Recipients};
pub use shown::{SeenVotes, ShownVotes, Standing, VotesAnswer};
pub use status_message::{Mode, Status};
pub use transfer::{TransferEvent, TransferStep};
