use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::Web;
use super::answer::{METRICS, failure, found};
use crate::observe::{Metrics, counter, gauge, table};

/// Whatever the method, as in etcd.
pub(super) async fn metrics(State(web): State<Web>) -> Response {
    let Some(registry) = Metrics::installed() else {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "this process collects no metrics");
    };
    copy_status(&web);
    found(METRICS, Body::from(registry.render()))
}

/// The node publishes what changes with every block; the rest is copied when somebody asks.
fn copy_status(web: &Web) {
    let status = web.handle.status();
    let core = &status.core;
    let version = web.settings.etcd_version;
    gauge(&table::SERVER_VERSION, &[version]).set(1);
    gauge(&table::CLUSTER_VERSION, &[&minor(version)]).set(1);
    gauge(&table::SERVER_ID, &[&format!("{:x}", web.settings.member_id)]).set(1);
    gauge(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1);
    for (metric, value) in [
        (&table::KEYS, status.keys),
        (&table::REVISION, u64::try_from(status.revision.0).unwrap_or(0)),
        (&table::CHECKPOINT_HEIGHT, status.checkpoint.0),
    ] {
        gauge(metric, &[]).set(approximate(value));
    }
    for (metric, value) in [
        (&table::VIEW_CHANGES, core.counters.view_changes),
        (&table::BLOCKS_PROPOSED, core.counters.proposals),
        (&table::LOG_WRITTEN_BYTES, status.log_bytes),
        (&table::BLOCKS_CAUGHT_UP, core.counters.caught_up_blocks),
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
