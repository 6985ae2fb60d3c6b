//! Medians, quartiles, ratios.

use std::collections::BTreeMap;
use std::fmt;

use crate::measure::{EXPLAINING, Sample};
use crate::servers::System;

/// One measurement.
pub struct Cell {
    rate: f64,
    cpu_us: f64,
    p50_us: u32,
    p99_us: u32,
    p999_us: u32,
    written: f64,
    steal_percent: f64,
    /// Per operation, in the order of [`EXPLAINING`].
    explained: [f64; EXPLAINING.len()],
}

impl Cell {
    /// From the latencies of all operations and what the servers used meanwhile.
    pub fn new(mut latencies: Vec<u32>, seconds: u64, used: &Sample) -> Cell {
        latencies.sort_unstable();
        assert!(!latencies.is_empty(), "nothing was measured");
        let at = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1000];
        let count = latencies.len() as f64;
        Cell {
            rate: count / seconds as f64,
            cpu_us: used.cpu_us as f64 / count,
            p50_us: at(500),
            p99_us: at(990),
            p999_us: at(999),
            written: used.written_bytes as f64 / count,
            steal_percent: used.steal as f64 / (seconds as f64 * 2.0),
            explained: EXPLAINING
                .map(|(name, _)| used.metrics.get(name).copied().unwrap_or_default() / count),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s, {:.0} us CPU", self.rate, self.cpu_us)?;
        write!(f, ", p50 {} p99 {} p99.9 {} us", self.p50_us, self.p99_us, self.p999_us)?;
        write!(f, ", {:.0} B written, steal {:.1} %", self.written, self.steal_percent)
    }
}

/// All measurements, by workload in the order of their first.
#[derive(Default)]
pub struct Table {
    order: Vec<&'static str>,
    cells: BTreeMap<(&'static str, System), Vec<Cell>>,
}

impl Table {
    /// Keeps a measurement.
    pub fn add(&mut self, workload: &'static str, system: System, cell: Cell) {
        if !self.order.contains(&workload) {
            self.order.push(workload);
        }
        self.cells.entry((workload, system)).or_default().push(cell);
    }

    /// Prints the table in Markdown: a row per workload and system, the ratio below the second.
    pub fn print(&self) {
        println!(
            "\n| workload | system | op/s, median (quartiles) | us CPU per op, all servers \
             | p50, p99, p99.9 us | B written per op | per op |"
        );
        println!("|---|---|---|---|---|---|---|");
        for workload in &self.order {
            for system in [System::Etcd, System::Althing] {
                if let Some(cells) = self.cells.get(&(*workload, system)) {
                    print_row(workload, system, cells);
                }
            }
            let both = [System::Etcd, System::Althing].map(|s| self.cells.get(&(*workload, s)));
            if let [Some(etcd), Some(althing)] = both {
                let rate = median(althing, |c| c.rate) / median(etcd, |c| c.rate);
                let cpu = median(etcd, |c| c.cpu_us) / median(althing, |c| c.cpu_us);
                println!("| | **ratio** | **{rate:.2}x** | **{cpu:.2}x less** | | | |");
            }
        }
    }
}

fn print_row(workload: &str, system: System, cells: &[Cell]) {
    let explained: Vec<String> = EXPLAINING
        .iter()
        .enumerate()
        .map(|(index, (_, name))| (median(cells, |c| c.explained[index]), name))
        .filter(|(value, _)| *value > 0.0)
        .map(|(value, name)| format!("{value:.3} {name}"))
        .collect();
    println!(
        "| {workload} | {} | {:.0} ({:.0}-{:.0}) | {:.0} | {:.0}, {:.0}, {:.0} | {:.0} | {} |",
        system.program(),
        median(cells, |c| c.rate),
        quantile(cells, 0.25, |c| c.rate),
        quantile(cells, 0.75, |c| c.rate),
        median(cells, |c| c.cpu_us),
        median(cells, |c| f64::from(c.p50_us)),
        median(cells, |c| f64::from(c.p99_us)),
        median(cells, |c| f64::from(c.p999_us)),
        median(cells, |c| c.written),
        explained.join(", ")
    );
}

fn median(cells: &[Cell], value: impl Fn(&Cell) -> f64) -> f64 {
    quantile(cells, 0.5, value)
}

/// Nearest rank.
fn quantile(cells: &[Cell], q: f64, value: impl Fn(&Cell) -> f64) -> f64 {
    let mut values: Vec<f64> = cells.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}
