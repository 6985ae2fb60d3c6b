use bytes::Bytes;
use tokio::sync::oneshot;

use crate::apply::Reply;
use crate::chain::{Author, CheckpointId, Op};
use crate::net::NetEvent;
use crate::node::NodeError;
use crate::node::transfer::Transferred;
use crate::ordering::TransferEvent;
use crate::storage::log::Placed;
use crate::types::LogPosition;

/// Everything that can happen to the protocol thread.
pub(super) enum Event {
    /// A client's write.
    Request(Request),
    /// A linearizable read waits for its barrier.
    Barrier(oneshot::Sender<Result<(), NodeError>>),
    /// A peer came, went or sent a frame.
    Net(NetEvent),
    /// Every record up to this position, and every byte in front of that place, is on disk.
    Durable(LogPosition, Placed),
    /// A write or fsync failed: the process ends (README decision 10).
    LogFailed(String),
    /// A checkpoint is on disk, or why it is not.
    Checkpointed(Result<CheckpointId, String>),
    /// How a state transfer goes on.
    Transfer(TransferEvent),
    /// A transferred state is complete and waits to be installed.
    Transferred(Box<Transferred>),
    /// Something this replica rests on is damaged: it stops voting and serving.
    Damaged(String),
    /// Lie for a while; only a demo network's endpoint asks for it.
    Lie,
    /// Hand the lead over, if this replica has it.
    HandOver,
    /// Set the damaged log and state aside and begin again (protocol.md 19.4).
    Repair(oneshot::Sender<Result<(), String>>),
    /// Hand the lead over, then stop.
    Stop,
}

/// One op on its way into a bundle.
pub(super) struct Request {
    pub(super) author: Author,
    /// Slots index into `values`; commitments are filled at admission.
    pub(super) op: Op,
    pub(super) values: Vec<Bytes>,
    pub(super) reply: oneshot::Sender<Result<Reply, NodeError>>,
}
