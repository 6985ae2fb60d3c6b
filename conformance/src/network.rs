//! Several Althing replicas, one organisation each, made by the ceremony an operator would follow:
//! every home is filled by its own `org init`, only public files and signatures meet.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use althing::config::{PublicFile, assemble};
use althing::types::Millis;
use prost_reflect::DynamicMessage;
use rustix::process::Signal;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::client::{Client, Failure, http, http_get, number};
use crate::cluster::TlsFiles;
use crate::peers::{self, Process};
use crate::proxy::Links;

/// Organisations in the order of their replicas.
pub const ORGANISATIONS: [&str; 7] = ["acme", "birch", "cedar", "delta", "elm", "fir", "gorse"];

/// A network of replicas as child processes.
pub struct Network {
    directory: TempDir,
    /// By number, as in [`ORGANISATIONS`].
    pub replicas: Vec<Replica>,
    links: Option<Links>,
}

/// One organisation's replica.
pub struct Replica {
    /// The organisation.
    pub name: &'static str,
    /// Its client URL.
    pub endpoint: String,
    /// Where other replicas reach it.
    pub peer_address: String,
    /// Where it listens for them, if something stands between.
    listens: Option<String>,
    home: PathBuf,
    process: Option<Process>,
}

/// Runs `althing` to its end and wants success; what it printed on stdout.
pub fn althing(arguments: &[&str]) -> String {
    let output = peers::command("althing").args(arguments).output().expect("althing runs");
    assert!(
        output.status.success(),
        "althing {}: {}\n{}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a network begins with.
enum Founding<'a> {
    Empty,
    Demo,
    On(&'a Path),
}

impl Network {
    /// Performs the ceremony for `count` organisations and starts all replicas.
    pub fn start(count: usize) -> Network {
        Self::begin(count, &Founding::Empty, None)
    }

    /// The same with what a snapshot of etcd holds as the first state.
    pub fn start_from(count: usize, snapshot: &Path) -> Network {
        Self::begin(count, &Founding::On(snapshot), None)
    }

    /// The same, as `althing demo` does: replicas lie when told to ([`Replica::lie`]).
    pub fn start_demo(count: usize) -> Network {
        Self::begin(count, &Founding::Demo, None)
    }

    /// The same with a proxy in front of every replica: see [`Network::links`].
    pub fn start_behind_proxies(count: usize) -> Network {
        Self::begin(count, &Founding::Empty, Some(Links::open(count)))
    }

    fn begin(count: usize, founding: &Founding<'_>, links: Option<Links>) -> Network {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let replicas = ORGANISATIONS[..count].iter().enumerate().map(|(at, name)| {
            let (peer, listens) = links.as_ref().map(|links| links.addresses(at)).unzip();
            Replica::init(name, directory.path(), peer, listens)
        });
        let replicas = replicas.collect();
        let mut network = Network { directory, replicas, links };
        network.found(founding);
        for index in 0..count {
            network.launch(index);
        }
        for index in 0..count {
            network.wait_until_ready(index);
        }
        network
    }

    /// The links between the replicas, where proxies stand in them.
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("a network behind proxies")
    }

    /// The genesis, assembled from public files, signed in each home, sealed.
    fn found(&self, founding: &Founding<'_>) {
        let path = |file: &str| self.directory.path().join(file).display().to_string();
        let genesis = path("genesis.json");
        let publics: Vec<String> = self.replicas.iter().map(Replica::public_file).collect();
        let publics: Vec<&str> = publics.iter().map(String::as_str).collect();
        let assemble = [&["genesis", "assemble"], &publics[..], &["-o", &genesis]].concat();
        match founding {
            Founding::Empty => drop(althing(&assemble)),
            Founding::Demo => assemble_demo(&publics, &genesis),
            Founding::On(snapshot) => {
                for replica in &self.replicas {
                    std::fs::copy(snapshot, replica.home.join("initial.db")).expect("a copy");
                }
                let snapshot = snapshot.display().to_string();
                althing(&[&assemble[..], &["--from-snapshot", &snapshot]].concat());
            }
        }
        let mut signatures = Vec::new();
        for replica in &self.replicas {
            let signature = path(&format!("{}.sig", replica.name));
            let home = replica.home.display().to_string();
            althing(&["genesis", "sign", &genesis, "--home", &home, "-o", &signature]);
            signatures.push(signature);
        }
        let signatures: Vec<&str> = signatures.iter().map(String::as_str).collect();
        althing(&[&["genesis", "seal", &genesis], &signatures[..]].concat());
    }

    /// Gives the next organisation a home; it is no member yet.
    pub fn invite(&mut self) {
        let name = ORGANISATIONS[self.replicas.len()];
        self.replicas.push(Replica::init(name, self.directory.path(), None, None));
    }

    /// Gives a second replica of organisation `of` a home; it is no member yet. Its certificates are
    /// signed by the first one's authority, so the same clients reach both.
    pub fn invite_second(&mut self, name: &'static str, of: usize) {
        let authority = self.replicas[of].home.display().to_string();
        let more = ["--authority", &authority];
        let replica = Replica::init_with(name, self.directory.path(), (None, None), &more);
        self.replicas.push(replica);
    }

    /// Starts replica `index`, which must not run, on what its disk holds.
    pub fn launch(&mut self, index: usize) {
        self.launch_by(index, peers::command("althing"));
    }

    /// The same by a command of the caller's: another build, or one that starts the program under
    /// something else. The arguments of `althing` are added to it.
    pub fn launch_by(&mut self, index: usize, mut command: Command) {
        let genesis = self.directory.path().join("genesis.json");
        let replica = &mut self.replicas[index];
        assert!(replica.process.is_none(), "{} runs already", replica.name);
        command.arg("serve").arg("--genesis").arg(&genesis);
        command.arg("--home").arg(&replica.home);
        command.arg("--data-dir").arg(replica.home.join("data"));
        if let Some(listens) = &replica.listens {
            command.arg(format!("--listen-peer-urls=https://{listens}"));
        }
        command.current_dir(&replica.home);
        let process = Process::start(replica.name, command, &replica.home.join("output"));
        if let Some(links) = &self.links {
            links.belongs(index, process.id());
        }
        replica.process = Some(process);
    }

    /// Where the genesis and all homes are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Process ids of those that run.
    pub fn process_ids(&self) -> Vec<u32> {
        self.replicas.iter().filter_map(|replica| Some(replica.process.as_ref()?.id())).collect()
    }

    /// Every data directory.
    pub fn data_directories(&self) -> Vec<PathBuf> {
        self.replicas.iter().map(|replica| replica.home.join("data")).collect()
    }

    /// SIGTERM to all, and waits for their end.
    pub fn stop(&mut self) {
        for replica in &mut self.replicas {
            replica.process = None;
        }
    }

    /// Ends a replica by SIGTERM, as an operator does.
    pub fn terminate(&mut self, index: usize) {
        let process = self.replicas[index].process.take();
        let status = process.expect("it runs").terminate(Duration::from_secs(20));
        assert!(status.is_some_and(|status| status.success()), "SIGTERM: {status:?}");
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        let mut process = self.replicas[index].process.take().expect("a running replica");
        process.kill();
    }

    /// Sends a signal to replica `index`, which runs.
    pub fn signal(&mut self, index: usize, signal: Signal) {
        self.replicas[index].process.as_mut().expect("a running replica").signal(signal);
    }

    /// Whether replica `index` has ended by itself.
    pub fn has_ended(&mut self, index: usize) -> bool {
        let process = self.replicas[index].process.as_mut();
        process.expect("it was started").exited().is_some()
    }

    /// Waits until replica `index` has ended by itself; how.
    pub fn wait_for_end(&mut self, index: usize) -> ExitStatus {
        let replica = &mut self.replicas[index];
        let process = replica.process.as_mut().expect("a running replica");
        let mut status = None;
        peers::eventually(&format!("{} ends", replica.name), || {
            status = process.exited();
            status.is_some()
        });
        replica.process = None;
        status.expect("it has ended")
    }

    /// The process of replica `index`, which runs.
    pub fn process_id(&self, index: usize) -> u32 {
        self.replicas[index].process.as_ref().expect("a running replica").id()
    }

    /// Starts replica `index` again and waits until it answers a linearizable read.
    pub fn restart(&mut self, index: usize) {
        self.launch(index);
        self.wait_until_ready(index);
    }

    /// Waits for a linearizable read through replica `index`.
    pub fn wait_until_ready(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        peers::eventually(&format!("{} answers", replica.name), || {
            let process = replica.process.as_mut().expect("a running replica");
            if let Some(status) = process.exited() {
                panic!("{} ended with {status}:\n{}", replica.name, process.last_output());
            }
            let patience = Duration::from_secs(3);
            replica.client().call_within("KV/Range", "key: 'ready'", patience).is_ok()
        });
    }

    /// [`Network::primary`], once there is one: a view that has just begun is known when a quorum says so.
    ///
    /// # Panics
    /// There is none for a minute.
    pub fn known_primary(&self, at: usize) -> usize {
        let mut found = None;
        peers::eventually("a primary is known", || {
            found = self.primary(at);
            found.is_some()
        });
        found.expect("it was waited for")
    }

    /// The number of the replica that `Status.leader` names, asked at replica `at`.
    pub fn primary(&self, at: usize) -> Option<usize> {
        let status = self.replicas[at].status().ok()?;
        let leader = member_number(&status, "leader");
        let alive = self.replicas.iter().enumerate().filter(|(_, r)| r.process.is_some());
        let mut ids = alive.filter_map(|(i, r)| Some((i, r.status().ok()?)));
        ids.find(|(_, s)| member_number(s, "header.member_id") == leader).map(|(index, _)| index)
    }
}

