//! Three nodes of a real etcd with mutual TLS everywhere: the oracle where one node is not enough.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::{LOOPBACK, authority, holder};
use crate::client::{Client, field};
use crate::cluster::TlsFiles;
use crate::peers::{self, Process};

/// A cluster of child processes.
pub struct EtcdCluster {
    home: TempDir,
    /// What clients present, and what nodes present to each other.
    pub tls: TlsFiles,
    nodes: Vec<Node>,
}

struct Node {
    client_port: u16,
    peer_port: u16,
    process: Option<Process>,
}

impl EtcdCluster {
    /// Starts three nodes and waits until all answer.
    pub fn start() -> EtcdCluster {
        let home = tempfile::tempdir().expect("a temporary directory");
        let tls = write_certificates(home.path());
        let node = |_| Node {
            client_port: peers::free_port(),
            peer_port: peers::free_port(),
            process: None,
        };
        let mut cluster = EtcdCluster { home, tls, nodes: (0..3).map(node).collect() };
        (0..3).for_each(|index| cluster.launch(index));
        (0..3).for_each(|index| cluster.wait_until_ready(index));
        cluster
    }

    /// Waits for a linearizable read through a node.
    pub fn wait_until_ready(&self, index: usize) {
        let client = Client::new(&self.endpoint(index), Some(&self.tls));
        peers::eventually(&format!("node{index} answers"), || {
            client.call_within("KV/Range", "key:'ready'", Duration::from_secs(3)).is_ok()
        });
    }

    /// Number of nodes.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The client URL of a node.
    pub fn endpoint(&self, index: usize) -> String {
        format!("https://127.0.0.1:{}", self.nodes[index].client_port)
    }

    /// The node that leads, asked at node `at`.
    pub fn leader(&self, at: usize) -> usize {
        let status = |index: usize| {
            let client = Client::new(&self.endpoint(index), Some(&self.tls));
            client.call("Maintenance/Status", "").expect("a status")
        };
        let leader = field(&status(at), "leader");
        let leads = |index: &usize| field(&status(*index), "header.member_id") == leader;
        (0..self.size()).find(leads).expect("the leader is a node")
    }

    /// Starts a node, which must not run, on what its disk holds.
    pub fn launch(&mut self, index: usize) {
        let peer = |node: &Node| format!("https://127.0.0.1:{}", node.peer_port);
        let named = |(number, node)| format!("node{number}={}", peer(node));
        let all: Vec<String> = self.nodes.iter().enumerate().map(named).collect();
        let (client, own) = (self.endpoint(index), peer(&self.nodes[index]));
        let data = self.home.path().join(format!("data{index}"));
        let mut flags = vec![
            format!("--name=node{index}"),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={own}"),
            format!("--initial-advertise-peer-urls={own}"),
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
        let mut command = peers::command("etcd");
        command.args(flags);
        let log = self.home.path().join(format!("log{index}"));
        self.nodes[index].process = Some(Process::start("etcd", command, &log));
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].process.take().expect("a running node").kill();
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self, index: usize) {
        drop(self.nodes[index].process.take().expect("a running node"));
    }

    /// SIGTERM to all, and waits for their end.
    pub fn stop(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.process = None);
    }

    /// Process ids of those that run.
    pub fn process_ids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| Some(node.process.as_ref()?.id())).collect()
    }

    /// Where all data lies.
    pub fn directory(&self) -> &Path {
        self.home.path()
    }
}

/// One CA and one certificate that serves, dials and peers.
fn write_certificates(home: &Path) -> TlsFiles {
    let authority = authority("etcd-ca");
    let files = TlsFiles {
        ca: home.join("ca.crt"),
        certificate: home.join("node.crt"),
        key: home.join("node.key"),
    };
    std::fs::write(&files.ca, &authority.certificate).expect("a file");
    authority.issue(&holder("node", LOOPBACK)).write(&files.certificate, &files.key);
    files
}
