//! A network of one owner as child processes: members started by etcd's flags alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::peers::{self, Process, eventually};
use crate::proxy::Links;

/// Members that found, or have founded, a network.
pub struct Founded {
    home: TempDir,
    /// By place; a name is `m0`, `m1`, ...
    pub members: Vec<Founder>,
    links: Option<Links>,
    program: &'static str,
    /// Flags of all members, and whether their peer URLs are https.
    flags: Vec<String>,
    secure: bool,
}

/// One member.
pub struct Founder {
    /// `--name`.
    pub name: String,
    /// Its client URL.
    pub client_url: String,
    /// Where others dial it.
    pub peer_url: String,
    /// Where it listens for them.
    listens: String,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Founder {
    /// Whether its process is there.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// All that its processes printed.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Founded {
    /// Places for `count` members; nothing is started.
    pub fn places(count: usize) -> Founded {
        Self::with(count, None)
    }

    /// The same with a proxy in front of each peer listener.
    pub fn behind_proxies(count: usize) -> Founded {
        Self::with(count, Some(Links::open(count)))
    }

    fn with(count: usize, links: Option<Links>) -> Founded {
        let home = tempfile::tempdir().expect("a temporary directory");
        let (members, flags) = (Vec::new(), Vec::new());
        let mut founded =
            Founded { home, members, links, program: "althing", flags, secure: false };
        for at in 0..count {
            let address = || format!("127.0.0.1:{}", peers::free_port());
            let (dialled, listens) = match &founded.links {
                Some(links) => links.addresses(at),
                None => {
                    let both = address();
                    (both.clone(), both)
                }
            };
            let member = founded.place(at, &address(), (&dialled, &listens));
            founded.members.push(member);
        }
        founded
    }

    /// The same for another program with etcd's flags.
    pub fn of(program: &'static str, count: usize) -> Founded {
        Founded { program, ..Self::places(count) }
    }

    /// Has all peer URLs be https, with these flags at every member.
    pub fn secure(mut self, flags: Vec<String>) -> Founded {
        for member in &mut self.members {
            for url in [&mut member.peer_url, &mut member.listens] {
                *url = url.replacen("http://", "https://", 1);
            }
        }
        Founded { flags, secure: true, ..self }
    }

    fn place(&self, at: usize, client: &str, (dialled, listens): (&str, &str)) -> Founder {
        let scheme = if self.secure { "https" } else { "http" };
        Founder {
            name: format!("m{at}"),
            client_url: format!("http://{client}"),
            peer_url: format!("{scheme}://{dialled}"),
            listens: format!("{scheme}://{listens}"),
            data: self.home.path().join(format!("data{at}")),
            log: self.home.path().join(format!("log{at}")),
            process: None,
        }
    }

    /// Starts `count` members and waits until all answer.
    pub fn start(count: usize) -> Founded {
        let mut founded = Self::places(count);
        founded.launch_all();
        founded
    }

    /// Starts those that do not run, and waits until all answer.
    pub fn launch_all(&mut self) {
        let places = 0..self.members.len();
        let missing: Vec<usize> = places.filter(|at| !self.members[*at].runs()).collect();
        missing.iter().for_each(|at| self.launch(*at, &[]));
        (0..self.members.len()).for_each(|at| self.wait_until_ready(at));
    }

    /// A place for one more member; nothing is started.
    pub fn add_place(&mut self) -> usize {
        let at = self.members.len();
        let (client, peer) = (peers::free_port(), peers::free_port());
        let peer = format!("127.0.0.1:{peer}");
        let member = self.place(at, &format!("127.0.0.1:{client}"), (&peer, &peer));
        self.members.push(member);
        at
    }

    /// `--initial-cluster` of all places.
    pub fn initial_cluster(&self) -> String {
        let part = |member: &Founder| format!("{}={}", member.name, member.peer_url);
        self.members.iter().map(part).collect::<Vec<_>>().join(",")
    }

    /// Starts a member, which must not run, with etcd's flags and `extra` ones.
    pub fn launch(&mut self, at: usize, extra: &[&str]) {
        let cluster = self.initial_cluster();
        let member = &mut self.members[at];
        assert!(!member.runs(), "{} runs already", member.name);
        let mut command = peers::command(self.program);
        command
            .args(&self.flags)
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", member.data.display()))
            .arg(format!("--listen-client-urls={}", member.client_url))
            .arg(format!("--advertise-client-urls={}", member.client_url))
            .arg(format!("--listen-peer-urls={}", member.listens))
            .arg(format!("--initial-advertise-peer-urls={}", member.peer_url))
            .arg(format!("--initial-cluster={cluster}"))
            .arg("--initial-cluster-state=new")
            .arg("--initial-cluster-token=test")
            .args(extra);
        let process = Process::start(&member.name, command, &member.log);
        if let Some(links) = &self.links {
            links.belongs(at, process.id());
        }
        member.process = Some(process);
    }

    /// Waits for the line that etcd's tests wait for, and for a linearizable read.
    pub fn wait_until_ready(&mut self, at: usize) {
        let member = &mut self.members[at];
        let client = Client::new(&member.client_url, None);
        eventually(&format!("{} answers", member.name), || {
            let process = member.process.as_mut().expect("a running member");
            if let Some(status) = process.exited() {
                panic!("{} ended with {status}:\n{}", member.name, process.last_output());
            }
            let said = process.output().contains("ready to serve client requests");
            let answer = client.call_within("KV/Range", "key:'ready'", Duration::from_secs(3));
            let learner = "rpc not supported for learner";
            said && answer.map_or_else(|why| why.message.contains(learner), |_| true)
        });
    }

    /// Waits until a member has ended by itself; what it printed last.
    pub fn wait_until_ended(&mut self, at: usize) -> String {
        let member = &mut self.members[at];
        let process = member.process.as_mut().expect("a running member");
        eventually(&format!("{} ends", member.name), || process.exited().is_some());
        let output = process.last_output();
        member.process = None;
        output
    }

    /// `kill -9`.
    pub fn kill(&mut self, at: usize) {
        self.members[at].process.take().expect("a running member").kill();
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self, at: usize) {
        drop(self.members[at].process.take().expect("a running member"));
    }

    /// Empties the directory of a member that does not run.
    pub fn wipe(&mut self, at: usize) {
        assert!(!self.members[at].runs(), "only a stopped member is emptied");
        if self.members[at].data.exists() {
            std::fs::remove_dir_all(&self.members[at].data).expect("an own directory");
        }
    }

    /// A file in a member's data directory.
    pub fn file(&self, at: usize, name: impl AsRef<Path>) -> PathBuf {
        self.members[at].data.join(name)
    }

    /// A connection to a member.
    pub fn client(&self, at: usize) -> Client {
        Client::new(&self.members[at].client_url, None)
    }

    /// etcdctl at a member; what it printed, or its complaint.
    pub fn etcdctl(&self, at: usize, arguments: &[&str]) -> Result<String, String> {
        let output = peers::command("etcdctl")
            .arg(format!("--endpoints={}", self.members[at].client_url))
            .args(arguments)
            .output()
            .expect("etcdctl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}
