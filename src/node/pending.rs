use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::apply::Reply;
use crate::node::NodeError;

/// Who waits for what: callers of admitted ops by sequence number, and reads by barrier.
#[derive(Default)]
pub(super) struct Pending {
    /// This session's ops, admitted and not yet executed.
    ops: BTreeMap<u64, oneshot::Sender<Result<Reply, NodeError>>>,
    /// Barriers asked of the core, by the id given to it.
    asked: BTreeMap<u64, Vec<oneshot::Sender<Result<(), NodeError>>>>,
    next_read: u64,
}

impl Pending {
    pub(super) fn wait_for(&mut self, seq: u64, reply: oneshot::Sender<Result<Reply, NodeError>>) {
        let before = self.ops.insert(seq, reply);
        assert!(before.is_none(), "a sequence number is given to one op");
    }

    /// Ops admitted and not yet executed.
    pub(super) fn ops(&self) -> usize {
        self.ops.len()
    }

    /// The lowest sequence number that still waits.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.ops.keys().next().copied()
    }

    pub(super) fn answer(&mut self, seq: u64, reply: Reply) {
        if let Some(waiter) = self.ops.remove(&seq) {
            // The caller may have given up: its request timed out or its stream ended.
            let _gone = waiter.send(Ok(reply));
        }
    }

    /// Groups barriers under one question; returns its id.
    pub(super) fn ask(&mut self, waiters: Vec<oneshot::Sender<Result<(), NodeError>>>) -> u64 {
        self.next_read += 1;
        self.asked.insert(self.next_read, waiters);
        self.next_read
    }

    /// Everything a barrier had to wait for is executed.
    pub(super) fn read_ready(&mut self, id: u64) {
        for waiter in self.asked.remove(&id).into_iter().flatten() {
            let _gone = waiter.send(Ok(()));
        }
    }

    /// No quorum answered in time.
    pub(super) fn read_failed(&mut self, id: u64) {
        for waiter in self.asked.remove(&id).into_iter().flatten() {
            let _gone = waiter.send(Err(NodeError::Timeout));
        }
    }

    /// Ends the wait for this session's ops: whether they are executed is not told any more.
    pub(super) fn fail_ops(&mut self, error: NodeError) {
        for waiter in core::mem::take(&mut self.ops).into_values() {
            let _gone = waiter.send(Err(error));
        }
    }

    /// Ends everything that waits: this replica serves no key any more.
    pub(super) fn fail_all(&mut self, error: NodeError) {
        self.fail_ops(error);
        for waiter in core::mem::take(&mut self.asked).into_values().flatten() {
            let _gone = waiter.send(Err(error));
        }
    }
}
