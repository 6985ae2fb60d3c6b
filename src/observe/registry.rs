use core::fmt;
use std::sync::OnceLock;

use ::metrics::{Label, Level, Metadata};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::table::{self, METRICS, Metric, MetricKind};

/// Why the registry could not be made.
#[derive(Debug)]
pub enum MetricsError {
    /// A second registry in one process.
    AlreadyInstalled,
    /// The exporter refuses a table entry.
    Exporter(BuildError),
}

impl fmt::Display for MetricsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyInstalled => write!(f, "the metric registry was already installed"),
            Self::Exporter(error) => write!(f, "the metric table is wrong: {error}"),
        }
    }
}

impl std::error::Error for MetricsError {}

static INSTALLED: OnceLock<Metrics> = OnceLock::new();

/// The process's metric registry. Installed once, before the first handle is taken: a handle taken
/// earlier counts into nothing.
pub struct Metrics {
    exporter: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Metrics {
    /// Makes the registry and installs it for the process.
    ///
    /// # Errors
    /// A registry is installed already.
    pub fn install() -> Result<&'static Self, MetricsError> {
        let mut builder = PrometheusBuilder::new();
        for metric in METRICS {
            if let MetricKind::Histogram(bounds) = metric.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)
                    .map_err(MetricsError::Exporter)?;
            }
        }
        let recorder = builder.build_recorder();
        let exporter = recorder.handle();
        ::metrics::set_global_recorder(recorder).map_err(|_| MetricsError::AlreadyInstalled)?;
        let process = metrics_process::Collector::default();
        process.describe();
        METRICS.iter().for_each(describe);
        Ok(INSTALLED.get_or_init(|| Self { exporter, process }))
    }

    /// The registry, if the process has one.
    #[must_use]
    pub fn installed() -> Option<&'static Self> {
        INSTALLED.get()
    }

    /// The text format that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        self.exporter.run_upkeep();
        self.exporter.render()
    }

    /// Moves what histograms gathered into their buckets. A histogram nobody scrapes would keep
    /// every sample, so the owner of a timer calls this every few seconds.
    pub fn upkeep(&self) {
        self.exporter.run_upkeep();
    }
}

/// Help text, and a first zero where there is no label: `rate` over a counter that appears with its
/// first event misses that event.
fn describe(metric: &Metric) {
    let (name, help) = (metric.name, metric.help);
    match metric.kind {
        MetricKind::Counter => ::metrics::describe_counter!(name, help),
        MetricKind::Gauge => ::metrics::describe_gauge!(name, help),
        MetricKind::Histogram(_) => ::metrics::describe_histogram!(name, help),
    }
    if metric.labels.is_empty() && metric.kind == MetricKind::Counter {
        counter(metric, &[]).increment(0);
    }
}

/// A handle to count with. Taken once and kept: taking it looks the name up.
pub fn counter(metric: &Metric, values: &[&str]) -> ::metrics::Counter {
    assert!(metric.kind == MetricKind::Counter, "{} is a counter", metric.name);
    ::metrics::with_recorder(|recorder| recorder.register_counter(&key(metric, values), &METADATA))
}

/// A handle to set. Taken once and kept.
pub fn gauge(metric: &Metric, values: &[&str]) -> ::metrics::Gauge {
    assert!(metric.kind == MetricKind::Gauge, "{} is a gauge", metric.name);
    ::metrics::with_recorder(|recorder| recorder.register_gauge(&key(metric, values), &METADATA))
}

/// A handle to record samples with. Taken once and kept.
pub fn histogram(metric: &Metric, values: &[&str]) -> ::metrics::Histogram {
    assert!(matches!(metric.kind, MetricKind::Histogram(_)), "{} is a histogram", metric.name);
    ::metrics::with_recorder(|recorder| {
        recorder.register_histogram(&key(metric, values), &METADATA)
    })
}

/// Counts a proof that a replica broke the protocol. Rare enough for a look-up each time.
pub fn evidence() {
    counter(&table::EVIDENCE, &[]).increment(1);
}

static METADATA: Metadata<'static> = Metadata::new("althing", Level::INFO, None);

/// Values stand in the order of the metric's labels.
fn key(metric: &Metric, values: &[&str]) -> ::metrics::Key {
    assert!(values.len() == metric.labels.len(), "{} has a value per label", metric.name);
    let labels: Vec<Label> = metric
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    ::metrics::Key::from_parts(metric.name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_histogram_has_buckets_and_the_process_reports_its_memory() {
        let metrics = Metrics::install().expect("no other test installs the registry");
        for metric in METRICS {
            if let MetricKind::Histogram(_) = metric.kind {
                let values: Vec<&str> = metric.labels.iter().map(|_| "x").collect();
                histogram(metric, &values).record(0.003);
            }
        }
        counter(&table::PEER_SENT_BYTES, &["8e9e05c52164694d"]).increment(7);
        let text = metrics.render();
        for metric in METRICS {
            if let MetricKind::Histogram(_) = metric.kind {
                assert!(text.contains(&format!("{}_bucket{{", metric.name)), "{}", metric.name);
            }
        }
        assert!(text.contains("etcd_network_peer_sent_bytes_total{To=\"8e9e05c52164694d\"} 7"));
        assert!(text.contains("etcd_server_proposals_failed_total 0"));
        assert!(text.contains("process_resident_memory_bytes"));
        assert!(matches!(Metrics::install(), Err(MetricsError::AlreadyInstalled)));
    }
}
