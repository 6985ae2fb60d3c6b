use std::collections::BTreeMap;

use crate::ordering::CoreStatus;
use crate::types::{Height, ReplicaId, Revision};

/// What a replica says of itself.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// This replica.
    pub own: ReplicaId,
    /// The ordering core's view of the network.
    pub core: CoreStatus,
    /// The store's revision.
    pub revision: Revision,
    /// The compact revision.
    pub compact_revision: Revision,
    /// Keys in the store.
    pub keys: u64,
    /// Logical bytes, what the quota counts.
    pub logical_bytes: u64,
    /// Puts executed since the process started.
    pub puts: u64,
    /// Deletes executed since the process started.
    pub deletes: u64,
    /// Bytes of log written since the process started.
    pub log_bytes: u64,
    /// Flushes of the log since the process started.
    pub syncs: u64,
    /// Ops admitted here and not yet executed.
    pub pending: u64,
    /// Height of the newest checkpoint on disk.
    pub checkpoint: Height,
    /// For how long frames to a peer have gone out, in milliseconds; absent while they do not.
    pub linked_ms: BTreeMap<ReplicaId, u64>,
    /// Why this replica is quarantined, if it is.
    pub quarantined: Option<String>,
    /// Why this replica is fenced, if it is: own votes are lost.
    pub fenced: Option<String>,
}

impl NodeStatus {
    pub(super) fn new(own: ReplicaId, core: CoreStatus) -> Self {
        Self {
            own,
            core,
            revision: Revision(0),
            compact_revision: Revision(0),
            keys: 0,
            logical_bytes: 0,
            puts: 0,
            deletes: 0,
            log_bytes: 0,
            syncs: 0,
            pending: 0,
            checkpoint: Height(0),
            linked_ms: BTreeMap::new(),
            quarantined: None,
            fenced: None,
        }
    }
}