/// What the ceremony never makes: a genesis of a demo.
fn assemble_demo(publics: &[&str], genesis: &str) {
    let read = |path: &&str| PublicFile::read(Path::new(path)).expect("a public file");
    let files = publics.iter().map(read).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let created = Millis(u64::try_from(now).expect("this millennium"));
    let file = assemble(files, [7; 32], created, true).expect("a genesis");
    std::fs::write(genesis, file.to_json()).expect("the genesis");
}

impl Drop for Network {
    /// A failed test shows what each replica said last.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for replica in &self.replicas {
                let output = replica.output();
                let lines: Vec<&str> = output.lines().collect();
                let last = lines[lines.len().saturating_sub(15)..].join("\n");
                let state = if replica.runs() { "runs" } else { "does not run" };
                eprintln!("-- {} {state}; its last output:\n{last}", replica.name);
            }
        }
    }
}

/// A member id is an unsigned 64-bit number; compared as text.
fn member_number(message: &DynamicMessage, path: &str) -> String {
    format!("{:?}", crate::client::field(message, path))
}

impl Replica {
    fn init(
        name: &'static str,
        directory: &Path,
        peer: Option<String>,
        listens: Option<String>,
    ) -> Replica {
        Replica::init_with(name, directory, (peer, listens), &[])
    }

