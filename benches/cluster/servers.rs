//! The two clusters, started alike: mutual TLS for clients and between servers, data on one disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conformance::client::{Client, field};
use conformance::cluster::TlsFiles;
use conformance::etcd_cluster::EtcdCluster;
use conformance::network::Network;
use conformance::peers;

use crate::measure::Sample;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// Three nodes of etcd.
    Etcd,
    /// Four replicas, one of which may lie.
    Althing,
}

impl System {
    /// The server's program.
    pub fn program(self) -> &'static str {
        match self {
            System::Etcd => "etcd",
            System::Althing => "althing",
        }
    }
}

/// Where a client connects, and with what.
pub type Address = (String, TlsFiles);

/// A running cluster.
pub struct Cluster {
    /// Whose.
    pub system: System,
    servers: Servers,
}

enum Servers {
    Etcd(EtcdCluster),
    Althing(Box<Network>),
}

impl Cluster {
    /// Starts a fresh one and waits until every server answers.
    pub fn start(system: System) -> Cluster {
        let servers = match system {
            System::Etcd => Servers::Etcd(EtcdCluster::start()),
            System::Althing => Servers::Althing(Box::new(Network::start(4))),
        };
        let cluster = Cluster { system, servers };
        cluster.wait_until_ready();
        cluster
    }

    /// A network of Althing whose replicas lie when told to.
    pub fn start_demo() -> Cluster {
        let servers = Servers::Althing(Box::new(Network::start_demo(4)));
        let cluster = Cluster { system: System::Althing, servers };
        cluster.wait_until_ready();
        cluster
    }

    /// The replicas themselves, for what etcd has no like of.
    pub fn network(&mut self) -> &mut Network {
        match &mut self.servers {
            Servers::Etcd(_) => unreachable!("asked of Althing only"),
            Servers::Althing(network) => network,
        }
    }

    /// Number of servers.
    pub fn size(&self) -> u64 {
        self.addresses().len() as u64
    }

    /// Which file is run, by how many processes.
    pub fn describe(&self) -> String {
        let program = peers::find(self.system.program()).expect("found before");
        format!("{} servers of {}", self.size(), program.display())
    }

    fn addresses(&self) -> Vec<Address> {
        match &self.servers {
            Servers::Etcd(etcd) => {
                (0..etcd.size()).map(|index| (etcd.endpoint(index), etcd.tls.clone())).collect()
            }
            Servers::Althing(network) => {
                network.replicas.iter().map(|r| (r.endpoint.clone(), r.tls())).collect()
            }
        }
    }

    /// How many servers.
    pub fn len(&self) -> usize {
        self.addresses().len()
    }

    /// Where server `index` answers.
    pub fn address(&self, index: usize) -> Address {
        self.addresses().swap_remove(index)
    }

    /// Who leads, as the first server says.
    pub fn leader(&self) -> usize {
        self.leader_seen_by(0)
    }

    /// Who leads, as server `at` says.
    pub fn leader_seen_by(&self, at: usize) -> usize {
        let addresses = self.addresses();
        let status = |index: usize| {
            let (url, tls) = &addresses[index];
            let within = Duration::from_secs(2);
            Client::new(url, Some(tls)).call_within("Maintenance/Status", "", within).ok()
        };
        let mut leader = None;
        peers::eventually("a leader is known", || {
            let Some(known) = status(at).map(|status| field(&status, "leader")) else {
                return false;
            };
            leader = (0..addresses.len()).find(|index| {
                status(*index).is_some_and(|status| field(&status, "header.member_id") == known)
            });
            leader.is_some()
        });
        leader.expect("just found")
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        match &mut self.servers {
            Servers::Etcd(etcd) => etcd.kill(index),
            Servers::Althing(network) => network.kill(index),
        }
    }

    /// Ends a server as its operator does.
    pub fn terminate(&mut self, index: usize) {
        match &mut self.servers {
            Servers::Etcd(etcd) => etcd.terminate(index),
            Servers::Althing(network) => network.terminate(index),
        }
    }

    /// Starts a stopped server; how long until it answers a linearizable read.
    pub fn time_to_serve(&mut self, index: usize) -> Duration {
        let (url, tls) = self.address(index);
        let started = Instant::now();
        match &mut self.servers {
            Servers::Etcd(etcd) => etcd.launch(index),
            Servers::Althing(network) => network.launch(index),
        }
        wait_until_it_answers(&url, &tls);
        started.elapsed()
    }

    /// Starts a killed server and waits until all answer and one leads.
    pub fn restart(&mut self, index: usize) {
        match &mut self.servers {
            Servers::Etcd(etcd) => etcd.launch(index),
            Servers::Althing(network) => network.launch(index),
        }
        self.wait_until_ready();
        // Whoever came back takes part again.
        std::thread::sleep(Duration::from_secs(2));
    }

    /// All servers, or the leader alone.
    pub fn endpoints(&self, all: bool) -> Vec<Address> {
        let addresses = self.addresses();
        if all {
            return addresses;
        }
        let statuses: Vec<_> = addresses
            .iter()
            .map(|(url, tls)| {
                let status = Client::new(url, Some(tls)).call("Maintenance/Status", "");
                status.unwrap_or_else(|failure| panic!("status of {url}: {failure:?}"))
            })
            .collect();
        let leader = field(&statuses[0], "leader");
        let leads = |index: &usize| field(&statuses[*index], "header.member_id") == leader;
        let index = (0..addresses.len()).find(leads).expect("the leader is a member");
        vec![addresses[index].clone()]
    }

    fn wait_until_ready(&self) {
        for (url, tls) in self.addresses() {
            wait_until_it_answers(&url, &tls);
        }
    }

    /// Process ids, in the order of the servers.
    pub fn processes(&self) -> Vec<u32> {
        match &self.servers {
            Servers::Etcd(etcd) => etcd.process_ids(),
            Servers::Althing(network) => network.process_ids(),
        }
    }

    /// CPU, memory, bytes written, all processes together.
    pub fn sample(&self) -> Sample {
        let mut sample = Sample::of(&self.processes());
        for (url, tls) in self.addresses() {
            sample.read_metrics(&url, &tls);
        }
        sample
    }

    /// Bytes in all data directories.
    pub fn disk_bytes(&self) -> u64 {
        let directories: Vec<PathBuf> = match &self.servers {
            Servers::Etcd(etcd) => vec![etcd.directory().to_owned()],
            Servers::Althing(network) => network.data_directories(),
        };
        directories.iter().map(|directory| size_of(directory)).sum()
    }

    /// Ends every server in order.
    pub fn stop(&mut self) {
        match &mut self.servers {
            Servers::Etcd(etcd) => etcd.stop(),
            Servers::Althing(network) => network.stop(),
        }
    }

    /// Starts every server on its disk and waits until all serve.
    pub fn start_again(&mut self) {
        match &mut self.servers {
            Servers::Etcd(etcd) => (0..etcd.size()).for_each(|index| etcd.launch(index)),
            Servers::Althing(network) => {
                for index in 0..network.replicas.len() {
                    network.launch(index);
                }
            }
        }
        self.wait_until_ready();
    }
}

fn wait_until_it_answers(url: &str, tls: &TlsFiles) {
    peers::eventually(&format!("{url} answers"), || {
        let client = Client::new(url, Some(tls));
        client.call_within("KV/Range", "key:'r'", Duration::from_secs(5)).is_ok()
    });
}

fn size_of(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a data directory");
    let sizes = entries.map(|entry| {
        let entry = entry.expect("a directory entry");
        let metadata = entry.metadata().expect("a file's size");
        if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() }
    });
    sizes.sum()
}
