use core::time::Duration;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::observe::{self, Counter, Gauge, table};

/// What clients may take (faults.md 5.5). Every limit is set, because the libraries' own are either
/// none or too small for watches.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Threads that serve connections, each with a runtime of its own; a connection stays on one.
    pub threads: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address.
    pub connections_per_address_max: usize,
    /// The same from this machine: an apiserver opens a connection per resource, and there it may
    /// be one of several.
    pub connections_from_loopback_max: usize,
    /// TLS handshakes at once.
    pub handshakes_max: usize,
    /// A TLS handshake, or the first bytes without TLS, take no longer.
    pub handshake_within: Duration,
    /// HTTP/2 streams of a connection: every open watch stream holds one.
    pub streams_max: u32,
    /// An idle HTTP/2 client is pinged so often; none for never.
    pub keepalive_interval: Option<Duration>,
    /// And disconnected when it has not answered for so long.
    pub keepalive_timeout: Duration,
    /// Whether the time of every call goes into a histogram (`--metrics=extensive`).
    pub times_calls: bool,
    /// A call of one message each way that takes longer is logged.
    pub slow_call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from).min(8),
            connections_max: 16_384,
            connections_per_address_max: 256,
            connections_from_loopback_max: 4_096,
            handshakes_max: 1_024,
            handshake_within: Duration::from_secs(10),
            streams_max: 10_000,
            keepalive_interval: Some(Duration::from_secs(2 * 3_600)),
            keepalive_timeout: Duration::from_secs(20),
            times_calls: false,
            slow_call: Duration::from_millis(300),
        }
    }
}

/// Counts open connections.
pub(super) struct Census {
    limits: Limits,
    open: Mutex<BTreeMap<IpAddr, usize>>,
    connections: Gauge,
    refused: Refusals,
}

/// Connections closed before a request was read, by reason.
struct Refusals {
    total: Counter,
    address: Counter,
    handshakes: Counter,
    tls: Counter,
}

/// Why a connection was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Total,
    Address,
    Handshakes,
    Tls,
}

/// An open connection's place; dropping it frees the place.
pub(super) struct Place {
    census: Arc<Census>,
    address: IpAddr,
}

impl Census {
    pub fn new(limits: Limits) -> Self {
        let refused = |reason| observe::counter(&table::CLIENT_CONNECTIONS_REFUSED, &[reason]);
        Self {
            limits,
            open: Mutex::default(),
            connections: observe::gauge(&table::CLIENT_CONNECTIONS, &[]),
            refused: Refusals {
                total: refused("connections"),
                address: refused("connections_per_address"),
                handshakes: refused("handshakes"),
                tls: refused("tls"),
            },
        }
    }

    /// A place for a connection from `address`.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refused> {
        let address = address.to_canonical();
        let per_address_max = if address.is_loopback() {
            self.limits.connections_from_loopback_max
        } else {
            self.limits.connections_per_address_max
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = open.values().sum();
        if total >= self.limits.connections_max {
            return Err(Refused::Total);
        }
        let count = open.entry(address).or_insert(0);
        if *count >= per_address_max {
            return Err(Refused::Address);
        }
        *count += 1;
        self.connections.increment(1);
        Ok(Place { census: Arc::clone(self), address })
    }

    pub fn refuse(&self, why: Refused) {
        let counter = match why {
            Refused::Total => &self.refused.total,
            Refused::Address => &self.refused.address,
            Refused::Handshakes => &self.refused.handshakes,
            Refused::Tls => &self.refused.tls,
        };
        counter.increment(1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.census.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
        self.census.connections.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_address_and_freed_by_dropping() {
        let limits = Limits {
            connections_max: 5,
            connections_per_address_max: 2,
            connections_from_loopback_max: 3,
            ..Limits::default()
        };
        let census = Arc::new(Census::new(limits));
        let far: IpAddr = [192, 0, 2, 1].into();
        let near: IpAddr = "::ffff:127.0.0.1".parse().expect("an address");
        let mut places = vec![census.admit(far).ok(), census.admit(far).ok()];
        assert_eq!(census.admit(far).err(), Some(Refused::Address));
        places.extend((0..3).map(|_| census.admit(near).ok()));
        assert!(places.iter().all(Option::is_some));
        assert_eq!(census.admit([192, 0, 2, 2].into()).err(), Some(Refused::Total));
        places.truncate(1);
        assert!(census.admit(far).is_ok());
    }
}