    fn init_with(
        name: &'static str,
        directory: &Path,
        (peer, listens): (Option<String>, Option<String>),
        more: &[&str],
    ) -> Replica {
        let home = directory.join(name);
        let endpoint = format!("https://127.0.0.1:{}", peers::free_port());
        let peer = peer.unwrap_or_else(|| format!("127.0.0.1:{}", peers::free_port()));
        let path = home.display().to_string();
        let fixed = ["org", "init", "--name", name, "--home", &path, "--client-url", &endpoint];
        althing(&[&fixed[..], &["--peer-addr", &peer], more].concat());
        Replica { name, endpoint, peer_address: peer, listens, home, process: None }
    }

    fn public_file(&self) -> String {
        self.home.join(format!("{}.public.json", self.name)).display().to_string()
    }

    /// Its directory: keys, certificates, data.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What a client of this organisation presents.
    pub fn tls(&self) -> TlsFiles {
        TlsFiles {
            ca: self.home.join("ca.crt"),
            certificate: self.home.join("client.crt"),
            key: self.home.join("client.key"),
        }
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::new(&self.endpoint, Some(&self.tls()))
    }

    /// Whether it was started and not killed since.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(self.home.join("output")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// For ten seconds it tells every second peer something else; only in a demo.
    pub fn lie(&self) {
        let answer = http(&self.endpoint, Some(&self.tls()), "POST", "/althing/v1/demo/lie");
        let status = answer.map(|answer| answer.status);
        assert!(matches!(status, Ok(200)), "{} was told to lie: {status:?}", self.name);
    }

    /// `Maintenance.Status`.
    pub fn status(&self) -> Result<DynamicMessage, Failure> {
        self.client().call_within("Maintenance/Status", "", Duration::from_secs(5))
    }

    /// What the replica says about itself at `/althing/v1/status`.
    pub fn own_status(&self) -> std::io::Result<Json> {
        let text = http_get(&self.endpoint, Some(&self.tls()), "/althing/v1/status")?;
        serde_json::from_str(&text).map_err(std::io::Error::other)
    }

    /// The revision up to which it has executed, by a serializable read.
    pub fn revision(&self) -> Result<i64, Failure> {
        let patience = Duration::from_secs(5);
        let reply = self.client().call_within("KV/Range", "key:'r' serializable:true", patience)?;
        Ok(number(&reply, "header.revision"))
    }
}
