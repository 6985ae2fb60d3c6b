//! Servers under test: a real etcd, an Althing started by etcd's flags, or any endpoint given.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use prost_reflect::DynamicMessage;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::client::{Client, Failure};
use crate::peers::{self, Process};

/// The three files a TLS client presents.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Who signed the server's certificate.
    pub ca: PathBuf,
    /// The client's own certificate.
    pub certificate: PathBuf,
    /// The client's own private key.
    pub key: PathBuf,
}

/// One server that clients reach under one URL.
pub struct Target {
    /// `etcd` or `althing`, for messages.
    pub name: String,
    /// The client URL.
    pub endpoint: String,
    /// Set when the URL is https.
    pub tls: Option<TlsFiles>,
    /// The program, the flags it got, what it wrote; absent for a server somebody else runs.
    server: Option<Server>,
}

struct Server {
    program: String,
    flags: Vec<String>,
    process: Process,
    home: TempDir,
}

impl Target {
    /// A single etcd 3.7.3, the oracle, with `extra` flags.
    pub fn etcd(extra: &[&str]) -> Target {
        Target::single("etcd", extra)
    }

    /// A single Althing with the very flags an etcd would get.
    pub fn althing(extra: &[&str]) -> Target {
        Target::single("althing", extra)
    }

    /// A server that somebody else runs.
    pub fn given(name: &str, endpoint: &str, tls: Option<TlsFiles>) -> Target {
        Target { name: name.into(), endpoint: endpoint.into(), tls, server: None }
    }

    fn single(program: &str, extra: &[&str]) -> Target {
        let home = tempfile::tempdir().expect("a temporary directory");
        let client = format!("http://127.0.0.1:{}", peers::free_port());
        let peer = format!("http://127.0.0.1:{}", peers::free_port());
        let data = home.path().join("data").display().to_string();
        let mut flags: Vec<String> = [
            ("--name", "single"),
            ("--data-dir", &data),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &format!("single={peer}")),
        ]
        .iter()
        .map(|(flag, value)| format!("{flag}={value}"))
        .collect();
        flags.extend(extra.iter().map(|flag| (*flag).to_owned()));
        let process = launch(program, &flags, home.path());
        let server = Server { program: program.into(), flags, process, home };
        let mut target =
            Target { name: program.into(), endpoint: client, tls: None, server: Some(server) };
        target.wait_until_ready();
        target
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::new(&self.endpoint, self.tls.as_ref())
    }

    /// Waits until a linearizable read succeeds; panics with the last output when the server ends.
    pub fn wait_until_ready(&mut self) {
        let endpoint = self.endpoint.clone();
        let tls = self.tls.clone();
        peers::eventually(&format!("{} answers", self.name), || {
            if let Some(server) = &mut self.server
                && let Some(status) = server.process.exited()
            {
                panic!("{} ended with {status}:\n{}", self.name, server.process.last_output());
            }
            let client = Client::new(&endpoint, tls.as_ref());
            client.call_within("KV/Range", "key: 'ready'", Duration::from_secs(2)).is_ok()
        });
    }

    /// `kill -9`, then the same command on the same directory.
    pub fn kill_and_restart(&mut self) {
        let server = self.server.as_mut().expect("a server this test started");
        server.process.kill();
        server.process = launch(&server.program, &server.flags, server.home.path());
        self.wait_until_ready();
    }

    /// The process, for signals and output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.server.as_mut().expect("a server this test started").process
    }

    /// A call on a fresh connection, in protobuf text.
    pub fn call(&self, method: &str, request: &str) -> Result<DynamicMessage, Failure> {
        self.client().call(method, request)
    }

    /// An etcdctl for this target.
    pub fn etcdctl(&self) -> Command {
        let mut command = peers::command("etcdctl");
        command.arg(format!("--endpoints={}", self.endpoint));
        if let Some(tls) = &self.tls {
            command.arg(format!("--cacert={}", tls.ca.display()));
            command.arg(format!("--cert={}", tls.certificate.display()));
            command.arg(format!("--key={}", tls.key.display()));
        }
        command
    }

    /// What `etcdctl -w json ARGUMENTS` prints, as JSON; its error text otherwise.
    pub fn etcdctl_json(&self, arguments: &[&str]) -> Result<Json, String> {
        let output = self.etcdctl().args(["-w", "json"]).args(arguments).output();
        let output = output.expect("etcdctl runs");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("not JSON ({e}): {text}")))
    }
}

fn launch(program: &str, flags: &[String], home: &Path) -> Process {
    let mut command = peers::command(program);
    command.args(flags).current_dir(home);
    Process::start(program, command, &home.join("output"))
}
