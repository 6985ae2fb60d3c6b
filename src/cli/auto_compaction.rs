//! `--auto-compaction-*`: this replica orders compactions by etcd's two rules.

use std::collections::VecDeque;
use std::time::Duration;

use crate::chain::Op;
use crate::config::AutoCompaction;
use crate::node::Handle;
use crate::types::Revision;

/// etcd looks every five minutes when it keeps a number of revisions.
const REVISION_PERIOD: Duration = Duration::from_secs(300);

/// Runs for ever; what fails once is tried again at the next turn.
pub(super) async fn run(handle: &Handle, rule: AutoCompaction) {
    match rule {
        AutoCompaction::Off => {}
        AutoCompaction::Revisions { keep } => loop {
            tokio::time::sleep(REVISION_PERIOD).await;
            let keep = i64::try_from(keep).unwrap_or(i64::MAX);
            compact(handle, revision(handle).saturating_sub(keep)).await;
        },
        AutoCompaction::Periodic { keep_ms } => periodic(handle, keep_ms).await,
    }
}

/// Ten samples per period; the one that is a period old is compacted, at most once an hour.
async fn periodic(handle: &Handle, keep_ms: u64) {
    let step = Duration::from_millis((keep_ms / 10).clamp(1, 360_000));
    let samples_kept = usize::try_from(keep_ms.div_ceil(step.as_millis().max(1) as u64));
    let samples_kept = samples_kept.unwrap_or(usize::MAX).max(1);
    let turns_between = samples_kept.min(10);
    let mut samples = VecDeque::new();
    let mut turns = 0;
    loop {
        samples.push_back(revision(handle));
        tokio::time::sleep(step).await;
        turns += 1;
        if samples.len() < samples_kept {
            continue;
        }
        let oldest = samples.pop_front().unwrap_or(0);
        if turns >= turns_between {
            turns = 0;
            compact(handle, oldest).await;
        }
    }
}

fn revision(handle: &Handle) -> i64 {
    handle.read(|shared| shared.state.kv.revision().0)
}

async fn compact(handle: &Handle, revision: i64) {
    let compacted = handle.read(|shared| shared.state.kv.compact_revision().0);
    if revision <= compacted {
        return;
    }
    let author = handle.own_author("auto-compaction");
    let op = Op::Compact { revision: Revision(revision) };
    match handle.propose(author, op, Vec::new()).await {
        Ok(_) => tracing::info!(event = "auto_compaction", revision, "history given up"),
        Err(why) => tracing::warn!(event = "auto_compaction", %why, "tried again later"),
    }
}
