//! What the process says about itself: log lines and metrics. It knows no other module but the
//! words; whoever has something to count takes a handle from the one table in [`table`].

mod logging;
mod registry;
pub mod table;

pub use logging::{LogFormat, LogOutput, LogSettings, LoggingError, Rotation, start_logging};
pub use registry::{Metrics, MetricsError, counter, evidence, gauge, histogram};
pub use table::{METRICS, Metric, MetricKind};

pub use ::metrics::{Counter, Gauge, Histogram};
