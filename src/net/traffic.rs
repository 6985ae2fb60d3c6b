use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use crate::observe::{self, Counter, Histogram, table};

/// What went over the links with one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Whether frames to it go out.
    pub up: bool,
    /// Bytes of frames sent, before TLS.
    pub sent_bytes: u64,
    /// Bytes of frames received, after TLS.
    pub received_bytes: u64,
    /// Frames dropped instead of sent.
    pub failures: u64,
    /// The last ping's round trip in microseconds; 0 before the first.
    pub round_trip_us: u64,
}

/// The same, counted twice: for the status page and for Prometheus.
pub(super) struct Counters {
    up: AtomicBool,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    failures: AtomicU64,
    round_trip_us: AtomicU64,
    sent_counter: Counter,
    received_counter: Counter,
    failures_counter: Counter,
    round_trip_histogram: Histogram,
}

impl Counters {
    pub fn new(label: &str) -> Self {
        let labels = &[label];
        let counters = Self {
            up: AtomicBool::new(false),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            round_trip_us: AtomicU64::new(0),
            sent_counter: observe::counter(&table::PEER_SENT_BYTES, labels),
            received_counter: observe::counter(&table::PEER_RECEIVED_BYTES, labels),
            failures_counter: observe::counter(&table::PEER_SENT_FAILURES, labels),
            round_trip_histogram: observe::histogram(&table::PEER_ROUND_TRIP_SECONDS, labels),
        };
        counters.failures_counter.increment(0);
        counters
    }

    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.sent_counter.increment(bytes as u64);
    }

    pub fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.received_counter.increment(bytes as u64);
    }

    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failures_counter.increment(1);
    }

    pub fn round_trip(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.round_trip_us.store(us, Ordering::Relaxed);
        self.round_trip_histogram.record(took);
    }

    pub fn snapshot(&self) -> Traffic {
        Traffic {
            up: self.up.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            round_trip_us: self.round_trip_us.load(Ordering::Relaxed),
        }
    }
}
