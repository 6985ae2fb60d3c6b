//! A Kubernetes control plane of plain processes: kube-apiserver, kube-controller-manager,
//! kube-scheduler, all unmodified, over whatever serves the etcd API.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::certificates::{LOOPBACK, authority, holder};
use crate::cluster::TlsFiles;
use crate::peers::{self, Process};

/// The programs a control plane needs.
pub const PROGRAMS: [&str; 4] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];

const ADMIN: &str = "admin";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

/// Usually 15 and 10 s, for which a machine that runs all of this beside itself may starve a process.
const LEADER_ELECTION: [&str; 2] =
    ["--leader-elect-lease-duration=120s", "--leader-elect-renew-deadline=100s"];

/// How an apiserver reaches its store.
#[derive(Clone, Debug)]
pub struct Store {
    /// `--etcd-servers`.
    pub endpoints: String,
    /// `--etcd-cafile`, `--etcd-certfile`, `--etcd-keyfile`.
    pub tls: Option<TlsFiles>,
}

/// Keys, certificates and tokens that every apiserver of one control plane shares.
pub struct ControlPlane {
    home: TempDir,
    /// How long an Event lives, in seconds.
    pub event_ttl_seconds: u32,
}

impl ControlPlane {
    /// Makes the keys; nothing runs yet.
    pub fn new(event_ttl_seconds: u32) -> ControlPlane {
        let home = tempfile::tempdir().expect("a temporary directory");
        write_certificates(home.path());
        let tokens: Vec<String> =
            [(ADMIN, ",\"system:masters\""), (CONTROLLER_MANAGER, ""), (SCHEDULER, "")]
                .iter()
                .map(|(user, groups)| format!("{},{user},{user}{groups}", token(user)))
                .collect();
        fs::write(home.path().join("tokens.csv"), tokens.join("\n")).expect("token file");
        ControlPlane { home, event_ttl_seconds }
    }

    /// Where every file and log of this control plane is.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts an apiserver called `name` on `store` and waits for `/readyz`.
    pub fn start_apiserver(&self, name: &str, store: &Store) -> ApiServer {
        let port = peers::free_port();
        let home = self.home();
        let mut command = peers::command("kube-apiserver");
        let path = |file: &str| home.join(file).display().to_string();
        let mut flags: Vec<(&str, String)> = vec![
            ("etcd-servers", store.endpoints.clone()),
            ("bind-address", "127.0.0.1".into()),
            ("secure-port", port.to_string()),
            // An Endpoints address may not be a loopback one; nobody dials this.
            ("advertise-address", "10.20.30.40".into()),
            ("service-cluster-ip-range", "10.96.0.0/16".into()),
            ("tls-cert-file", path("server.crt")),
            ("tls-private-key-file", path("server.key")),
            ("client-ca-file", path("ca.crt")),
            ("token-auth-file", path("tokens.csv")),
            ("authorization-mode", "RBAC".into()),
            ("service-account-issuer", "https://kubernetes.default.svc".into()),
            ("service-account-key-file", path("accounts.pub")),
            ("service-account-signing-key-file", path("accounts.key")),
            ("event-ttl", format!("{}s", self.event_ttl_seconds)),
            // Short, so that the compactor runs within the scene.
            ("etcd-compaction-interval", "20s".into()),
            ("shutdown-delay-duration", "0s".into()),
        ];
        if let Some(tls) = &store.tls {
            flags.push(("etcd-cafile", tls.ca.display().to_string()));
            flags.push(("etcd-certfile", tls.certificate.display().to_string()));
            flags.push(("etcd-keyfile", tls.key.display().to_string()));
        }
        command.args(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
        command.current_dir(home);
        let log = home.join(format!("{name}.log"));
        let process = Process::start("kube-apiserver", command, &log);
        let mut server = ApiServer { name: name.into(), process, kubeconfigs: Vec::new(), log };
        for user in [ADMIN, CONTROLLER_MANAGER, SCHEDULER] {
            let file = home.join(format!("{name}-{}.kubeconfig", user.replace(':', "-")));
            fs::write(&file, kubeconfig(home, port, user)).expect("kubeconfig");
            server.kubeconfigs.push(file);
        }
        server.wait_until_ready();
        server
    }

    /// Starts the controller manager against `server`.
    pub fn start_controller_manager(&self, server: &ApiServer) -> Process {
        let mut command = peers::command("kube-controller-manager");
        let path = |file: &str| self.home().join(file).display().to_string();
        command.args([
            format!("--kubeconfig={}", server.kubeconfigs[1].display()),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={}", peers::free_port()),
            format!("--cert-dir={}", path("controller-manager")),
            "--authentication-skip-lookup=true".into(),
            "--use-service-account-credentials=true".into(),
            format!("--service-account-private-key-file={}", path("accounts.key")),
            format!("--root-ca-file={}", path("ca.crt")),
            "--kube-api-qps=200".into(),
            "--kube-api-burst=400".into(),
        ]);
        command.args(LEADER_ELECTION);
        let log = self.home().join("controller-manager.log");
        Process::start("kube-controller-manager", command, &log)
    }

    /// Starts the scheduler against `server`.
    pub fn start_scheduler(&self, server: &ApiServer) -> Process {
        let mut command = peers::command("kube-scheduler");
        command.args([
            format!("--kubeconfig={}", server.kubeconfigs[2].display()),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={}", peers::free_port()),
            format!("--cert-dir={}", self.home().join("scheduler").display()),
            "--authentication-skip-lookup=true".into(),
        ]);
        command.args(LEADER_ELECTION);
        Process::start("kube-scheduler", command, &self.home().join("scheduler.log"))
    }
}

/// A running kube-apiserver.
pub struct ApiServer {
    name: String,
    process: Process,
    /// For the admin, the controller manager and the scheduler.
    kubeconfigs: Vec<PathBuf>,
    log: PathBuf,
}

impl ApiServer {
    fn wait_until_ready(&mut self) {
        peers::eventually(&format!("{} is ready", self.name), || {
            if let Some(status) = self.process.exited() {
                panic!("{} ended with {status}:\n{}", self.name, self.process.last_output());
            }
            let answer = self.kubectl(&["get", "--raw", "/readyz"]);
            answer.status.success() && answer.stdout == b"ok"
        });
    }

