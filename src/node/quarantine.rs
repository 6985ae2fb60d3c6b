//! A replica whose directory is damaged runs beside it: nothing there is read or written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::node::NodeError;
use crate::node::reopen::Ended;
use crate::node::run::Replica;
use crate::ordering::{Alarm, CoreStatus};
use crate::storage::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Open};
use crate::storage::log::{Appender, LogSettings};

/// A disk on which nothing is and nothing can be put.
pub(super) struct NoDisk;

fn denied(path: &str) -> DiskError {
    let what = "this replica is quarantined and writes nothing";
    DiskError::new(DiskErrorKind::Denied, path, what)
}

fn absent(path: &str) -> DiskError {
    let what = "this replica is quarantined; run `althing replica repair`";
    DiskError::new(DiskErrorKind::NotFound, path, what)
}

impl Disk for NoDisk {
    fn create_directory(&self, path: &str) -> Result<(), DiskError> {
        Err(denied(path))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        Err(absent(path))
    }

    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn DiskFile>, DiskError> {
        Err(if how == Open::Read { absent(path) } else { denied(path) })
    }

    fn rename(&self, from: &str, _: &str) -> Result<(), DiskError> {
        Err(denied(from))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        Err(denied(path))
    }

    fn sync_directory(&self, path: &str) -> Result<(), DiskError> {
        Err(denied(path))
    }
}

/// The end of a log that nothing is ever appended to: a quarantined core promises nothing.
pub(super) fn damaged_log(settings: LogSettings) -> Appender {
    Appender::unwritten(settings)
}

impl Replica {
    /// Why this replica serves no key, if it does not.
    pub(super) fn closed(&self) -> Option<&String> {
        self.quarantined.as_ref().or(self.healing.as_ref())
    }

    /// Tells the operator; a fence also refuses what waits.
    pub(super) fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::RollbackDetected { reason } => {
                tracing::error!(
                    event = "ROLLBACK_DETECTED",
                    "this replica's log is not the newest it had: {reason}; it votes again once the \
                     others have committed its REJOIN"
                );
                self.pending.fail_ops(NodeError::NoLeader);
                self.admission.refuse_all(NodeError::NoLeader);
                self.fenced = Some(reason);
            }
            Alarm::Joining => {
                tracing::info!(
                    event = "joining",
                    "this replica joins the network; it takes requests once the others have committed \
                     its REJOIN"
                );
                self.admission.refuse_all(NodeError::NoLeader);
                self.fenced = Some("joins the network; awaits its REJOIN".to_owned());
            }
            Alarm::Rejoined { height } => {
                tracing::info!(event = "rejoined", height = height.0, "rejoined: promises again");
                self.fenced = None;
            }
            Alarm::AwaitsVoters { missing, first_start } => {
                let missing: Vec<String> =
                    missing.iter().map(|id| self.meters.name_of(*id)).collect();
                let missing = missing.join(", ");
                if first_start {
                    tracing::warn!(
                        event = "awaits_first_start",
                        missing,
                        "the network begins when all replicas are there; waiting for: {missing}"
                    );
                } else {
                    tracing::warn!(
                        event = "awaits_voters",
                        missing,
                        "votes once a quorum has said what it holds of this replica; no answer from: \
                         {missing}"
                    );
                }
            }
            alarm => tracing::warn!(event = "alarm", "{alarm:?}"),
        }
    }

    /// From here on no vote and no key; who waits is told, and open watches are cut.
    pub(super) fn quarantine(&mut self, reason: String) {
        tracing::error!(event = "quarantine", "{reason}");
        self.signals.quarantined.store(true, Ordering::Relaxed);
        self.pending.fail_all(NodeError::Corrupt);
        self.quarantined = Some(reason);
        self.status_at_ms = 0;
    }

    /// True if the replica is to start over with nothing.
    pub(super) fn begin_repair(&mut self, begun: oneshot::Sender<Result<(), String>>) -> bool {
        let refusal = if self.quarantined.is_none() {
            Some("this replica is not quarantined; there is nothing to repair")
        } else if self.members.others.is_empty() {
            Some("no other replica holds this network's state; restore a backup")
        } else {
            None
        };
        let answer = refusal.map_or(Ok(()), |why| Err(why.to_owned()));
        let begins = answer.is_ok();
        // The caller may have gone; what it asked for is done all the same.
        drop(begun.send(answer));
        if begins {
            self.ended = Ended::Repair;
        }
        begins
    }

    /// A repaired replica serves keys again once it has caught up.
    pub(super) fn notice_healed(&mut self, core: &CoreStatus) {
        if self.healing.is_some() && core.has_caught_up(self.members.others.len()) {
            tracing::info!(event = "healed", height = core.executed.0, "this replica serves again");
            self.healing = None;
        }
    }
}
