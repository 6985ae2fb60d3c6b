//! Writers that remember what was acknowledged, and the check that all of it is still there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use conformance::client::{Client, field, number};
use conformance::cluster::TlsFiles;
use conformance::network::{Network, Replica};
use prost_reflect::Value;

/// An acknowledged write: key, value, the revision the reply named.
#[derive(Clone)]
struct Acknowledged {
    key: String,
    value: String,
    revision: i64,
}

/// What one writer saw.
struct Written {
    acknowledged: Vec<Acknowledged>,
    longest_gap: Duration,
    failures: u64,
}

/// Writers under way, one thread per replica given.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    stall_ms: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Written>>,
}

/// The finished load.
pub struct Ledger {
    acknowledged: Vec<Acknowledged>,
    /// The longest time any one writer waited between two acknowledgements.
    pub longest_gap: Duration,
    /// Writes whose outcome the client does not know.
    pub failures: u64,
}

impl Load {
    /// Starts a writer on each of `replicas`; keys begin with `name`.
    pub fn start(name: &str, replicas: &[&Replica]) -> Load {
        let clients: Vec<Vec<&Replica>> = replicas.iter().map(|replica| vec![*replica]).collect();
        Load::start_with(name, &clients)
    }

    /// Starts one writer per list of endpoints. It stays at one until a request fails there; a request
    /// has failed when it failed at all of them.
    pub fn start_with(name: &str, clients: &[Vec<&Replica>]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let stall_ms = Arc::new(AtomicU64::new(0));
        let writer = |replicas: &Vec<&Replica>| {
            let (stop, done, stall_ms) = (stop.clone(), done.clone(), stall_ms.clone());
            let endpoints: Vec<(String, TlsFiles)> =
                replicas.iter().map(|one| (one.endpoint.clone(), one.tls())).collect();
            let prefix = format!("{name}/{}", replicas[0].name);
            std::thread::spawn(move || write(&prefix, &endpoints, &stop, (&done, &stall_ms)))
        };
        let writers = clients.iter().map(writer).collect();
        Load { stop, done, stall_ms, writers }
    }

    /// The longest time any writer waited for an acknowledgement since this was last asked.
    pub fn longest_stall(&self) -> Duration {
        Duration::from_millis(self.stall_ms.swap(0, Ordering::Relaxed))
    }

    /// Waits until `count` more writes were acknowledged.
    pub fn progress(&self, when: &str, count: u64) {
        let goal = self.done.load(Ordering::Relaxed) + count;
        let what = format!("{count} more writes {when}");
        conformance::peers::eventually(&what, || self.done.load(Ordering::Relaxed) >= goal);
    }

    /// Ends the writers.
    pub fn finish(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger =
            Ledger { acknowledged: Vec::new(), longest_gap: Duration::ZERO, failures: 0 };
        for writer in self.writers.drain(..) {
            let written = writer.join().expect("a writer");
            ledger.acknowledged.extend(written.acknowledged);
            ledger.longest_gap = ledger.longest_gap.max(written.longest_gap);
            ledger.failures += written.failures;
        }
        ledger
    }
}

fn write(
    prefix: &str,
    endpoints: &[(String, TlsFiles)],
    stop: &AtomicBool,
    (done, stall_ms): (&AtomicU64, &AtomicU64),
) -> Written {
    let connect = |at: usize| {
        let (endpoint, tls) = &endpoints[at % endpoints.len()];
        Client::new(endpoint, Some(tls))
    };
    let (mut at, mut failed_running) = (0, 0);
    let mut client = connect(at);
    let mut written =
        Written { acknowledged: Vec::new(), longest_gap: Duration::ZERO, failures: 0 };
    let mut last = Instant::now();
    let mut number_of_write = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        // What failed is not written again under the same key: it may still come.
        number_of_write += 1;
        let (key, value) = (format!("{prefix}/{number_of_write:06}"), format!("{number_of_write}"));
        let request = format!("key:'{key}' value:'{value}'");
        match client.call_within("KV/Put", &request, Duration::from_secs(10)) {
            Ok(reply) => {
                let revision = number(&reply, "header.revision");
                written.acknowledged.push(Acknowledged { key, value, revision });
                let waited = last.elapsed();
                written.longest_gap = written.longest_gap.max(waited);
                let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                stall_ms.fetch_max(waited_ms, Ordering::Relaxed);
                last = Instant::now();
                failed_running = 0;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(_unknown_outcome) => {
                at += 1;
                failed_running += 1;
                client = connect(at);
                if failed_running % endpoints.len() == 0 {
                    written.failures += 1;
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
    written
}

impl Drop for Load {
    /// A failed test ends its writers before the keys they use are gone.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let _failed_too = writer.join();
        }
    }
}

impl Ledger {
    /// Acknowledged writes by revision: what a watch must have told.
    pub fn revisions(&self) -> BTreeMap<i64, String> {
        let writes = self.acknowledged.iter();
        writes.map(|write| (write.revision, write.key.clone())).collect()
    }

    /// How many writes were acknowledged.
    pub fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// Every acknowledged write is there, through every replica, with the value and at the revision
    /// the client was told; no two were told the same revision.
    pub fn check(&self, network: &Network) {
        let mut by_revision: BTreeMap<i64, &str> = BTreeMap::new();
        for write in &self.acknowledged {
            let other = by_revision.insert(write.revision, &write.key);
            assert!(other.is_none(), "{} and {other:?} share a revision", write.key);
        }
        for replica in network.replicas.iter().filter(|replica| replica.runs()) {
            let stored = everything(replica);
            for write in &self.acknowledged {
                let found = stored.get(&write.key);
                let expected = (write.value.clone(), write.revision);
                assert_eq!(found, Some(&expected), "{} at {}", write.key, replica.name);
            }
        }
    }
}

/// Key -> value and modification revision, by a linearizable read in pages.
fn everything(replica: &Replica) -> BTreeMap<String, (String, i64)> {
    let client = replica.client();
    let mut stored = BTreeMap::new();
    let mut from = "\\000".to_owned();
    loop {
        let request = format!("key:'{from}' range_end:'\\000' limit:5000");
        let page = client.call("KV/Range", &request);
        let page = page.unwrap_or_else(|failure| panic!("read at {}: {failure:?}", replica.name));
        let kvs = field(&page, "kvs");
        for kv in kvs.as_list().expect("kvs").iter().filter_map(Value::as_message) {
            let text = |name: &str| {
                let bytes = field(kv, name).as_bytes().cloned().expect("bytes");
                String::from_utf8(bytes.to_vec()).expect("this test's keys are text")
            };
            from = format!("{}\\000", text("key"));
            stored.insert(text("key"), (text("value"), number(kv, "mod_revision")));
        }
        if field(&page, "more") == Value::Bool(false) {
            return stored;
        }
    }
}