    /// A kubectl with the admin's rights.
    pub fn kubectl_command(&self) -> Command {
        let mut command = peers::command("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfigs[0]);
        // kubectl caches discovery below HOME.
        command.env("HOME", self.log.parent().expect("a file in the home"));
        command
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command().args(arguments).output().expect("kubectl runs")
    }

    /// Runs kubectl, wants success, returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(
            output.status.success(),
            "kubectl {} on {}: {}",
            arguments.join(" "),
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs kubectl with `-o json`, wants success.
    pub fn json(&self, arguments: &[&str]) -> Json {
        let text = self.run(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("kubectl -o json prints JSON")
    }

    /// Writes `manifest` to a file and runs `kubectl VERB... -f FILE`.
    pub fn with_file(&self, verb: &[&str], manifest: &str) -> Output {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), manifest).expect("a temporary file");
        let path = file.path().display().to_string();
        self.kubectl(&[verb, &["-f", &path]].concat())
    }

    /// Like [`ApiServer::with_file`], wants success.
    pub fn apply_file(&self, verb: &[&str], manifest: &str) {
        let output = self.with_file(verb, manifest);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {} on {}: {error}", verb.join(" "), self.name);
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its error lines (klog E and F), without time, thread and numbers, each once, sorted.
    pub fn error_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.process.output().lines().filter_map(error_line).collect();
        lines.sort();
        lines.dedup();
        lines
    }
}

/// `E1121 15:00:00.1  77 file.go:12] text 5` -> `file.go text N`; `None` for other severities.
fn error_line(line: &str) -> Option<String> {
    let severity = line.chars().next()?;
    let time = line.get(1..5)?;
    if !matches!(severity, 'E' | 'F') || !time.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (head, text) = line.split_once("] ")?;
    let file = head.rsplit(' ').next()?.split(':').next()?;
    let mut out = format!("{file} ");
    for character in text.chars() {
        match character.is_ascii_digit() {
            true if out.ends_with('N') => {}
            true => out.push('N'),
            false => out.push(character),
        }
    }
    Some(out)
}

fn token(user: &str) -> String {
    format!("token-{}", user.replace(':', "-"))
}

fn kubeconfig(home: &Path, port: u16, user: &str) -> String {
    let ca = home.join("ca.crt").display().to_string();
    let token = token(user);
    serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster":
            {"server": format!("https://127.0.0.1:{port}"), "certificate-authority": ca}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    })
    .to_string()
}

/// A CA, a serving certificate for loopback, a key for service account tokens.
fn write_certificates(home: &Path) {
    let authority = authority("scene-ca");
    let names = [LOOPBACK, &["kubernetes.default.svc", "10.96.0.1"]].concat();
    let mut server = holder("kube-apiserver", &names);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    authority.issue(&server).write(&home.join("server.crt"), &home.join("server.key"));

    let accounts = KeyPair::generate().expect("a key");
    for (file, text) in [
        ("ca.crt", authority.certificate),
        ("accounts.key", accounts.serialize_pem()),
        ("accounts.pub", accounts.public_key_pem()),
    ] {
        fs::write(home.join(file), text).expect("certificate file");
    }
}
