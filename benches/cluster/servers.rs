//! The two clusters, started alike: mutual TLS for clients and between servers, data on one disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conformance::client::{Client, field};
use conformance::cluster::TlsFiles;
use conformance::network::Network;
use conformance::peers::{self, Process};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

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
    Etcd(Etcd),
    Althing(Box<Network>),
}

struct Etcd {
    home: TempDir,
    tls: TlsFiles,
    ports: Vec<(u16, u16)>,
    processes: Vec<Process>,
}

impl Cluster {
    /// Starts a fresh one and waits until every server answers.
    pub fn start(system: System) -> Cluster {
        let servers = match system {
            System::Etcd => Servers::Etcd(Etcd::start()),
            System::Althing => Servers::Althing(Box::new(Network::start(4))),
        };
        let cluster = Cluster { system, servers };
        cluster.wait_until_ready();
        cluster
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
                let url = |ports: &(u16, u16)| format!("https://127.0.0.1:{}", ports.0);
                etcd.ports.iter().map(|ports| (url(ports), etcd.tls.clone())).collect()
            }
            Servers::Althing(network) => {
                network.replicas.iter().map(|r| (r.endpoint.clone(), r.tls())).collect()
            }
        }
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
            peers::eventually(&format!("{url} answers"), Duration::from_secs(300), || {
                let client = Client::new(&url, Some(&tls));
                client.call_within("KV/Range", "key:'r'", Duration::from_secs(5)).is_ok()
            });
        }
    }

    fn processes(&self) -> Vec<u32> {
        match &self.servers {
            Servers::Etcd(etcd) => etcd.processes.iter().map(Process::id).collect(),
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
            Servers::Etcd(etcd) => vec![etcd.home.path().to_owned()],
            Servers::Althing(network) => network.data_directories(),
        };
        directories.iter().map(|directory| size_of(directory)).sum()
    }

    /// Ends every server in order.
    pub fn stop(&mut self) {
        match &mut self.servers {
            Servers::Etcd(etcd) => etcd.processes.clear(),
            Servers::Althing(network) => network.stop(),
        }
    }

    /// Starts every server on its disk and waits until all serve.
    pub fn start_again(&mut self) {
        match &mut self.servers {
            Servers::Etcd(etcd) => etcd.launch(),
            Servers::Althing(network) => {
                for index in 0..network.replicas.len() {
                    network.launch(index);
                }
            }
        }
        self.wait_until_ready();
    }
}

impl Etcd {
    fn start() -> Etcd {
        let home = tempfile::tempdir().expect("a temporary directory");
        let tls = write_certificates(home.path());
        let ports = (0..3).map(|_| (peers::free_port(), peers::free_port())).collect();
        let mut etcd = Etcd { home, tls, ports, processes: Vec::new() };
        etcd.launch();
        etcd
    }

    fn launch(&mut self) {
        let peer = |index: usize| format!("https://127.0.0.1:{}", self.ports[index].1);
        let all: Vec<String> = (0..3).map(|index| format!("node{index}={}", peer(index))).collect();
        for index in 0..3 {
            let client = format!("https://127.0.0.1:{}", self.ports[index].0);
            let mut command = peers::command("etcd");
            let data = self.home.path().join(format!("data{index}"));
            let mut flags = vec![
                format!("--name=node{index}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={}", peer(index)),
                format!("--initial-advertise-peer-urls={}", peer(index)),
                format!("--initial-cluster={}", all.join(",")),
                "--client-cert-auth=true".into(),
                "--peer-client-cert-auth=true".into(),
                "--log-level=error".into(),
            ];
            for prefix in ["", "peer-"] {
                flags.push(format!("--{prefix}trusted-ca-file={}", self.tls.ca.display()));
                flags.push(format!("--{prefix}cert-file={}", self.tls.certificate.display()));
                flags.push(format!("--{prefix}key-file={}", self.tls.key.display()));
            }
            command.args(flags);
            let log = self.home.path().join(format!("log{index}"));
            self.processes.push(Process::start("etcd", command, &log));
        }
    }
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

/// One CA and one certificate that serves, dials and peers.
fn write_certificates(home: &Path) -> TlsFiles {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "bench-ca");
    let ca_certificate = ca.self_signed(&ca_key).expect("a CA certificate");
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let mut node = CertificateParams::new(names).expect("names");
    node.distinguished_name.push(DnType::CommonName, "node");
    let certificate = node.signed_by(&key, &issuer).expect("a certificate");
    let files = TlsFiles {
        ca: home.join("ca.crt"),
        certificate: home.join("node.crt"),
        key: home.join("node.key"),
    };
    std::fs::write(&files.ca, ca_certificate.pem()).expect("a file");
    std::fs::write(&files.certificate, certificate.pem()).expect("a file");
    std::fs::write(&files.key, key.serialize_pem()).expect("a file");
    files
}
