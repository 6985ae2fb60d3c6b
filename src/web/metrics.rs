use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Method, StatusCode};

use super::answer::{METRICS, failure, found, method_not_allowed};
use super::status::quorum_margin;
use super::{Web, corrupt};
use crate::observe::{Metric, Metrics, counter, gauge, table};
use crate::types::Quorum;

pub(super) async fn metrics(State(web): State<Web>, method: Method) -> Response {
    if method != Method::GET {
        return method_not_allowed();
    }
    let Some(registry) = Metrics::installed() else {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "this process collects no metrics");
    };
    copy_status(&web);
    found(METRICS, Body::from(registry.render()))
}

/// What the node already counts is copied when somebody asks, so that it costs nothing otherwise.
fn copy_status(web: &Web) {
    let status = web.handle.status();
    let core = &status.core;
    let genesis = web.handle.genesis();
    let quorum = Quorum::of(genesis.members.len().max(1));
    let flag = |metric: &Metric, on: bool| gauge(metric, &[]).set(u8::from(on));
    flag(&table::SERVER_HAS_LEADER, core.has_leader);
    flag(&table::SERVER_IS_LEADER, core.primary == Some(status.own));
    flag(&table::QUARANTINED, corrupt(web));
    gauge(&table::SERVER_VERSION, &[web.settings.etcd_version]).set(1);
    gauge(&table::CLUSTER_VERSION, &[&minor(web.settings.etcd_version)]).set(1);
    gauge(&table::SERVER_ID, &[&format!("{:x}", web.settings.member_id)]).set(1);
    gauge(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1);
    for (metric, value) in [
        (&table::SERVER_PROPOSALS_PENDING, status.pending),
        (&table::SERVER_PROPOSALS_COMMITTED, core.committed.0),
        (&table::SERVER_PROPOSALS_APPLIED, core.executed.0),
        (&table::SERVER_QUOTA_BYTES, genesis.parameters.quota_bytes),
        (&table::DB_SIZE, status.logical_bytes),
        (&table::DB_SIZE_IN_USE, status.logical_bytes),
        (&table::EPOCH, core.epoch.0),
        (&table::VIEW, core.view.0),
        (&table::COMMITTED_HEIGHT, core.committed.0),
        (&table::EXECUTED_HEIGHT, core.executed.0),
        (&table::KEYS, status.keys),
        (&table::REVISION, u64::try_from(status.revision.0).unwrap_or(0)),
        (&table::CHECKPOINT_HEIGHT, status.checkpoint.0),
    ] {
        gauge(metric, &[]).set(approximate(value));
    }
    let margin = i32::try_from(quorum_margin(quorum, &status)).unwrap_or(i32::MAX);
    gauge(&table::QUORUM_MARGIN, &[]).set(margin);
    for (metric, value) in [
        // Tenures do not end by plan in this version, so every view entered is a change.
        (&table::SERVER_LEADER_CHANGES, core.counters.views_entered),
        (&table::SIGNATURES, core.counters.signatures),
        (&table::VERIFICATIONS, core.counters.verifications),
        (&table::VIEW_CHANGES, core.counters.view_changes),
        (&table::BLOCKS_PROPOSED, core.counters.proposals),
        (&table::BLOCKS_CAUGHT_UP, core.counters.caught_up_blocks),
        (&table::DISK_SYNCS, status.syncs),
        (&table::LOG_WRITTEN_BYTES, status.log_bytes),
    ] {
        counter(metric, &[]).absolute(value);
    }
}

/// Prometheus knows doubles only; above 2^53 the last bits are lost.
#[allow(clippy::cast_precision_loss, reason = "the exposition format has no integers")]
fn approximate(value: u64) -> f64 {
    value as f64
}

/// "3.7" of "3.7.3".
fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}
