//! The one table of metric names. `docs/operating/metrics.md` repeats it and a test compares the
//! two. etcd's names keep etcd's meaning (ecosystem.md 4.2); Althing's own begin with `althing_`.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts per bucket, by upper bound. Without bounds the exporter would write a summary, and
    /// every query over `_bucket` would be empty.
    Histogram(&'static [f64]),
}

/// A metric's name and what it means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// As scraped.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts, with its unit.
    pub help: &'static str,
}

/// etcd's disk buckets: 1 ms x 2^0..13, in seconds.
const DISK_SECONDS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
    8.192,
];
/// etcd's peer round trip buckets: 0.1 ms x 2^0..15, in seconds.
const ROUND_TRIP_SECONDS: &[f64] = &[
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048,
    0.4096, 0.8192, 1.6384, 3.2768,
];
/// The default buckets of Go's gRPC middleware, in seconds.
const HANDLING_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const PER_BLOCK: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

macro_rules! metrics {
    ($($constant:ident = $kind:expr, $name:literal $labels:tt, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: $kind, labels: &$labels, help: $help };
        )*
        /// Every metric of Althing's; the `process_*` ones come from the operating system.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

use MetricKind::{Counter, Gauge, Histogram};

metrics! {
    SERVER_HAS_LEADER = Gauge, "etcd_server_has_leader" [],
        "1 while this replica is in normal mode of a view, else 0.";
    SERVER_IS_LEADER = Gauge, "etcd_server_is_leader" [],
        "1 while this replica is the primary, else 0.";
    SERVER_LEADER_CHANGES = Counter, "etcd_server_leader_changes_seen_total" [],
        "Unplanned view changes seen.";
    SERVER_PROPOSALS_FAILED = Counter, "etcd_server_proposals_failed_total" [],
        "Requests of this replica's clients that were refused before ordering or timed out.";
    SERVER_PROPOSALS_PENDING = Gauge, "etcd_server_proposals_pending" [],
        "Requests of this replica's clients that wait for their result.";
    SERVER_PROPOSALS_COMMITTED = Gauge, "etcd_server_proposals_committed_total" [],
        "Blocks committed: the height of the last one.";
    SERVER_PROPOSALS_APPLIED = Gauge, "etcd_server_proposals_applied_total" [],
        "Blocks executed: the height of the last one.";
    SERVER_QUOTA_BYTES = Gauge, "etcd_server_quota_backend_bytes" [],
        "Quota, in logical bytes.";
    SERVER_VERSION = Gauge, "etcd_server_version" ["server_version"],
        "1, labelled with the etcd version whose interface is served.";
    CLUSTER_VERSION = Gauge, "etcd_cluster_version" ["cluster_version"],
        "1, labelled with the etcd version of the cluster's interface.";
    SERVER_ID = Gauge, "etcd_server_id" ["server_id"],
        "1, labelled with the member id in hexadecimal.";
    HEALTH_SUCCESS = Counter, "etcd_server_health_success" [],
        "Successful answers of /health.";
    HEALTH_FAILURES = Counter, "etcd_server_health_failures" [],
        "Failed answers of /health.";
    HEALTHCHECKS = Counter, "etcd_server_healthchecks_total" ["type", "name", "status"],
        "Health checks run by /livez and /readyz, by result.";
    SERVER_IS_LEARNER = Gauge, "etcd_server_is_learner" [],
        "1 while this replica has no vote, else 0.";
    MVCC_PUTS = Counter, "etcd_mvcc_put_total" [],
        "Puts executed since the process started, those inside transactions too.";
    MVCC_DELETES = Counter, "etcd_mvcc_delete_total" [],
        "Deletes executed since the process started, whatever they found; not those of ended leases.";
    MVCC_KEYS = Gauge, "etcd_debugging_mvcc_keys_total" [],
        "Keys in the store.";
    MVCC_REVISION = Gauge, "etcd_debugging_mvcc_current_revision" [],
        "The store's revision.";
    MVCC_COMPACT_REVISION = Gauge, "etcd_debugging_mvcc_compact_revision" [],
        "The revision of the last compaction, 0 before the first.";
    DB_SIZE = Gauge, "etcd_mvcc_db_total_size_in_bytes" [],
        "Logical bytes that the quota counts.";
    DB_SIZE_IN_USE = Gauge, "etcd_mvcc_db_total_size_in_use_in_bytes" [],
        "Logical bytes that the quota counts; there is nothing to defragment.";
    WAL_FSYNC_SECONDS = Histogram(DISK_SECONDS), "etcd_disk_wal_fsync_duration_seconds" [],
        "Seconds per group commit of the log: its writes and their sync.";
    BACKEND_COMMIT_SECONDS =
        Histogram(DISK_SECONDS), "etcd_disk_backend_commit_duration_seconds" [],
        "Seconds per slice of a checkpoint.";
    PEER_ROUND_TRIP_SECONDS =
        Histogram(ROUND_TRIP_SECONDS), "etcd_network_peer_round_trip_time_seconds" ["To"],
        "Seconds between a ping to a peer and its answer.";
    PEER_SENT_FAILURES = Counter, "etcd_network_peer_sent_failures_total" ["To"],
        "Frames for a peer that were dropped: no link, or its queue was full.";
    PEER_SENT_BYTES = Counter, "etcd_network_peer_sent_bytes_total" ["To"],
        "Bytes of frames sent to a peer, before TLS.";
    PEER_RECEIVED_BYTES = Counter, "etcd_network_peer_received_bytes_total" ["From"],
        "Bytes of frames received from a peer, after TLS.";
    CLIENT_RECEIVED_BYTES = Counter, "etcd_network_client_grpc_received_bytes_total" [],
        "Bytes of gRPC request bodies received from clients.";
    CLIENT_SENT_BYTES = Counter, "etcd_network_client_grpc_sent_bytes_total" [],
        "Bytes of gRPC response bodies sent to clients.";
    GRPC_STARTED =
        Counter, "grpc_server_started_total" ["grpc_service", "grpc_method", "grpc_type"],
        "Calls begun.";
    GRPC_HANDLED = Counter, "grpc_server_handled_total"
        ["grpc_service", "grpc_method", "grpc_type", "grpc_code"],
        "Calls ended, by status code. A stream counts when it ends.";
    GRPC_HANDLING_SECONDS = Histogram(HANDLING_SECONDS), "grpc_server_handling_seconds"
        ["grpc_service", "grpc_method", "grpc_type"],
        "Seconds per call; a stream's until it ends. Only with --metrics=extensive.";
    BUILD_INFO = Gauge, "althing_build_info" ["version"],
        "1, labelled with Althing's own version.";
    EPOCH = Gauge, "althing_epoch" [],
        "Epoch: a fixed membership and configuration.";
    VIEW = Gauge, "althing_view" [],
        "View within the epoch.";
    COMMITTED_HEIGHT = Gauge, "althing_committed_height" [],
        "Height of the last committed block.";
    EXECUTED_HEIGHT = Gauge, "althing_executed_height" [],
        "Height of the last executed block.";
    QUORUM_MARGIN = Gauge, "althing_quorum_margin" [],
        "Reachable voters, this one included, minus the quorum. Below 0 nothing is ordered.";
    PEER_UP = Gauge, "althing_peer_up" ["org"],
        "1 while the link to the organisation's replica is up, else 0.";
    SIGNATURES = Counter, "althing_signatures_total" [],
        "Signatures made for the protocol.";
    VERIFICATIONS = Counter, "althing_verifications_total" [],
        "Signatures checked for the protocol.";
    EVIDENCE = Counter, "althing_evidence_total" [],
        "Proofs collected that a replica broke the protocol.";
    VIEW_CHANGES = Counter, "althing_view_changes_total" [],
        "View changes this replica asked for.";
    BLOCKS_PROPOSED = Counter, "althing_blocks_proposed_total" [],
        "Blocks this replica proposed as primary.";
    BLOCKS_CAUGHT_UP = Counter, "althing_blocks_caught_up_total" [],
        "Blocks that came by catch-up pages.";
    KEYS = Gauge, "althing_keys" [],
        "Keys in the store.";
    REVISION = Gauge, "althing_revision" [],
        "The store's revision.";
    CHECKPOINT_HEIGHT = Gauge, "althing_checkpoint_height" [],
        "Height of the newest checkpoint on disk.";
    LOG_WRITTEN_BYTES = Counter, "althing_log_written_bytes_total" [],
        "Bytes of log written since the process started.";
    BLOCK_OPS = Histogram(PER_BLOCK), "althing_block_ops" [],
        "Operations per executed block.";
    DISK_SYNCS = Counter, "althing_disk_syncs_total" [],
        "Group commits of the log.";
    QUARANTINED = Gauge, "althing_quarantined" [],
        "1 while the replica is quarantined: it casts no vote and serves no key.";
    FENCED = Gauge, "althing_fenced" [],
        "1 while the replica is fenced: its votes are lost and it casts none until its REJOIN is committed.";
    CLIENT_CONNECTIONS = Gauge, "althing_client_connections" [],
        "Open connections on the client listeners.";
    CLIENT_CONNECTIONS_REFUSED = Counter, "althing_client_connections_refused_total" ["reason"],
        "Client connections closed before a request was read.";
    CLIENT_CERTIFICATE_EXPIRY = Gauge, "althing_server_certificate_expiry_seconds" [],
        "Unix time at which the certificate of the client listeners expires.";
    PEER_CERTIFICATE_EXPIRY = Gauge, "althing_peer_certificate_expiry_seconds" [],
        "Unix time at which the certificate shown at https peer URLs expires.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_of_a_kind_that_prometheus_accepts() {
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
        }
    }

    #[test]
    fn the_page_for_operators_lists_exactly_these_metrics() {
        let page = include_str!("../../docs/operating/metrics.md");
        let row = |metric: &Metric| {
            let kind = match metric.kind {
                Counter => "counter",
                Gauge => "gauge",
                Histogram(_) => "histogram",
            };
            let labels = metric.labels.join(", ");
            format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help)
        };
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = METRICS.iter().map(row).collect();
        let stale: Vec<&&str> =
            rows.iter().filter(|row| !expected.iter().any(|e| e == *row)).collect();
        let absent: Vec<&String> =
            expected.iter().filter(|row| !rows.contains(&row.as_str())).collect();
        assert!(stale.is_empty() && absent.is_empty(), "remove {stale:#?}\nadd {absent:#?}");
    }
}
