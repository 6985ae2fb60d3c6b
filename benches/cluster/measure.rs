//! What the kernel and the servers' own metrics say about a stretch of time.

use std::collections::BTreeMap;
use std::fs;

use conformance::client;
use conformance::cluster::TlsFiles;

/// Metrics that explain a run, where a server has them: name, how the table calls it.
pub const EXPLAINING: [(&str, &str); 4] = [
    ("etcd_disk_wal_fsync_duration_seconds_count", "syncs"),
    ("althing_signatures_total", "signatures"),
    ("althing_verifications_total", "verifications"),
    ("althing_blocks_executed_total", "blocks"),
];

/// Sums over all processes of a cluster at one moment, or differences of two.
#[derive(Clone, Default)]
pub struct Sample {
    /// User and system time, in microseconds.
    pub cpu_us: u64,
    /// Bytes that reached the disk's queue.
    pub written_bytes: u64,
    rss_kib: u64,
    anonymous_kib: u64,
    /// Time the host took from this machine, in hundredths of a second.
    pub steal: u64,
    /// By metric name.
    pub metrics: BTreeMap<&'static str, f64>,
}

impl Sample {
    /// Reads `/proc` for each process.
    pub fn of(processes: &[u32]) -> Sample {
        let mut sample = Sample { steal: steal(), ..Sample::default() };
        for process in processes {
            sample.cpu_us += cpu_us(*process);
            let status = read(*process, "status");
            sample.rss_kib += labelled(&status, "VmRSS:");
            sample.anonymous_kib += labelled(&status, "RssAnon:");
            sample.written_bytes += labelled(&read(*process, "io"), "write_bytes:");
        }
        sample
    }

    /// Adds the explaining metrics of one server.
    pub fn read_metrics(&mut self, url: &str, tls: &TlsFiles) {
        let Ok(text) = client::http_get(url, Some(tls), "/metrics") else { return };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let name = name.split('{').next().unwrap_or(name);
            if let Some((known, _)) = EXPLAINING.iter().find(|(known, _)| *known == name) {
                *self.metrics.entry(known).or_default() += value.parse().unwrap_or(0.0);
            }
        }
    }

    /// What happened since `earlier`; memory is that of the later moment.
    pub fn since(&self, earlier: &Sample) -> Sample {
        let metrics = self.metrics.iter().map(|(name, value)| {
            (*name, value - earlier.metrics.get(name).copied().unwrap_or_default())
        });
        Sample {
            cpu_us: self.cpu_us - earlier.cpu_us,
            written_bytes: self.written_bytes - earlier.written_bytes,
            steal: self.steal - earlier.steal,
            metrics: metrics.collect(),
            ..self.clone()
        }
    }

    /// Resident and anonymous memory per process.
    pub fn memory_mib(&self, processes: u64) -> (u64, u64) {
        (self.rss_kib / processes / 1024, self.anonymous_kib / processes / 1024)
    }
}

fn read(process: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{process}/{file}")).expect("a running server's /proc")
}

fn labelled(text: &str, label: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(label)).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Fields 14 and 15 of `stat`, counted behind the name, in ticks of 10 ms.
fn cpu_us(process: u32) -> u64 {
    let stat = read(process, "stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("ticks");
    (ticks(11) + ticks(12)) * 10_000
}

fn steal() -> u64 {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let first = stat.lines().next().unwrap_or("");
    first.split_whitespace().nth(8).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Says on what this was measured.
pub fn print_machine() {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = info
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| line.split_once(": "))
        .map(|(_, model)| model)
        .collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = models.first().unwrap_or(&"unknown");
    println!("machine: {} x {model}, Linux {}", models.len(), kernel.trim());
}
